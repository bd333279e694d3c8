import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { decodePath } from '../base/bytes.ts';
import { userAllowOther } from './mount.ts';
import { parseMounts } from './mountinfo.ts';

test('mountinfo with escapes, optional fields and bytes that are no UTF-8', () => {
  const content = Buffer.concat([
    Buffer.from(
      '36 35 98:0 /mnt1 /mnt/a\\040b\\134c rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n',
    ),
    Buffer.from('40 35 0:52 / /mnt/\\377'),
    Buffer.from([0xfe]),
    Buffer.from(' ro,nosuid - fuse.gate gate\\040x rw,user_id=0\nrubbish\n\n'),
  ]);
  const [one, two, ...rest] = parseMounts(content);
  assert.equal(rest.length, 0);
  assert.deepEqual(one, {
    mountId: 36,
    parentId: 35,
    dev: { major: 98, minor: 0 },
    root: '/mnt1',
    mountPoint: '/mnt/a b\\c',
    options: ['rw', 'noatime'],
    fsType: 'ext3',
    source: '/dev/root',
    superOptions: ['rw', 'errors=continue'],
  });
  assert.equal(two?.mountPoint, decodePath(Buffer.from([...Buffer.from('/mnt/'), 0xff, 0xfe])));
  assert.deepEqual([two?.fsType, two?.source, two?.dev.minor], ['fuse.gate', 'gate x', 52]);
  assert.ok(parseMounts().some((mount) => mount.mountPoint === '/'));
});

test('user_allow_other counts only when it is not commented out', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'gate-conf-'));
  const file = path.join(dir, 'fuse.conf');
  try {
    for (const [text, expected] of [
      ['# user_allow_other\n', false],
      ['mount_max = 5\n user_allow_other \n', true],
      ['', false],
    ] as const) {
      writeFileSync(file, text);
      assert.equal(userAllowOther(file), expected, text);
    }
    assert.equal(userAllowOther(path.join(dir, 'none')), false);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
