/**
 * Delegation under fire: the view's lock port, the relay, the client and the broker as they are, in one process, with regions
 * going to and fro all the time. Two clients' actors take random locks; nobody may ever hold what another holds, and
 * everybody must get in at last. GATE_SEED=N repeats a run's choices (not its timing).
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { delay, systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { Api, broker, brokerProcess, eventually, tempDir } from '../../src/broker/testing/fixture.ts';
import type { Answer } from '../../src/broker/wire.ts';
import { connect, type Delegated, type GateSession } from '../../src/client/index.ts';
import type { Hold, Mode, Scope, Target } from '../../src/lock/index.ts';
import { overlaps } from '../../src/lock/index.ts';
import type { Announcer } from '../../src/mount/announce.ts';
import type { Lookout } from '../../src/mount/lookout.ts';
import { MessageLockPort } from '../../src/mount/port.ts';
import { Relay } from '../../src/mount/relay.ts';
import { DelegatedLocks } from '../../src/view/delegate.ts';

const VOLUME = 'v';

/** A view's locks without a view. */
class Delegate {
  readonly session: GateSession;
  readonly locks: DelegatedLocks;
  readonly #port: MessageLockPort;
  #authorityEndsMs = 0;
  #next = 1;

  constructor(session: GateSession) {
    this.session = session;
    let relay: Relay | undefined;
    this.#port = new MessageLockPort((message) => relay!.handle(message));
    const clock = { nowMs: systemClock.nowMs, after: systemClock.after };
    this.locks = new DelegatedLocks(this.#port, clock, () => performance.now() < this.#authorityEndsMs);
    const announcer = { asked() {}, queued() {}, ended() {} } as unknown as Announcer;
    const lookout = announcer as unknown as Lookout;
    relay = new Relay(
      session,
      VOLUME,
      (message) => {
        switch (message.t) {
          case 'granted':
          case 'queued':
          case 'refused':
            return this.#port.answered(message);
          case 'authority':
            this.#authorityEndsMs = performance.now() + session.ttlMs;
            return;
          case 'delegated':
            return this.locks.begin(message.delegation);
          case 'recall':
            return this.locks.recall(message.epoch, message.region);
          case 'give':
            return this.locks.give(message);
          case 'report':
            return this.locks.report(message.report, message.region);
        }
      },
      announcer,
      lookout,
      silentLog,
      systemClock,
      true,
    );
  }

  acquire(owner: string, targets: readonly Target[], waitMs: number | null = null): Promise<string> {
    const requestId = `r${this.#next++}`;
    return new Promise((resolve, reject) =>
      this.locks.acquire(
        { requestId, owner, kind: 'handle', targets, waitMs, who: {}, tid: 0 },
        { granted: resolve, refused: (code) => reject(new Error(code)) },
      ),
    );
  }

  /** Without a wait; null when it cannot be decided here. */
  now(owner: string, path: string): { lockId: string; token: number } | null {
    const targets: Target[] = [{ path, mode: 'write', scope: 'file' }];
    const requestId = `r${this.#next++}`;
    return this.locks.tryNow({ requestId, owner, kind: 'handle', targets, waitMs: 0, who: {}, tid: 0 });
  }

  async write(owner: string, path: string): Promise<string> {
    return this.acquire(owner, [{ path, mode: 'write', scope: 'file' }]);
  }
}

/** Notes a name when a promise is kept, and passes its value on. */
function note(names: string[], name: string): <T>(value: T) => T {
  return (value) => {
    names.push(name);
    return value;
  };
}

async function setUp(t: TestContext, quietMs = 60_000) {
  const running = await broker(t, { delegationQuietMs: quietMs });
  const [mine, other] = await Promise.all(
    ['mount', 'other'].map((kind) => connect({ socket: running.socketPath, kind })),
  );
  t.after(() => Promise.all([mine!.close(), other!.close()]));
  const delegate = new Delegate(mine!);
  await eventually('the delegation', () => delegate.locks.active);
  return { running, delegate, other: other!, api: new Api({ url: running.url }) };
}

test('what is delegated is granted at once, and the broker can tell who holds it', async (t) => {
  const { delegate, other } = await setUp(t);
  const before = (await other.history('f', VOLUME)).length;
  const { lockId } = delegate.now('a', 'f')!;
  const { holds } = await other.status('f', VOLUME);
  assert.deepEqual(
    holds.map((hold) => [hold.owner, hold.lockId]),
    [['a', lockId]],
  );
  delegate.locks.release(lockId, 'a');
  await eventually('the history', async () => (await other.history('f', VOLUME)).length >= before + 2);
});

test('somebody else waits for what a delegate granted, in order with those who come through the delegate', async (t) => {
  const { delegate, other, api } = await setUp(t);
  const first = await delegate.write('w1', 'f');
  const order: string[] = [];
  const get = { volume: VOLUME, path: 'f' };
  const w2 = other.acquire({ ...get, owner: 'w2', mode: 'write' }).then(note(order, 'w2'));
  await eventually('w2 waits', async () => (await other.status('f', VOLUME)).queue.length === 1);
  const r3 = delegate.acquire('r3', [{ path: 'f', mode: 'read', scope: 'file' }]).then(note(order, 'r3'));
  await eventually('r3 waits', async () => (await other.status('f', VOLUME)).queue.length === 2);
  const w4 = api
    .acquire('w4', 'write', 'f', { volume: VOLUME })
    .then((answer) => answer.json.lock)
    .then(note(order, 'w4'));
  await eventually('w4 waits', async () => (await other.status('f', VOLUME)).queue.length === 3);
  delegate.locks.release(first, 'w1');
  await other.release(await w2);
  delegate.locks.release(await r3, 'r3');
  await api.release(await w4);
  assert.deepEqual(order, ['w2', 'r3', 'w4']);
});

test('who waits is told of those in the way, not of the delegate', async (t) => {
  const { delegate, other } = await setUp(t);
  const held = await delegate.write('a', 'f');
  const told: (readonly string[])[] = [];
  const get = { volume: VOLUME, path: 'f', owner: 'b' };
  const got = other.acquire(get, { onQueued: ({ blockers }) => told.push([...blockers]) });
  await eventually('b is told', () => told.length > 0);
  assert.deepEqual(told, [['a']]);
  delegate.locks.release(held, 'a');
  await other.release(await got);
  // What is free there is had without a word.
  await other.release(
    await other.acquire({ ...get, path: 'free' }, { onQueued: ({ blockers }) => told.push([...blockers]) }),
  );
  assert.equal(told.length, 1);
});

test('a try of somebody else is granted when the delegate has it free, and refused when not', async (t) => {
  const { delegate, other, api } = await setUp(t);
  await delegate.write('a', 'busy');
  const free = await other.acquire({ volume: VOLUME, path: 'free', owner: 'b', waitMs: 0 });
  await other.release(free);
  await assert.rejects(other.acquire({ volume: VOLUME, path: 'busy', owner: 'b', waitMs: 0 }), {
    code: 'timeout',
  });
  assert.equal((await api.acquire('c', 'write', 'busy', { volume: VOLUME, timeout_ms: 0 })).status, 408);
  assert.equal((await api.acquire('c', 'write', 'free2', { volume: VOLUME, timeout_ms: 0 })).status, 200);
});

test('a quiet path is given back, and decided by the delegate again', async (t) => {
  const { delegate, other } = await setUp(t, 100);
  await other.release(await other.acquire({ volume: VOLUME, path: 'f', owner: 'b' }));
  const local = () => delegate.now('a', 'f');
  assert.equal(local(), null, 'it is out');
  let got: ReturnType<typeof local> = null;
  await eventually('it is given back', () => (got = local()) !== null);
  delegate.locks.release(got!.lockId, 'a');
});

test('what is given back is granted with tokens above those that the broker granted meanwhile', async (t) => {
  const { delegate, other } = await setUp(t, 100);
  const hold = await other.acquire({ volume: VOLUME, path: 'f', owner: 'b' });
  await other.release(hold);
  let got: { lockId: string; token: number } | null = null;
  await eventually('it is given back', () => (got = delegate.now('a', 'f')) !== null);
  assert.ok(got!.token > hold.token, `${got!.token} after ${hold.token}`);
});

test('a waiting request that is retargeted into the delegated volume waits for what the delegate granted there', async (t) => {
  const { delegate, other } = await setUp(t);
  const held = await delegate.write('a', 'f');
  const first = await other.acquire({ volume: VOLUME, path: 'e', owner: 'b' });
  let got = false;
  const requestId = other.newRequestId();
  const second = other.acquire({ volume: VOLUME, path: 'e', owner: 'c', requestId }).then((hold) => {
    got = true;
    return hold;
  });
  await eventually('c waits', async () => (await other.status('e', VOLUME)).queue.length === 1);
  await other.retarget(requestId, [{ path: 'f', mode: 'write', scope: 'file' }]);
  await eventually('c waits for f', async () => (await other.status('f', VOLUME)).queue.length === 1);
  await delay(50);
  assert.equal(got, false);
  delegate.locks.release(held, 'a');
  await other.release(await second);
  await other.release(first);
});

test('the delegate dies: what it held is free after the TTL, not before', async (t) => {
  const running = await broker(t, { sessionTtlMs: 600 });
  const mine = await connect({ socket: running.socketPath, kind: 'mount' });
  const other = await connect({ socket: running.socketPath, kind: 'other' });
  t.after(() => Promise.all([mine.close(), other.close()]));
  const delegate = new Delegate(mine);
  await eventually('the delegation', () => delegate.locks.active);
  await delegate.write('a', 'f');
  // Deaf to recalls: the session is renewed, but the delegate does not answer.
  mine.onPush = undefined;
  const start = performance.now();
  const hold = await other.acquire({ volume: VOLUME, path: 'f', owner: 'b' });
  assert.ok(performance.now() - start > 500, 'the TTL was waited for');
  await other.release(hold);
  await eventually('its session is over', () => mine.ended);
});

test('kill -9 of the broker: delegated holds, recalls under way and the queue survive', async (t) => {
  const stateDir = tempDir(t);
  const socket = join(stateDir, 'broker.sock');
  let process = await brokerProcess(t, { stateDir });
  const mine = await connect({ socket, kind: 'mount' });
  const other = await connect({ socket, kind: 'other' });
  t.after(() => Promise.all([mine.close(), other.close()]));
  const delegate = new Delegate(mine);
  await eventually('the delegation', () => delegate.locks.active);
  const held = await delegate.write('a', 'f');
  const recalled = await delegate.write('a', 'g');
  const got: string[] = [];
  const g = other.acquire({ volume: VOLUME, path: 'g', owner: 'b' }).then(note(got, 'g'));
  await eventually('b waits', async () => (await other.status('g', VOLUME)).queue.length === 1);
  await process.kill();
  const stillOurs = delegate.acquire('a2', [{ path: 'other', mode: 'write', scope: 'file' }]);
  assert.ok(
    await Promise.race([stillOurs, delay(1000).then(() => '')]),
    'the delegate goes on without the broker',
  );
  process = await brokerProcess(t, { stateDir });
  const f = other.acquire({ volume: VOLUME, path: 'f', owner: 'b' }).then(note(got, 'f'));
  await eventually('b waits for f', async () => (await other.status('f', VOLUME)).queue.length === 1);
  assert.equal((await other.status('g', VOLUME)).queue.length, 1);
  await delay(100);
  assert.deepEqual(got, []);
  delegate.locks.release(recalled, 'a');
  await g;
  delegate.locks.release(held, 'a');
  await f;
});

test('a delegation whose answer was lost is asked for again; another session does not get it', async (t) => {
  const { delegate, other } = await setUp(t);
  const ask = (session: GateSession) =>
    new Promise<Answer>((resolve) =>
      session.send({ op: 'delegate', volume: 'w' }, (answer) => resolve(answer!)),
    );
  const held = await other.acquire({ volume: 'w', path: 'f', owner: 'b' });
  const first = (await ask(delegate.session)) as { ok: Delegated };
  const again = (await ask(delegate.session)) as { ok: Delegated };
  assert.equal(again.ok.epoch, first.ok.epoch);
  assert.ok(again.ok.tokens.from >= first.ok.tokens.to);
  assert.deepEqual(again.ok.out, [{ path: 'f', scope: 'file' }]);
  const conflict = (await ask(other)) as { error: { code: string } };
  assert.equal(conflict.error.code, 'conflict');
  await other.release(held);
});

/** A generator of numbers below 1 from a seed (mulberry32). */
function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

const PATHS = ['a', 'b', 'd/x', 'd/y', 'd/e/z', 'd', ''];

test('random locks of two clients, regions to and fro: never two who may not, and all get in', async (t) => {
  const seed = Number(process.env.GATE_SEED ?? Date.now() % 1e9);
  t.diagnostic(`GATE_SEED=${seed}`);
  const { delegate, other, running } = await setUp(t, 60);
  const random = chance(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
  const live = new Map<string, { owner: string; targets: readonly Target[] }>();
  let granted = 0;
  const enter = (lockId: string, owner: string, targets: readonly Target[]) => {
    granted++;
    for (const [otherId, held] of live) {
      if (held.owner === owner) continue;
      for (const a of targets)
        for (const b of held.targets)
          assert.ok(
            !overlaps(a, b) || (a.mode === 'read' && b.mode === 'read'),
            `${lockId} of ${owner} ${JSON.stringify(a)} beside ${otherId} of ${held.owner} ${JSON.stringify(b)}; GATE_SEED=${seed}`,
          );
    }
    live.set(`${lockId} ${granted}`, { owner, targets });
    return `${lockId} ${granted}`;
  };
  const choose = (): Target[] => {
    const path = pick(PATHS);
    const scope: Scope = path === 'd' || path === '' ? 'tree' : 'file';
    const mode: Mode = pick(['read', 'read', 'write']);
    const targets: Target[] = [
      { path: path === '' && random() < 0.8 ? 'a' : path, mode, scope: path === '' ? 'file' : scope },
    ];
    if (random() < 0.2) targets.push({ path: 'm', mode, scope: 'file' });
    return targets;
  };
  const actor = async (name: string, rounds: number) => {
    for (let i = 0; i < rounds; i++) {
      const targets = choose();
      const waitMs = pick([null, null, null, 0, 20]);
      const pauseMs = random() < 0.3 ? random() * 30 : 0;
      try {
        if (name.startsWith('v')) {
          const lockId = await delegate.acquire(name, targets, waitMs);
          const key = enter(lockId, name, targets);
          if (pauseMs > 0) await delay(pauseMs);
          live.delete(key);
          delegate.locks.release(lockId, name);
        } else {
          const hold: Hold = await other.acquire({
            volume: VOLUME,
            owner: name,
            targets,
            waitMs,
            kind: 'handle',
          });
          const key = enter(hold.lockId, name, targets);
          if (pauseMs > 0) await delay(pauseMs);
          live.delete(key);
          await other.release(hold);
          await delay(random() * 20);
        }
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        if (!/timeout/.test(`${(error as { code?: string }).code} ${(error as Error).message}`)) throw error;
      }
    }
  };
  await Promise.all([
    ...['v1', 'v2', 'v3', 'v4'].map((name) => actor(name, 250)),
    ...['o1', 'o2', 'o3'].map((name) => actor(name, 100)),
  ]);
  assert.equal(live.size, 0);
  const { holds, queue } = await other.status('', VOLUME, true);
  assert.deepEqual([holds.length, queue.length], [0, 0]);
  assert.ok(granted > 400, `${granted} were granted`);
  assert.equal(running.pid, process.pid);
});
