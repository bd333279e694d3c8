/**
 * What is changed in the tree below, beside the view, shows in the view although the kernel remembers names and attributes for ten minutes
 * (`--watch`). Each test first makes the kernel remember, then changes something outside, and waits for the view to show it: for
 * far less than that validity.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { delay, until } from '../../src/base/clock.ts';
import { type Gate, PATIENCE_MS, startGate } from './harness.ts';

/** Ten minutes, as `auto` has it, but said, so that no other reason can make it short. */
const LONG = ['--watch', 'on', '--attr-valid-ms', '600000'];
const options = { timeout: 120_000 };

function startWatched(
  t: TestContext,
  more: { passthrough?: boolean; delegation?: boolean } = {},
): Promise<Gate> {
  return startGate(t, { ...more, mountFlags: LONG });
}

/** Waits until the view shows it. `probe` throws or gives false until then. */
async function shows(what: string, probe: () => boolean): Promise<void> {
  const careful = () => {
    try {
      return probe();
    } catch {
      return false;
    }
  };
  const seen = await until(careful, PATIENCE_MS, 5);
  assert.ok(seen, `never showed in the view: ${what}`);
}

const at = (gate: Gate, name: string) => ({ outside: join(gate.root, name), inside: gate.path(name) });
const sizeOf = (path: string) => fs.statSync(path).size;

for (const passthrough of [true, false]) {
  const mode = passthrough ? 'passthrough' : 'no passthrough';

  test(`content, length, mode and owner changed outside show (${mode})`, options, async (t) => {
    const gate = await startWatched(t, { passthrough });
    const { outside, inside } = at(gate, 'file');
    fs.writeFileSync(outside, 'one\n');
    await shows('a new file', () => fs.readFileSync(inside, 'utf8') === 'one\n');
    assert.equal(sizeOf(inside), 4);

    fs.writeFileSync(outside, 'two lines\nof it\n');
    await shows('its new length', () => sizeOf(inside) === 16);
    assert.equal(fs.readFileSync(inside, 'utf8'), 'two lines\nof it\n');

    // The same length: nothing but the content tells.
    fs.writeFileSync(outside, 'TWO LINES\nOF IT\n');
    await shows('content of the same length', () => fs.readFileSync(inside, 'utf8') === 'TWO LINES\nOF IT\n');

    fs.chmodSync(outside, 0o600);
    await shows('its new mode', () => (fs.statSync(inside).mode & 0o777) === 0o600);
    fs.chownSync(outside, 4711, 4712);
    await shows('its new owner', () => fs.statSync(inside).uid === 4711 && fs.statSync(inside).gid === 4712);
    fs.utimesSync(outside, 1000, 2000);
    await shows('its new time', () => fs.statSync(inside).mtimeMs === 2_000_000);

    const fd = fs.openSync(outside, 'a');
    fs.writeSync(fd, 'more');
    await shows('what is appended by a writer that goes on', () => sizeOf(inside) === 20);
    fs.closeSync(fd);
  });

  test(`an open file shows what is written outside (${mode})`, options, async (t) => {
    const gate = await startWatched(t, { passthrough });
    const { outside, inside } = at(gate, 'file');
    fs.writeFileSync(outside, 'aaaa');
    const fd = fs.openSync(inside, 'r');
    const read = () => {
      const bytes = Buffer.alloc(8);
      return bytes.toString('latin1', 0, fs.readSync(fd, bytes, 0, 8, 0));
    };
    assert.equal(read(), 'aaaa');
    fs.writeFileSync(outside, 'bbbb');
    await shows('the pages of an open file', () => read() === 'bbbb');
    fs.truncateSync(outside, 1);
    await shows('its length through the descriptor', () => fs.fstatSync(fd).size === 1 && read() === 'b');
    fs.closeSync(fd);
  });
}

test('a file that was open for writing in the view is followed again afterwards', options, async (t) => {
  const gate = await startWatched(t);
  const { outside, inside } = at(gate, 'file');
  const fd = fs.openSync(inside, 'w');
  // Long enough for the view to notice, and overlook, that its own writer goes on writing.
  for (let i = 0; i < 100; i++) {
    fs.writeSync(fd, 'x');
    await delay(2);
  }
  fs.appendFileSync(outside, 'y');
  assert.equal(sizeOf(inside), 101);
  fs.closeSync(fd);
  assert.equal(sizeOf(inside), 101);
  fs.appendFileSync(outside, 'z');
  await shows('what is written after the close', () => sizeOf(inside) === 102);
});

test('names made, removed and renamed outside show, also those known not to exist', options, async (t) => {
  const gate = await startWatched(t);
  const made = at(gate, 'made');
  assert.equal(fs.existsSync(made.inside), false);
  assert.equal(fs.existsSync(made.inside), false);
  assert.deepEqual(fs.readdirSync(gate.mount), []);
  fs.writeFileSync(made.outside, 'x');
  await shows('a name that did not exist', () => fs.existsSync(made.inside));
  assert.deepEqual(fs.readdirSync(gate.mount), ['made']);

  const moved = at(gate, 'moved');
  assert.equal(fs.existsSync(moved.inside), false);
  fs.renameSync(made.outside, moved.outside);
  await shows('a new name', () => fs.existsSync(moved.inside));
  await shows('the end of the old name', () => !fs.existsSync(made.inside));

  fs.writeFileSync(join(gate.root, 'temporary'), 'another file');
  fs.renameSync(join(gate.root, 'temporary'), moved.outside);
  await shows('a replaced file', () => fs.readFileSync(moved.inside, 'utf8') === 'another file');
  fs.unlinkSync(moved.outside);
  await shows('a removed file', () => !fs.existsSync(moved.inside));
  await shows('an empty directory', () => fs.readdirSync(gate.mount).length === 0);
});

test('symbolic links, directories and hard links changed outside show', options, async (t) => {
  const gate = await startWatched(t);
  const link = at(gate, 'link');
  fs.symlinkSync('one', link.outside);
  await shows('a link', () => fs.readlinkSync(link.inside) === 'one');
  fs.unlinkSync(link.outside);
  fs.symlinkSync('two', link.outside);
  await shows('its new target', () => fs.readlinkSync(link.inside) === 'two');

  const deep = at(gate, 'a/b/c/file');
  fs.mkdirSync(join(gate.root, 'a/b/c'), { recursive: true });
  fs.writeFileSync(deep.outside, 'deep');
  await shows('a file far down', () => fs.readFileSync(deep.inside, 'utf8') === 'deep');
  assert.equal(fs.existsSync(gate.path('z/c/file')), false);
  fs.renameSync(join(gate.root, 'a/b'), join(gate.root, 'z'));
  await shows('a directory under its new name', () => fs.existsSync(gate.path('z/c/file')));
  await shows('nothing under its old name', () => !fs.existsSync(deep.inside));
  fs.writeFileSync(join(gate.root, 'z/c/file'), 'deeper');
  await shows('what changes in it now', () => fs.readFileSync(gate.path('z/c/file'), 'utf8') === 'deeper');
  fs.chmodSync(join(gate.root, 'z/c'), 0o711);
  await shows("a directory's mode", () => (fs.statSync(gate.path('z/c')).mode & 0o777) === 0o711);
  fs.rmSync(join(gate.root, 'z'), { recursive: true });
  await shows('a removed tree', () => !fs.existsSync(gate.path('z')));

  const one = at(gate, 'one');
  const two = at(gate, 'two');
  fs.writeFileSync(one.outside, '1');
  await shows('one name', () => fs.statSync(one.inside).nlink === 1);
  fs.linkSync(one.outside, two.outside);
  await shows('two links', () => fs.statSync(one.inside).nlink === 2);
  fs.writeFileSync(two.outside, '22');
  await shows('a write by the other name', () => sizeOf(one.inside) === 2);
  fs.unlinkSync(one.outside);
  await shows('one link', () => fs.statSync(two.inside).nlink === 1);
});

test(
  'what the view itself makes, changes and removes is seen at once, whatever was remembered',
  options,
  async (t) => {
    const gate = await startWatched(t);
    const child = gate.path('child');
    for (let round = 0; round < 50; round++) {
      assert.equal(fs.existsSync(child), false);
      fs.writeFileSync(child, 'x'.repeat(round));
      assert.equal(sizeOf(child), round);
      fs.appendFileSync(child, 'y');
      assert.equal(sizeOf(child), round + 1);
      fs.chmodSync(child, 0o640);
      assert.equal(fs.statSync(child).mode & 0o777, 0o640);
      fs.renameSync(child, gate.path('other'));
      assert.equal(fs.existsSync(child), false);
      assert.deepEqual(fs.readdirSync(gate.mount), ['other']);
      fs.mkdirSync(child);
      fs.linkSync(gate.path('other'), join(child, 'third'));
      assert.equal(fs.statSync(gate.path('other')).nlink, 2);
      fs.unlinkSync(gate.path('other'));
      assert.equal(fs.statSync(join(child, 'third')).nlink, 1);
      fs.rmSync(child, { recursive: true });
    }
  },
);

test('another view of the same tree is another outside', options, async (t) => {
  const gate = await startWatched(t);
  const second = await gate.secondMount();
  const name = 'file';
  assert.equal(fs.existsSync(gate.path(name)), false);
  fs.writeFileSync(join(second, name), 'there');
  await shows('what another view made', () => fs.readFileSync(gate.path(name), 'utf8') === 'there');
  fs.renameSync(join(second, name), join(second, 'renamed'));
  await shows(
    'what it renamed',
    () => fs.existsSync(gate.path('renamed')) && !fs.existsSync(gate.path(name)),
  );
});

test('rules of exclusion changed outside count', options, async (t) => {
  const gate = await startWatched(t);
  fs.writeFileSync(join(gate.root, 'file.tmp'), '');
  const isLocked = async () => {
    const fd = fs.openSync(gate.path('file.tmp'), 'r+');
    const held = await gate.isHeld('file.tmp');
    fs.closeSync(fd);
    return held;
  };
  assert.equal(await isLocked(), true);
  fs.writeFileSync(join(gate.root, '.gateignore'), '*.tmp\n');
  assert.ok(await until(async () => !(await isLocked()), PATIENCE_MS), 'still locked');
  fs.unlinkSync(join(gate.root, '.gateignore'));
  assert.ok(await until(isLocked, PATIENCE_MS), 'still not locked');
});

test(
  'after more changes than the kernel keeps events of, everything shows all the same',
  options,
  async (t) => {
    const gate = await startWatched(t);
    const kept = Number(fs.readFileSync('/proc/sys/fs/fanotify/max_queued_events', 'utf8'));
    const old = at(gate, 'd/old');
    const fresh = at(gate, 'd/fresh');
    const last = at(gate, 'd/last');
    fs.mkdirSync(join(gate.root, 'd'));
    fs.writeFileSync(old.outside, 'before');
    fs.writeFileSync(last.outside, 'before');
    await shows(
      'a file',
      () => fs.readFileSync(old.inside, 'utf8') === 'before' && sizeOf(last.inside) === 6,
    );
    assert.equal(fs.existsSync(fresh.inside), false);
    const open = fs.openSync(last.inside, 'r');

    gate.mounter.kill('SIGSTOP');
    for (let i = 0; i < kept + 100; i++) {
      const name = join(gate.root, 'd', `crowd${i}`);
      fs.closeSync(fs.openSync(name, 'w'));
      fs.unlinkSync(name);
    }
    fs.unlinkSync(old.outside);
    fs.writeFileSync(fresh.outside, 'made');
    fs.appendFileSync(last.outside, ' and after');
    gate.mounter.kill('SIGCONT');

    await shows('a name whose making was lost', () => fs.readFileSync(fresh.inside, 'utf8') === 'made');
    await shows('the end of a name', () => !fs.existsSync(old.inside));
    await shows('the length of an open file', () => fs.fstatSync(open).size === 16);
    fs.closeSync(open);
    // And it goes on as before.
    fs.writeFileSync(fresh.outside, 'made again');
    await shows('what comes later', () => sizeOf(fresh.inside) === 10);
  },
);
