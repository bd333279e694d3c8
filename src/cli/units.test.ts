import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { installUnits, withSettings } from './units.ts';

test('settings replace what stands there, and the shell reads them as they were', () => {
  const text = withSettings('# why\nA=1\nB=2\n', { B: 'two words, $HOME and "`x`"', C: '/plain' });
  assert.match(text, /^# why\nA=1\nB=".*"\nC=\/plain\n$/);
  const said = execFileSync('sh', ['-c', `${text}printf %s "$A|$B|$C"`], { encoding: 'utf8' });
  assert.equal(said, '1|two words, $HOME and "`x`"|/plain');
});

test('units are put below a prefix, and settings of before stay', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'gate-units-'));
  t.after(() => rmSync(dir, { recursive: true }));
  installUnits(dir, { GATE_REPO: '/srv/x', GATE_AGENTS: 'none' });
  const files = installUnits(dir, { GATE_MOUNT: '/mnt/x' });
  const env = readFileSync(files[0]!, 'utf8');
  for (const line of [
    'GATE_REPO=/srv/x',
    'GATE_MOUNT=/mnt/x',
    'GATE_AGENTS=none',
    'GATE_STATE_DIR=/var/lib/gate',
  ])
    assert.ok(env.split('\n').includes(line), line);
  assert.equal(files.length, 4);
  for (const unit of files.slice(1)) {
    const text = readFileSync(unit, 'utf8');
    // Each variable of a command line has a value.
    for (const [, name] of text.matchAll(/\$\{?(GATE_\w+)/g)) assert.match(env, new RegExp(`^${name}=`, 'm'));
  }
});
