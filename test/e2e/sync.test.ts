/** `gate sync` against a machine behind an sshd of the test's own. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { sync as runSync } from '../../src/cli/sync/index.ts';
import { startGate } from './harness.ts';
import { startSshd } from './sshd.ts';

async function rig(t: TestContext) {
  const gate = await startGate(t);
  const sshd = await startSshd(t);
  const here = join(gate.dir, 'here');
  const there = join(gate.dir, 'over there');
  mkdirSync(here);
  const { host, port, identityFile, hostKeys } = sshd.target;
  const flags = ['--vm-user', 'root', '--vm-host', host, '--ssh-port', `${port}`, '--ssh-key', identityFile!];
  flags.push('--known-hosts', hostKeys!.file, '--host-key-alias', hostKeys!.alias, '--vm-repo-path', there);
  const sync = (...more: ('--back' | '--delete' | '--force' | '--dry-run')[]) =>
    runSync({
      here,
      there,
      target: sshd.target,
      back: more.includes('--back'),
      delete: more.includes('--delete'),
      force: more.includes('--force'),
      dryRun: more.includes('--dry-run'),
      exclude: [],
      stateDir: gate.state,
    });
  const at = (dir: string, files: Record<string, string | null>) => {
    for (const [name, text] of Object.entries(files))
      if (text === null) rmSync(join(dir, name), { recursive: true });
      else {
        mkdirSync(join(dir, name, '..'), { recursive: true });
        writeFileSync(join(dir, name), text);
      }
  };
  const read = (dir: string, name: string) => readFileSync(join(dir, name), 'utf8');
  return { gate, here, there, sync, at, read, flags };
}

test('there and back again, and nothing is lost on the way', async (t) => {
  const { gate, here, there, sync, at, read, flags } = await rig(t);
  const strange = "it's -n \n \u00e9 $x";
  at(here, { a: 'a', 'd/b': 'b', 'd/e/c': 'c', [strange]: 's' });
  symlinkSync('d/b', join(here, 'link'));
  const dry = await sync('--dry-run');
  assert.deepEqual(dry.send, ['a', 'd', 'd/b', 'd/e', 'd/e/c', strange, 'link'].sort());
  assert.ok(!existsSync(there));
  assert.equal((await sync()).done, true);
  assert.equal(read(there, 'link'), 'b');
  assert.equal(read(there, strange), 's');
  const again = await sync();
  assert.deepEqual([again.done, again.send, again.kept, again.theirs], [true, [], [], []]);

  // Each side changes something of its own.
  at(here, { a: 'a2', 'd/b': null });
  at(there, { 'd/e/c': 'c2', only: 'there' });
  const pushed = await sync();
  assert.deepEqual([pushed.send, pushed.kept, pushed.theirs], [['a'], ['d/b', 'only'], ['d/e/c']]);
  assert.deepEqual([read(there, 'a'), read(there, 'd/e/c'), read(there, 'only')], ['a2', 'c2', 'there']);
  const back = await sync('--back');
  assert.deepEqual([back.send, back.theirs], [['d/e/c', 'only'], ['d/b']]);
  assert.deepEqual([read(here, 'd/e/c'), read(here, 'only')], ['c2', 'there']);
  const gone = await sync('--delete');
  assert.deepEqual(gone.remove, ['d/b']);
  assert.ok(!existsSync(join(there, 'd/b')));

  // Both change the same file: nothing is done until somebody decides.
  at(here, { a: 'here', new: 'n' });
  at(there, { a: 'there' });
  const refused = await sync();
  assert.deepEqual([refused.done, refused.conflicts], [false, ['a']]);
  assert.ok(!existsSync(join(there, 'new')));
  const words = await gate.gate(['sync', here, ...flags]).done;
  assert.equal(words.status, 1);
  assert.match(words.out, /1 changed on both sides:\n {2}a\n/);
  assert.match(words.err, /nothing was done/);
  assert.equal((await sync('--force')).done, true);
  assert.deepEqual([read(there, 'a'), read(there, 'new')], ['here', 'n']);

  // The same content under another time is no conflict.
  at(here, { a: 'same' });
  at(there, { a: 'same' });
  const equal = await sync();
  assert.deepEqual([equal.done, equal.conflicts, equal.send], [true, [], []]);
  at(there, { a: 'next' });
  assert.deepEqual((await sync('--back')).send, ['a']);
});

test('a machine that cannot be reached is told of, and nothing is changed', async (t) => {
  const { gate, here, at, flags } = await rig(t);
  at(here, { a: 'a' });
  const { status, err } = await gate.gate(['sync', here, ...flags, '--ssh-port', '1']).done;
  assert.equal(status, 1);
  assert.match(err, /cannot reach root@127\.0\.0\.1:1/);
});
