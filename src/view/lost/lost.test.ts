/** What is kept below `.gate/lost/`: the folder, its records, and what goes when there is too much. */
import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Bounds, judge } from './bounds.ts';
import { type Kept, LostFolder } from './folder.ts';
import { type LostRecord, parseRecord } from './record.ts';
import { WriterWalk } from './walk.ts';

const ABOUT = { path: 'f', why: 'cap', owner: 'a', by: 'b' } as const;

function rig(t: TestContext) {
  const dir = mkdtempSync('/var/tmp/gate-lost-');
  const fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  const folder = new LostFolder(fd, () => 1_800_000_000_000);
  t.after(() => {
    folder.close();
    closeSync(fd);
    rmSync(dir, { recursive: true });
  });
  return { dir, fd, folder, f: join(dir, 'f') };
}

test('a fresh inode has the same content, mode and times; the old one is kept and seen to be changed', (t) => {
  const { dir, fd, folder, f } = rig(t);
  writeFileSync(f, 'content', { mode: 0o640 });
  const before = statSync(f);
  const writer = openSync(f, 'r+');
  assert.equal(folder.open(), false);
  assert.equal(existsSync(join(dir, '.gate')), false);
  const record = folder.freshInode(fd, 'f', String(before.ino), ABOUT);
  const after = statSync(f);
  assert.notEqual(after.ino, before.ino);
  assert.deepEqual([after.mode, after.mtimeMs, after.uid], [before.mode, before.mtimeMs, before.uid]);
  assert.equal(readFileSync(f, 'utf8'), 'content');
  assert.equal(readFileSync(join(dir, '.gate/.gitignore'), 'utf8'), '*\n');
  assert.equal(statSync(join(dir, '.gate/lost')).mode & 0o777, 0o700);
  assert.equal(folder.look(record), undefined);
  writeSync(writer, 'CHANGED', 0);
  assert.equal(folder.look(record), 'changed');
  closeSync(writer);
  assert.deepEqual(
    folder.list().map((kept) => kept.record),
    [record],
  );
  assert.equal(readFileSync(join(dir, '.gate/lost', record.id), 'utf8'), 'CHANGED');
});

test('one that was not written to is known to be unchanged when its writer is gone', (t) => {
  const { fd, folder, f } = rig(t);
  writeFileSync(f, 'content');
  const writer = openSync(f, 'r+');
  const record = folder.freshInode(fd, 'f', String(statSync(f).ino), ABOUT);
  closeSync(writer);
  assert.equal(folder.look(record), 'unchanged');
  folder.remove(record.id);
  assert.equal(folder.look(record), 'gone');
  assert.deepEqual(folder.list(), []);
});

test('a file with several names, or another inode than expected, is left alone', (t) => {
  const { dir, fd, folder, f } = rig(t);
  writeFileSync(f, 'content');
  const { ino } = statSync(f);
  assert.throws(() => folder.freshInode(fd, 'f', '1', ABOUT), /leads elsewhere/);
  linkSync(f, join(dir, 'g'));
  assert.throws(() => folder.freshInode(fd, 'f', String(ino), ABOUT), /several names/);
  assert.equal(statSync(f).ino, ino);
  assert.equal(existsSync(join(dir, '.gate')), false);
});

test('a symlink in the place of the folder is not followed', (t) => {
  const { dir, fd, folder, f } = rig(t);
  const elsewhere = mkdtempSync('/var/tmp/gate-lost-');
  t.after(() => rmSync(elsewhere, { recursive: true }));
  symlinkSync(elsewhere, join(dir, '.gate'));
  writeFileSync(f, 'content');
  assert.throws(() => folder.freshInode(fd, 'f', String(statSync(f).ino), ABOUT), /open .gate/);
  assert.equal(existsSync(join(elsewhere, 'lost')), false);
});

test('a record that cannot be read does not hide what is kept', (t) => {
  const { dir, fd, folder, f } = rig(t);
  writeFileSync(f, 'content');
  const { id } = folder.freshInode(fd, 'f', String(statSync(f).ino), ABOUT);
  writeFileSync(join(dir, '.gate/lost', `${id}.json`), '{"path": 1');
  assert.deepEqual(
    folder.list().map(({ record }) => [record.id, record.state, record.path]),
    [[id, 'conflict', '']],
  );
  assert.equal(parseRecord(id, '[]'), undefined);
});

test('what is over the bounds goes: sweeps before conflicts, the oldest first, and never what may still be written to', () => {
  const day = 86_400_000;
  const nowMs = 100 * day;
  const kept = (id: string, state: LostRecord['state'], ageDays: number, diskBytes: number): Kept => {
    const about = { path: id, owner: 'a', by: 'b', why: 'cap' as const, ino: '1', sizeBytes: 0, mtimeMs: 0 };
    return {
      record: { ...about, id, state, keptAtMs: nowMs - ageDays * day },
      sizeBytes: 0,
      diskBytes,
      mtimeMs: 0,
    };
  };
  const bounds: Bounds = { bytes: 100, days: 10 };
  const all = [kept('w', 'watched', 50, 10), kept('c', 'conflict', 5, 30), kept('s', 'sweep', 1, 30)];
  assert.deepEqual(judge(all, bounds, nowMs), { bytes: 70, soon: 0, over: [] });
  assert.deepEqual(judge([...all, kept('t', 'sweep', 2, 40)], bounds, nowMs).over, ['t']);
  assert.deepEqual(judge([...all, kept('u', 'conflict', 11, 5)], bounds, nowMs).over, ['u']);
  assert.ok(judge([...all, kept('v', 'conflict', 9.5, 5)], bounds, nowMs).soon > 0);
  assert.ok(judge([...all, kept('x', 'sweep', 0, 15)], bounds, nowMs).soon > 0);
});

test('a walk finds the files that somebody can write to, and no others', (t) => {
  const { dir, fd, f } = rig(t);
  mkdirSync(join(dir, 'd/node_modules'), { recursive: true });
  for (const name of ['f', 'd/g', 'd/node_modules/h', 'read']) writeFileSync(join(dir, name), 'x');
  symlinkSync(f, join(dir, 'link'));
  const open = [f, join(dir, 'd/g'), join(dir, 'd/node_modules/h')].map((path) => openSync(path, 'r+'));
  const reader = openSync(join(dir, 'read'), 'r');
  const walk = new WriterWalk(fd);
  let steps = 1;
  while (walk.step(1)) steps++;
  assert.equal(walk.failed, null);
  assert.deepEqual(walk.found.toSorted(), ['d/g', 'f']);
  assert.ok(steps > 3);
  for (const each of [...open, reader]) closeSync(each);
});
