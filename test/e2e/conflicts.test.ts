/**
 * Nothing is lost: what somebody writes who lost his lock neither reaches the next holder's file nor disappears. With and
 * without passthrough, with and without delegation; views are killed and stopped, holds broken.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { linkSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { until } from '../../src/base/clock.ts';
import { type LostRecord, parseRecord } from '../../src/view/lost/record.ts';
import { cleanEnv, ended, type Gate, type GateOptions, PATIENCE_MS, settle, startGate } from './harness.ts';

const TTL_MS = 2000;
const SHORT = ['--session-ttl-ms', String(TTL_MS)];
const [major = 0, minor = 0] = release().split('.').map(Number);
const hasPassthrough = process.getuid?.() === 0 && (major > 6 || (major === 6 && minor >= 9));

/** Writes through a descriptor or a mapping, on command. */
const WRITER = `
import mmap, os, sys
path, how = sys.argv[1:3]
fd = os.open(path, os.O_RDWR)
m = mmap.mmap(fd, 4096) if how == 'mapping' else None
if m: m[0:1]
print('open', flush=True)
for line in sys.stdin:
    try:
        data = line.strip().encode()
        if m: m[0:len(data)] = data; m.flush()
        else: os.pwrite(fd, data, 0)
        print('ok', flush=True)
    except OSError as e:
        print(os.strerror(e.errno), flush=True)
`;

class Writer {
  readonly child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #wanting: ((line: string) => void)[] = [];

  constructor(t: TestContext, path: string, how: 'descriptor' | 'mapping', actor?: string) {
    const env = cleanEnv(actor === undefined ? {} : { GATE_ACTOR: actor });
    this.child = spawn('python3', ['-c', WRITER, path, how], { env, stdio: ['pipe', 'pipe', 'inherit'] });
    t.after(() => this.child.kill('SIGKILL'));
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      const want = this.#wanting.shift();
      if (want) want(line);
      else this.#lines.push(line);
    });
  }

  line(): Promise<string> {
    const line = this.#lines.shift();
    return line === undefined ? new Promise((got) => this.#wanting.push(got)) : Promise.resolve(line);
  }

  write(text: string): Promise<string> {
    this.child.stdin!.write(`${text}\n`);
    return this.line();
  }

  async end(): Promise<void> {
    this.child.stdin!.end();
    await until(() => ended(this.child), PATIENCE_MS);
  }
}

async function writer(
  t: TestContext,
  gate: Gate,
  name: string,
  how: 'descriptor' | 'mapping',
  actor?: string,
) {
  const made = new Writer(t, gate.path(name), how, actor);
  assert.equal(await made.line(), 'open');
  return made;
}

function lostDir(gate: Gate): string {
  return join(gate.root, '.gate', 'lost');
}

/** The records of what is kept, the oldest first. */
function records(gate: Gate): LostRecord[] {
  let names: string[];
  try {
    names = readdirSync(lostDir(gate));
  } catch {
    return [];
  }
  return names
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => parseRecord(name.slice(0, -5), readFileSync(join(lostDir(gate), name), 'utf8')))
    .filter((record) => record !== undefined);
}

function kept(gate: Gate, record: LostRecord): string {
  return readFileSync(join(lostDir(gate), record.id), 'utf8');
}

async function becomes(what: string, probe: () => unknown): Promise<void> {
  assert.ok(await until(async () => Boolean(await probe()), PATIENCE_MS), `did not come: ${what}`);
}

async function conflict(gate: Gate): Promise<LostRecord> {
  await becomes('a conflict copy', () => records(gate).some(({ state }) => state === 'conflict'));
  return records(gate).find(({ state }) => state === 'conflict')!;
}

async function killMount(gate: Gate): Promise<void> {
  gate.mounter.kill('SIGKILL');
  await becomes('the end of the mount', () => ended(gate.mounter));
  spawnSync('umount', ['-l', gate.mount]);
}

const CONTENT = `old${' '.repeat(4093)}`;
const start = async (t: TestContext, options: GateOptions) => {
  const gate = await startGate(t, { brokerFlags: SHORT, ...options });
  writeFileSync(join(gate.root, 'f'), CONTENT);
  return gate;
};

for (const delegation of [true, false])
  for (const how of ['descriptor', 'mapping'] as const)
    test(`a ${how} that outlives its killed view writes to an inode of its own (delegation ${delegation})`, {
      skip: !hasPassthrough,
    }, async (t) => {
      const gate = await start(t, { delegation });
      const left = await writer(t, gate, 'f', how);
      await killMount(gate);
      await gate.startMount();
      const next = await gate.actor('next');
      const file = await next.open('f', 'RDWR');
      assert.equal(await left.write('LEFT'), 'ok');
      assert.equal(await next.do('write', file, 'NEW!'), 4);
      assert.equal(await left.write('LEFT OVER'), 'ok');
      await next.do('close', file);
      assert.match(readFileSync(join(gate.root, 'f'), 'utf8'), /^NEW! {10}/);
      assert.equal(((await next.do('readFile', 'f')) as string).slice(0, 5), 'NEW! ');
      const record = await conflict(gate);
      assert.equal(record.path, 'f');
      assert.equal(record.why, 'session_lost');
      assert.match(kept(gate, record), /^LEFT OVER/);
      await left.end();
    });

test('what is kept of a writer that writes no more is removed again, and nothing is kept where nobody writes', {
  skip: !hasPassthrough,
}, async (t) => {
  const gate = await start(t, {});
  writeFileSync(join(gate.root, 'g'), 'g');
  const left = await writer(t, gate, 'f', 'descriptor');
  await killMount(gate);
  await gate.startMount();
  const next = await gate.actor('next');
  await next.do('writeFile', 'g', 'new');
  assert.deepEqual(records(gate), []);
  await next.do('writeFile', 'f', 'new');
  assert.deepEqual(
    records(gate).map(({ path, state }) => [path, state]),
    [['f', 'watched']],
  );
  assert.equal(kept(gate, records(gate)[0]!), CONTENT);
  assert.deepEqual((await next.do('readdir', '.')) as string[], ['f', 'g']);
  await left.end();
  await becomes('nothing kept', () => records(gate).length === 0);
  assert.equal(readFileSync(join(gate.root, 'f'), 'utf8'), 'new');
  await settle();
});

for (const passthrough of hasPassthrough ? [true, false] : [false])
  for (const delegation of [true, false]) {
    const mode = `passthrough ${passthrough}, delegation ${delegation}`;
    for (const how of ['descriptor', 'mapping'] as const)
      test(`a hold past its cap is broken for who waits; its ${how} writes to an inode of its own (${mode})`, async (t) => {
        const gate = await start(t, { passthrough, delegation, brokerFlags: ['--max-hold-ms', '400'] });
        const broken = await writer(t, gate, 'f', how);
        const next = await gate.actor('next');
        const file = await next.open('f', 'RDWR');
        assert.equal(await next.do('write', file, 'NEW!'), 4);
        const answer = await broken.write('LEFT');
        if (passthrough) assert.equal(answer, 'ok');
        else assert.match(answer, how === 'descriptor' ? /Stale file handle/ : /./);
        await next.do('close', file);
        assert.match(readFileSync(join(gate.root, 'f'), 'utf8'), /^NEW! {10}/);
        assert.match((await next.do('readFile', 'f')) as string, /^NEW! {10}/);
        if (passthrough) {
          const record = await conflict(gate);
          assert.equal(record.why, 'cap');
          assert.match(record.owner, /pid:/);
          assert.equal(record.by, '0/next');
          assert.match(kept(gate, record), /^LEFT {10}/);
          await becomes('an event', async () =>
            (await gate.session.history('f', gate.volume)).some(
              ({ type, owner }) => type === 'conflict_copy' && owner === record.owner,
            ),
          );
        }
        await broken.end();
        if (!passthrough) await becomes('nothing kept', () => records(gate).length === 0);
      });

    test(`gate break ends a lock by force, also one that only the view knows of (${mode})`, async (t) => {
      const gate = await start(t, { passthrough, delegation });
      const broken = await writer(t, gate, 'f', 'descriptor');
      const asked = await gate.gate(['break', gate.path('f')]).done;
      assert.equal(asked.status, 2, asked.err);
      const { status, err } = await gate.gate(['break', '--force', gate.path('f')]).done;
      assert.equal(status, 0, err);
      const next = await gate.actor('next');
      await next.do('writeFile', 'f', 'new');
      await broken.write('LEFT');
      assert.equal(readFileSync(join(gate.root, 'f'), 'utf8'), 'new');
      if (passthrough) assert.match(kept(gate, await conflict(gate)), /^LEFT/);
    });
  }

test('a broken read keeps its inode, goes on reading, and leaves nothing unclean', async (t) => {
  const gate = await start(t, { brokerFlags: ['--max-read-hold-ms', '300'] });
  const reader = await gate.actor('reader');
  const file = await reader.open('f');
  const next = await gate.actor('next');
  await next.do('writeFile', 'f', 'new');
  assert.equal(await reader.do('read', file), 'new');
  assert.deepEqual(records(gate), []);
});

for (const passthrough of hasPassthrough ? [true, false] : [false])
  test(`a view that slept through its TTL serves nothing more, and what its programs write is kept (passthrough ${passthrough})`, async (t) => {
    const gate = await start(t, { passthrough });
    const at = await gate.secondMount();
    const slept = await writer(t, gate, 'f', 'descriptor');
    // At the first write the kernel asks the view whether there are privileges to take away.
    assert.equal(await slept.write('FIRST'), 'ok');
    gate.mounter.kill('SIGSTOP');
    const next = await gate.actor('next', { cwd: at });
    let file: unknown;
    let answer: Promise<string>;
    try {
      file = await next.open('f', 'RDWR');
      assert.equal(await next.do('write', file, 'NEW!'), 4);
      answer = slept.write('LEFT');
      if (passthrough) assert.equal(await answer, 'ok');
    } finally {
      gate.mounter.kill('SIGCONT');
    }
    if (!passthrough) assert.match(await answer, /Stale file handle/);
    await next.do('close', file);
    assert.match(readFileSync(join(gate.root, 'f'), 'utf8'), /^NEW!T {10}/);
    assert.equal(records(gate).length, 1);
    if (passthrough) assert.match(kept(gate, await conflict(gate)), /^LEFT/);
  });

test('what somebody else wrote is kept when it is cut, replaced or removed; what an actor wrote itself is not', async (t) => {
  const gate = await start(t, {});
  for (const name of ['cut', 'replaced', 'removed', 'own', 'ignored.log'])
    writeFileSync(join(gate.root, name), 'before');
  const [a, b] = [await gate.actor('a'), await gate.actor('b')];
  for (const name of ['cut', 'replaced', 'removed', 'own', 'ignored.log'])
    await a.do('writeFile', name, `of a: ${name}`);
  assert.deepEqual(records(gate), []);
  await b.do('writeFile', 'cut', 'of b');
  await b.do('writeFile', 'new', 'of b');
  await b.do('rename', 'new', 'replaced');
  await b.do('unlink', 'removed');
  await b.do('unlink', 'ignored.log');
  await a.do('unlink', 'own');
  const all = records(gate);
  assert.deepEqual(
    all.map((record) => [record.path, record.state, record.why, record.owner, record.by, kept(gate, record)]),
    [
      ['cut', 'sweep', 'truncated', '0/a', '0/b', 'of a: cut'],
      ['replaced', 'sweep', 'replaced', '0/a', '0/b', 'of a: replaced'],
      ['removed', 'sweep', 'removed', '0/a', '0/b', 'of a: removed'],
    ],
  );
  const listed = JSON.parse((await gate.gate(['conflicts', 'list', '--json']).done).out);
  assert.deepEqual(
    listed.conflicts.map(({ path }: { path: string }) => path),
    ['cut', 'replaced', 'removed'].map((name) => gate.path(name)),
  );
  const shown = await gate.gate(['conflicts', 'show', '--content', all[0]!.id]).done;
  assert.equal(shown.out, 'of a: cut');
  const compared = await gate.gate(['conflicts', 'diff', all[0]!.id]).done;
  assert.match(compared.out, /^-of b$/m);
  assert.match(compared.out, /^\+of a: cut$/m);
  assert.equal((await gate.gate(['conflicts', 'restore', all[2]!.id]).done).status, 0);
  assert.equal(readFileSync(join(gate.root, 'removed'), 'utf8'), 'of a: removed');
  assert.equal((await gate.gate(['conflicts', 'restore', all[1]!.id, '--to', 'back']).done).status, 0);
  assert.equal(readFileSync(join(gate.root, 'back'), 'utf8'), 'of a: replaced');
  assert.equal((await gate.gate(['conflicts', 'prune', all[0]!.id]).done).status, 0);
  assert.deepEqual(
    records(gate).map(({ id }) => id),
    all.slice(1).map(({ id }) => id),
  );
  assert.equal((await gate.gate(['conflicts', 'prune', '--all']).done).status, 0);
  assert.deepEqual(records(gate), []);
});

test('what is written to a file after its name went to another is kept; a temporary file is not', async (t) => {
  const gate = await start(t, {});
  const held = await writer(t, gate, 'f', 'descriptor', 'one');
  const same = await gate.actor('one');
  await same.do('writeFile', 'new', 'new');
  await same.do('rename', 'new', 'f');
  assert.deepEqual(
    records(gate).map(({ path, state }) => [path, state]),
    [['f', 'watched']],
  );
  await held.write('LATE');
  await held.end();
  assert.match(kept(gate, await conflict(gate)), /^LATE/);
  assert.equal(readFileSync(join(gate.root, 'f'), 'utf8'), 'new');

  const temporary = await same.open('tmp', 'WRONLY|CREAT');
  const other = await gate.actor('one');
  await other.do('unlink', 'tmp');
  await same.do('write', temporary, 'x');
  await same.do('close', temporary);
  assert.equal(records(gate).length, 1);
});

test('where a writer cannot be kept apart whoever wants the file waits, with an event', {
  skip: !hasPassthrough,
}, async (t) => {
  const gate = await start(t, { brokerFlags: ['--max-hold-ms', '300'] });
  linkSync(join(gate.root, 'f'), join(gate.root, 'second'));
  const broken = await writer(t, gate, 'f', 'descriptor');
  const next = await gate.actor('next');
  const opened = next.open('f', 'RDWR');
  await becomes('an event', async () =>
    (await gate.session.history('f', gate.volume)).some(
      ({ type, message }) => type === 'kept_waiting' && message?.includes('several names'),
    ),
  );
  assert.equal(opened.over(), false);
  assert.deepEqual(records(gate), []);
  await broken.end();
  await next.do('close', await opened);
});

test('a full disk below keeps whoever wants the file waiting, until there is room', {
  skip: !hasPassthrough,
}, async (t) => {
  const gate = await startGate(t, { brokerFlags: SHORT, disk: 8 });
  writeFileSync(join(gate.root, 'f'), Buffer.alloc(3 * 1024 * 1024, 'o'));
  const left = await writer(t, gate, 'f', 'descriptor');
  writeFileSync(join(gate.root, 'ballast'), Buffer.alloc(2 * 1024 * 1024, 'b'));
  await killMount(gate);
  await gate.startMount();
  const next = await gate.actor('next');
  const opened = next.open('f', 'RDWR');
  // The first one may not have outlived the time in which a disk was made.
  await gate.connect();
  await becomes('an event', async () =>
    (await gate.session.history('f', gate.volume)).some(
      ({ type, message }) => type === 'kept_waiting' && message?.includes('ENOSPC'),
    ),
  );
  assert.equal(opened.over(), false);
  rmSync(join(gate.root, 'ballast'));
  const file = await opened;
  await left.write('LEFT');
  await next.do('close', file);
  assert.equal(readFileSync(join(gate.root, 'f'), 'utf8').slice(0, 4), 'oooo');
  assert.match(kept(gate, await conflict(gate)), /^LEFT/);
  await left.end();
});

test('in place, what is kept is reached beneath the view, and is not seen in it', async (t) => {
  const gate = await startGate(t, { inPlace: true });
  const [a, b] = [await gate.actor('a'), await gate.actor('b')];
  await a.do('writeFile', 'f', 'of a');
  assert.deepEqual(await a.do('readdir', '.'), ['f']);
  await b.do('writeFile', 'f', 'of b');
  assert.deepEqual(await a.do('readdir', '.'), ['f']);
  const listed = JSON.parse((await gate.gate(['conflicts', '--json']).done).out);
  assert.deepEqual(
    listed.conflicts.map(({ path, state }: { path: string; state: string }) => [path, state]),
    [[gate.path('f'), 'sweep']],
  );
  const { id } = listed.conflicts[0];
  assert.equal((await gate.gate(['conflicts', 'show', '--content', id]).done).out, 'of a');
  assert.equal((await gate.gate(['conflicts', 'restore', id]).done).status, 0);
  assert.equal(await a.do('readFile', 'f'), 'of a');
});
