/** A broker that is away for long, processes that are stopped for longer than every timeout, and a state directory without room. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { delay, until } from '../../src/base/clock.ts';
import { BrokerHttp } from '../../src/client/index.ts';
import { type Actor, ended, type Gate, PATIENCE_MS, startGate } from './harness.ts';

const TTL_MS = 3000;
const SHORT = ['--session-ttl-ms', String(TTL_MS)];

async function becomes(what: string, probe: () => unknown): Promise<void> {
  assert.ok(await until(async () => Boolean(await probe()), 2 * PATIENCE_MS), `did not come: ${what}`);
}

async function killBroker(gate: Gate): Promise<void> {
  gate.broker.kill('SIGKILL');
  await becomes('the end of the broker', () => ended(gate.broker));
}

/** What an open for writing ends with. */
async function outcome(actor: Actor, path: string): Promise<string> {
  try {
    await actor.do('close', await actor.open(path, 'RDWR'));
    return 'ok';
  } catch (error) {
    return (error as Error).message;
  }
}

test('opens wait through a restart of the broker; once it is away for too long they fail closed, and recover by themselves', async (t) => {
  // Longer than a restart takes on a busy machine.
  const gate = await startGate(t, { delegation: false, brokerFlags: ['--session-ttl-ms', '8000'] });
  writeFileSync(`${gate.root}/f`, 'f');
  const [a, b] = [await gate.actor('a'), await gate.actor('b')];
  const held = await a.open('f', 'RDWR');
  const waits = b.open('f', 'RDWR');
  await gate.queued('f', 1);
  await killBroker(gate);
  await gate.startBroker();
  await a.do('close', held);
  await b.do('close', await waits);

  await killBroker(gate);
  await becomes('ENOLCK', async () => (await outcome(a, 'f')) === 'ENOLCK');
  // What needs no lock works on.
  assert.deepEqual(await b.do('readdir', '.'), ['f']);
  assert.deepEqual(((await b.do('stat', 'f')) as { size: number }).size, 1);
  await b.do('writeFile', 'unlocked.log', 'x');
  assert.equal(await outcome(b, 'f'), 'ENOLCK');
  await assert.rejects(b.do('rename', 'f', 'g'), /ENOLCK|EBUSY/);
  await gate.startBroker();
  await becomes('locks again', async () => (await outcome(a, 'f')) === 'ok');
  assert.equal(await outcome(b, 'f'), 'ok');
});

test('a broker that was stopped for longer than every timeout gives nothing twice, and everybody recovers', async (t) => {
  const gate = await startGate(t, { brokerFlags: SHORT });
  writeFileSync(`${gate.root}/f`, 'f');
  const [a, b] = [await gate.actor('a'), await gate.actor('b')];
  const held = (await a.open('f', 'RDWR')) as number;
  gate.broker.kill('SIGSTOP');
  try {
    await delay(2 * TTL_MS);
    assert.equal(await outcome(b, 'f'), 'ENOLCK');
  } finally {
    gate.broker.kill('SIGCONT');
  }
  await becomes('locks again', async () => (await outcome(b, 'f')) === 'ok');
  // Its session was over: what it writes now is in an inode of its own.
  await a.do('write', held, 'LATE').catch((error: Error) => assert.match(error.message, /ESTALE/));
  await a.do('close', held);
  assert.equal(readFileSync(`${gate.root}/f`, 'utf8'), 'f');
});

test('a holder that was stopped for longer than every timeout finds its lock gone, and its command is ended', async (t) => {
  const gate = await startGate(t, { brokerFlags: SHORT });
  const hold = gate.gate(['hold', '--json', 'f', '--', 'sleep', '60']);
  await becomes('the lock', () => gate.isHeld('f'));
  hold.child.kill('SIGSTOP');
  try {
    const next = await gate.session.acquire({ owner: 'next', volume: gate.volume, path: 'f' });
    await gate.session.release(next);
  } finally {
    hold.child.kill('SIGCONT');
  }
  const { status, err } = await hold.done;
  assert.equal(status, 1);
  assert.match(err, /the locks are lost/);
});

test('a waiter that is stopped while its turn comes has it when it goes on', async (t) => {
  const gate = await startGate(t, { brokerFlags: SHORT });
  writeFileSync(`${gate.root}/f`, 'f');
  const [a, b] = [await gate.actor('a'), await gate.actor('b')];
  const held = await a.open('f', 'RDWR');
  const waits = b.open('f', 'RDWR');
  await gate.queued('f', 1);
  b.kill('SIGSTOP');
  try {
    await a.do('close', held);
    await delay(2 * TTL_MS);
  } finally {
    b.kill('SIGCONT');
  }
  await b.do('close', await waits);
  assert.equal(await outcome(a, 'f'), 'ok');
});

/** A file system of so many MiB in memory. */
function smallDisk(t: TestContext, at: string, sizeMib: number): void {
  mkdirSync(at, { recursive: true });
  const made = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeMib}m`, 'gate-test', at]);
  assert.equal(made.status, 0, String(made.stderr));
  t.after(() => void spawnSync('umount', ['-l', at]));
}

test('without room in the state directory nothing that was acknowledged is lost, and it goes on when there is room', {
  skip: process.getuid?.() !== 0,
}, async (t) => {
  const dir = `/var/tmp/gate-full-${process.pid}`;
  smallDisk(t, dir, 8);
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const gate = await startGate(t, { brokerFlags: SHORT, stateDir: `${dir}/state` });
  const http = new BrokerHttp({ socket: gate.socket });
  const acquire = (n: number) =>
    http.post('/v1/locks/acquire', {
      path: `p${n}`,
      mode: 'write',
      owner: `o${n}`,
      lease_ms: 600_000,
      reason: 'r'.repeat(900),
      request_id: `r${n}`,
      timeout_ms: 1000,
    });
  const first = (await acquire(0)).lock as { lock_id: string };
  for (let size = 4 * 1024 * 1024, n = 0; size >= 4096; n++)
    try {
      writeFileSync(`${dir}/ballast${n}`, Buffer.alloc(size));
    } catch {
      size /= 2;
    }
  const granted = new Map<number, string>([[0, first.lock_id]]);
  // What met the full disk is answered when it is written down; what comes after it is refused.
  const unanswered: Promise<unknown>[] = [];
  let refused = '';
  for (let n = 1; n < 3000 && refused === ''; n++) {
    const asked = acquire(n).then(
      (answer) => void granted.set(n, (answer.lock as { lock_id: string }).lock_id),
      (error) => void (refused = String((error as { code?: string }).code)),
    );
    const late = Symbol();
    if ((await Promise.race([asked, delay(2000).then(() => late)])) === late) unanswered.push(asked);
    assert.ok(unanswered.length <= 1, 'only what met the full disk is left without an answer');
  }
  assert.equal(refused, 'unavailable');
  for (const name of readdirSync(dir)) if (name.startsWith('ballast')) rmSync(`${dir}/${name}`);
  await becomes('locks over HTTP', () =>
    acquire(5000).then(
      () => true,
      () => false,
    ),
  );
  assert.ok(!ended(gate.broker), 'the broker went on');
  await Promise.all(unanswered);
  for (const [n, lockId] of granted) {
    const { locks } = (await http.status(`p${n}`)) as { locks: { lock_id: string }[] };
    assert.deepEqual([locks.length, locks[0]?.lock_id], [1, lockId], `p${n}`);
  }
  const actor = await gate.actor('a');
  await becomes('locks in the view', async () => (await outcome(actor, 'p').catch(() => '')) !== 'ENOLCK');
  await actor.do('writeFile', 'f', 'x');
  assert.equal(await actor.do('readFile', 'f'), 'x');
});

test('a stopped supervisor holds up nobody, and goes on', async (t) => {
  const { makeRig } = await import('./cli-rig.ts');
  const rig = makeRig('/var/tmp');
  t.after(() => rig.close());
  const up = await rig.up('--session-ttl-ms', String(TTL_MS));
  process.kill(up.pids.supervisor, 'SIGSTOP');
  try {
    writeFileSync(`${up.mount}/a.txt`, 'two\n');
    await delay(2 * TTL_MS);
    assert.equal(readFileSync(`${up.mount}/a.txt`, 'utf8'), 'two\n');
    process.kill(up.pids.mount, 'SIGKILL');
    await delay(500);
  } finally {
    process.kill(up.pids.supervisor, 'SIGCONT');
  }
  await becomes('the view is back', () => {
    try {
      return readFileSync(`${up.mount}/a.txt`, 'utf8') === 'two\n';
    } catch {
      return false;
    }
  });
  assert.deepEqual(
    readdirSync(rig.repo).filter((name) => name !== '.gate'),
    ['a.txt'],
  );
});
