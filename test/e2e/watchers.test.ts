/**
 * Programs that watch files in a view hear of what is changed in the tree below (`--watch`): the kernel tells them only of what is done
 * through the view, so a process repeats the file's own mode there.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { until } from '../../src/base/clock.ts';
import { type Gate, PATIENCE_MS, type Running, settle, startGate } from './harness.ts';

const options = { timeout: 120_000 };
const LONG = ['--watch', 'on', '--attr-valid-ms', '600000'];

/** Prints `event path` for each event, after `ready`. */
const CHOKIDAR = `
import { watch } from ${JSON.stringify(import.meta.resolve('chokidar'))};
const watcher = watch('.', { ignoreInitial: true });
watcher.on('all', (event, path) => console.log(event + ' ' + path));
watcher.on('ready', () => console.log('ready'));
`;
/** The same with Node's own watcher of one path. */
const NODE_WATCH = `
import { watch } from 'node:fs';
watch(process.argv[1], (event, name) => console.log(event + ' ' + name));
console.log('ready');
`;

function node(gate: Gate, script: string, args: string[] = []): Running & { lines: () => string[] } {
  const running = gate.run(process.execPath, ['--input-type=module', '-e', script, ...args]);
  let out = '';
  running.child.stdout!.on('data', (text) => (out += text));
  return Object.assign(running, { lines: () => out.split('\n') });
}

async function hears(watcher: { lines: () => string[] }, line: string): Promise<void> {
  const heard = await until(() => watcher.lines().includes(line), PATIENCE_MS);
  assert.ok(heard, `'${line}' was never heard, but: ${watcher.lines().join(', ')}`);
}

for (const passthrough of [true, false])
  test(
    `chokidar in the view hears of files changed, made and removed outside (${passthrough ? '' : 'no '}passthrough)`,
    options,
    async (t) => {
      const gate = await startGate(t, { passthrough, mountFlags: LONG });
      fs.mkdirSync(join(gate.root, 'src/deep'), { recursive: true });
      fs.writeFileSync(join(gate.root, 'src/deep/app.ts'), 'one');
      const watcher = node(gate, CHOKIDAR);
      await hears(watcher, 'ready');
      fs.writeFileSync(join(gate.root, 'src/deep/app.ts'), 'two, and longer');
      await hears(watcher, 'change src/deep/app.ts');
      fs.writeFileSync(join(gate.root, 'src/new.ts'), 'new');
      await hears(watcher, 'add src/new.ts');
      fs.mkdirSync(join(gate.root, 'src/folder'));
      await hears(watcher, 'addDir src/folder');
      fs.writeFileSync(join(gate.root, 'src/folder/inner.ts'), 'inner');
      await hears(watcher, 'add src/folder/inner.ts');
      fs.unlinkSync(join(gate.root, 'src/new.ts'));
      await hears(watcher, 'unlink src/new.ts');
      fs.renameSync(join(gate.root, 'src/deep/app.ts'), join(gate.root, 'main.ts'));
      await hears(watcher, 'unlink src/deep/app.ts');
      await hears(watcher, 'add main.ts');
      // As editors save: another file under the same name.
      fs.writeFileSync(join(gate.root, 'main.ts.new'), 'replaced, and once more longer');
      fs.renameSync(join(gate.root, 'main.ts.new'), join(gate.root, 'main.ts'));
      await hears(watcher, 'change main.ts');
      watcher.child.kill('SIGKILL');
    },
  );

test('a wake changes nothing, takes no lock, and reaches a file that somebody holds', options, async (t) => {
  const gate = await startGate(t, { mountFlags: LONG });
  const outside = join(gate.root, 'file');
  fs.writeFileSync(outside, 'one');
  fs.chmodSync(outside, 0o640);
  assert.equal(fs.statSync(gate.path('file')).size, 3);
  const holder = await gate.actor('holder');
  const reader = await holder.open(gate.path('file'), 'RDONLY');
  // Whoever wants to change the mode waits for this.
  const hold = gate.gate(['hold', gate.path('file'), '--read', '--', 'sleep', '1000']);
  await until(async () => (await gate.session.status('file', gate.volume)).holds.length === 2, PATIENCE_MS);
  const watcher = node(gate, NODE_WATCH, ['file']);
  await hears(watcher, 'ready');
  fs.writeFileSync(outside, 'two');
  const changed = fs.statSync(outside);
  await hears(watcher, 'change file');
  await settle();
  const then = fs.statSync(outside);
  assert.equal(then.ctimeMs, changed.ctimeMs);
  assert.equal(then.mode & 0o7777, 0o640);
  assert.equal(await gate.waiting('file'), 0);
  await holder.do('close', reader);
  hold.child.kill('SIGTERM');
  watcher.child.kill('SIGKILL');
});

test(
  "what is done in the view, also by the kernel's own writes, wakes nobody a second time",
  options,
  async (t) => {
    const gate = await startGate(t, { mountFlags: LONG });
    fs.writeFileSync(gate.path('file'), 'x');
    const watcher = node(gate, NODE_WATCH, ['.']);
    await hears(watcher, 'ready');
    for (let round = 0; round < 20; round++) fs.writeFileSync(gate.path('file'), `content ${round}`);
    fs.writeFileSync(join(gate.root, 'other'), 'from outside');
    await hears(watcher, 'change other');
    const script = 'ps -o pid=,args= --ppid "$1" | grep -c waker.ts';
    const waker = await gate.sh(script.replace('"$1"', String(gate.mounter.pid)), { cwd: '/' }).done;
    assert.equal(waker.out.trim(), '1');
    // A truncation and a write each time, and nothing that comes from us: IN_ATTRIB would be one more.
    const heard = watcher.lines().filter((line) => line === 'change file').length;
    assert.ok(heard <= 40, `${heard} events`);
    watcher.child.kill('SIGKILL');
  },
);

test(
  'three thousand files changed outside are woken in bounded time, and the view works on',
  options,
  async (t) => {
    const gate = await startGate(t, { mountFlags: LONG });
    for (let d = 0; d < 30; d++) {
      fs.mkdirSync(join(gate.root, `d${d}`));
      for (let f = 0; f < 100; f++) fs.writeFileSync(join(gate.root, `d${d}/f${f}`), 'one');
    }
    const count = await gate.sh('find . -type f -size -4c | xargs stat -c %s | wc -l').done;
    assert.equal(count.out.trim(), '3000');
    const watcher = node(gate, NODE_WATCH, ['d9']);
    await hears(watcher, 'ready');
    await gate.sh('for d in d*; do for f in $d/*; do echo changed > $f; done; done', { cwd: gate.root }).done;
    assert.ok(
      await until(() => watcher.lines().some((line) => line.startsWith('change ')), PATIENCE_MS),
      'never woken',
    );
    const sizes = await until(async () => {
      const out = (await gate.sh('find . -type f -printf "%s\\n" | sort | uniq -c').done).out.trim();
      return /^3000 8$/.test(out);
    }, PATIENCE_MS);
    assert.ok(sizes, 'some still show their old length');
    watcher.child.kill('SIGKILL');
  },
);

test('`on` fails where changes cannot be followed, and `auto` does without', options, async (t) => {
  const gate = await startGate(t);
  // What is changed in an overlay's layers does not show at its own inodes.
  const lower = join(gate.dir, 'lower');
  fs.mkdirSync(lower);
  const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
  const over = join(gate.dir, 'over');
  for (const name of ['upper', 'work', 'over', 'mnt3']) fs.mkdirSync(join(gate.dir, name));
  const mounted = await gate.sh(
    `mount -t overlay none -o lowerdir=${lower},upperdir=${gate.dir}/upper,workdir=${gate.dir}/work ${over}`,
  ).done;
  if (mounted.status !== 0) return t.skip(`no overlayfs here: ${mounted.err}`);
  const flags = ['mount', '--root', over, '--mount', join(gate.dir, 'mnt3'), '--state-dir', gate.state];
  const args = ['--disable-warning=ExperimentalWarning', main, ...flags, '--watch', 'on'];
  const tried = await gate.run(process.execPath, args, { cwd: '/' }).done;
  await gate.sh(`umount -l ${over}`, { cwd: '/' }).done;
  assert.equal(tried.status, 1);
  assert.match(tried.err, /cannot be followed/);
});
