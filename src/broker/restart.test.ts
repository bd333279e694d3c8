/** What was acknowledged survives the death of the broker at any instant. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock as realClock } from '../base/clock.ts';
import { connect, type GateSession } from '../client/index.ts';
import { MemoryDisk, MemoryStore } from '../store/index.ts';
import { Api, broker, brokerProcess, eventually, tempDir } from './testing/fixture.ts';

test('kill -9 in the middle of load: nothing acknowledged is lost, tokens grow', async (t) => {
  const stateDir = tempDir(t);
  const socket = join(stateDir, 'broker.sock');
  let current = await brokerProcess(t, { stateDir });
  const gate = await connect({ socket, kind: 'load' });
  t.after(() => gate.close());
  const held = new Set<string>();
  const tokens = new Set<number>();
  let stop = false;
  const load = async (owner: string) => {
    for (let n = 0; !stop; n++) {
      const hold = await gate.acquire({ owner, path: `${owner}/${n}` });
      assert.ok(!tokens.has(hold.token), `the token ${hold.token} came twice`);
      tokens.add(hold.token);
      held.add(hold.lockId);
      if (n % 3 === 0) continue;
      held.delete(hold.lockId);
      assert.equal((await gate.release(hold)).gone, true);
    }
  };
  const lost: string[] = [];
  gate.onHoldLost = (lockId) => lost.push(lockId);
  const loads = Promise.all(Array.from({ length: 50 }, (_, i) => load(`o${i}`)));
  for (let round = 0; round < 3; round++) {
    const before = tokens.size;
    const greatest = Math.max(0, ...tokens);
    await eventually('some load', () => tokens.size > before + 500);
    await current.kill();
    const killedAt = tokens.size;
    current = await brokerProcess(t, { stateDir });
    await eventually('the load goes on', () => tokens.size > killedAt + 100);
    assert.equal(gate.ended, false);
    assert.ok(Math.max(...tokens) > greatest);
  }
  stop = true;
  await loads;
  const there = new Set((await gate.status('', 'default', true)).holds.map((hold) => hold.lockId));
  assert.deepEqual(lost, []);
  assert.equal(there.size, held.size);
  for (const lockId of held) assert.ok(there.has(lockId), `${lockId} was acknowledged`);
});

test('the order of the queue survives, and so does a lock that nobody renews meanwhile', async (t) => {
  const stateDir = tempDir(t);
  const socket = join(stateDir, 'broker.sock');
  let current = await brokerProcess(t, { stateDir });
  const sessions: GateSession[] = [];
  for (let i = 0; i < 4; i++) sessions.push(await connect({ socket, kind: `s${i}` }));
  t.after(() => Promise.all(sessions.map((session) => session.close())));
  const first = await sessions[0]!.acquire({ owner: 'o0', path: 'f' });
  const order: string[] = [];
  const waits = [1, 2, 3].map(async (i) => {
    const hold = await sessions[i]!.acquire(
      { owner: `o${i}`, path: 'f' },
      { onQueued: () => order.push(`queued${i}`) },
    );
    order.push(`granted${i}`);
    return hold;
  });
  const api = new Api({ socketPath: socket });
  await api.queued(3);
  const before = (await api.status()).queue.map((entry) => entry.ticket);
  await current.kill();
  current = await brokerProcess(t, { stateDir });
  await eventually('all are back', () => sessions.every((session) => session.connected));
  assert.deepEqual(
    (await api.status()).queue.map((entry) => entry.ticket),
    before,
  );
  assert.deepEqual(
    (await api.status()).queue.map((entry) => entry.owner),
    ['o1', 'o2', 'o3'],
  );
  await sessions[0]!.release(first);
  let token = first.token;
  for (const [i, wait] of waits.entries()) {
    const hold = await wait;
    assert.ok(hold.token > token);
    token = hold.token;
    await sessions[i + 1]!.release(hold);
  }
  assert.deepEqual(
    order.filter((one) => one.startsWith('granted')),
    ['granted1', 'granted2', 'granted3'],
  );
});

test('after a restart sessions have one TTL to come back; then the rest is dropped', async (t) => {
  const stateDir = tempDir(t);
  const store = new MemoryDisk();
  const options = { stateDir, sessionTtlMs: 400, store: new MemoryStore(store) };
  const first = await broker(t, options);
  const away = await connect({ socket: first.socketPath, kind: 'away', bootMs: () => 0 });
  await away.acquire({ owner: 'away', path: 'f' });
  const api = new Api({ socketPath: first.socketPath });
  const waiting = api.acquire('dies', 'write');
  await api.queued(1);
  await first.close();
  await assert.rejects(waiting);
  // It does not find the second broker, whose socket is elsewhere.
  const second = await broker(t, {
    ...options,
    store: new MemoryStore(store),
    socketPath: join(stateDir, 'other.sock'),
  });
  const there = new Api({ socketPath: second.socketPath });
  const status = await there.status();
  assert.equal(status.queue.length, 0, 'HTTP waiters die with the broker');
  assert.equal(status.locks[0].owner, 'away', 'during the grace it still holds');
  assert.equal((await there.acquire('bob', 'write', 'f', { timeout_ms: 0 })).status, 408);
  const lock = await there.lock('bob', 'write', 'f', { volume: 'default' });
  assert.equal(lock.owner, 'bob', 'after the grace it is free');
  await away.close();
});

test('an acquire that joined a lock and is repeated after a restart is counted once', async (t) => {
  const stateDir = tempDir(t);
  const disk = new MemoryDisk();
  const first = await broker(t, { stateDir, store: new MemoryStore(disk) });
  await new Api(first).lock('ann', 'write', 'f', { request_id: 'one' });
  const joined = await new Api(first).lock('ann', 'read', 'f', { request_id: 'two' });
  assert.equal(joined.hold_count, 2);
  await first.close();
  const second = await broker(t, { stateDir, store: new MemoryStore(disk) });
  const again = await new Api(second).lock('ann', 'read', 'f', { request_id: 'two' });
  assert.deepEqual([again.lock_id, again.hold_count], [joined.lock_id, 2]);
});

test('an HTTP lease that ran out while no broker ran gets the grace', async (t) => {
  const stateDir = tempDir(t);
  const disk = new MemoryDisk();
  let wallMs = Date.now();
  const clock = () => ({ ...realClock, wallMs: () => wallMs });
  const first = await broker(t, { stateDir, store: new MemoryStore(disk), clock: clock() });
  const lock = await new Api(first).lock('ann', 'write', 'f', { lease_ms: 20_000 });
  await first.close();
  wallMs += 3_600_000;
  const second = await broker(t, { stateDir, store: new MemoryStore(disk), clock: clock() });
  const api = new Api(second);
  assert.equal((await api.acquire('bob', 'write', 'f', { timeout_ms: 0 })).status, 408);
  const beat = await api.post('/v1/locks/heartbeat', { lock_id: lock.lock_id, owner: 'ann' });
  assert.equal(beat.status, 200);
});

test('a broker that slept renews everybody before it looks who is late', async (t) => {
  let aheadMs = 0;
  const clock = {
    ...realClock,
    nowMs: () => performance.now() + aheadMs,
    wallMs: () => Date.now() + aheadMs,
  };
  const running = await broker(t, { clock });
  const api = new Api(running);
  const lock = await api.lock('ann', 'write', 'f', { lease_ms: 30_000 });
  const gate = await connect({ socket: running.socketPath, kind: 'test' });
  await gate.acquire({ owner: 'me', path: 'g' });
  aheadMs += 20_000;
  await gate.waits();
  assert.equal(gate.ended, false);
  const { events } = (await api.get('/v1/history')).json;
  assert.ok(events.some((event: { type: string }) => event.type === 'broker_slept'));
  assert.equal((await gate.status('g')).holds.length, 1);
  const [{ lease_expires_at, acquired_at }] = (await api.status('f')).locks;
  assert.ok(lease_expires_at - acquired_at > 45, 'the lease runs anew');
  await api.release(lock);
  await gate.close();
});

test('a store that fails stops the broker; nothing is said that is not stored', async (t) => {
  const store = new MemoryStore();
  const running = await broker(t, { store });
  const api = new Api(running);
  await api.lock('ann', 'write', 'f');
  store.commit = () => {
    throw new Error('disk full');
  };
  await assert.rejects(Promise.resolve(api.acquire('bob', 'write', 'g')), /without an answer/);
  assert.match(String(await running.stopped), /disk full/);
});
