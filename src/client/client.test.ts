/** The client against a broker: what a user of the SDK may rely on. */
import assert from 'node:assert/strict';
import { connect as connectNet, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Api, broker, eventually, tempDir } from '../broker/testing/fixture.ts';
import type { GateEvent, Push } from '../broker/wire.ts';
import { BrokerHttp, connect, discover, stateDirs } from './index.ts';

/** A socket between client and broker that can be cut, and that can stop passing anything on. */
async function proxy(t: TestContext, target: string) {
  const path = join(tempDir(t), 'proxy.sock');
  const pairs = new Set<Socket>();
  let refusing = false;
  let deaf = false;
  let mute = false;
  const server = createServer((near) => {
    if (refusing) return void near.destroy();
    const far = connectNet(target);
    for (const one of [near, far]) {
      pairs.add(one);
      one.on('error', () => {});
      one.on('close', () => pairs.delete(one));
    }
    near.on('data', (data) => deaf || far.write(data));
    far.on('data', (data) => deaf || mute || near.write(data));
    near.on('close', () => far.destroy());
    far.on('close', () => near.destroy());
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const cut = () => {
    for (const one of pairs) one.destroy();
  };
  t.after(() => {
    cut();
    server.close();
  });
  return {
    path,
    cut,
    refuse: (yes: boolean) => (refusing = yes),
    /** Swallows everything, in both directions, of connections there are and come. */
    deafen: (yes: boolean) => (deaf = yes),
    /** Swallows what the broker says. */
    mute: (yes: boolean) => (mute = yes),
  };
}

test('a lock around a piece of work', async (t) => {
  const { socketPath } = await broker(t);
  const gate = await connect({ socket: socketPath, kind: 'test' });
  const other = await connect({ socket: socketPath, kind: 'test' });
  const steps: string[] = [];
  let waiting: Promise<unknown> | undefined;
  await gate.withLock({ owner: 'ann', path: 'f' }, async (hold) => {
    assert.equal(hold.owner, 'ann');
    assert.equal(hold.session, gate.id);
    assert.deepEqual(hold.targets, [{ path: 'f', mode: 'write', scope: 'file' }]);
    waiting = other.withLock({ owner: 'bob', path: 'f' }, () => steps.push('bob'));
    await eventually('bob waits', async () => (await gate.waits()).length === 1);
    steps.push('ann');
  });
  await waiting;
  assert.deepEqual(steps, ['ann', 'bob']);
  await assert.rejects(
    gate.withLock({ owner: 'ann', path: 'f' }, () => {
      throw new Error('my own');
    }),
    /my own/,
  );
  assert.equal((await gate.status('f')).holds.length, 0);
  await Promise.all([gate.close(), other.close()]);
  assert.equal(gate.ended, true);
  await assert.rejects(gate.acquire({ owner: 'ann', path: 'f' }), { code: 'session_lost' });
});

test('refusals carry the code of the registry', async (t) => {
  const { socketPath } = await broker(t);
  const gate = await connect({ socket: socketPath, kind: 'test' });
  t.after(() => gate.close());
  const a = await gate.acquire({ owner: 'ann', path: 'a' });
  const b = await gate.acquire({ owner: 'bob', path: 'b' });
  await assert.rejects(gate.acquire({ owner: 'bob', path: 'a', waitMs: 0 }), { code: 'timeout' });
  await assert.rejects(gate.acquire({ owner: 'bob', path: 'a', waitMs: 20 }), {
    code: 'timeout',
    message: /ann/,
  });
  const waiting = gate.acquire({ owner: 'ann', path: 'b' });
  await assert.rejects(gate.acquire({ owner: 'bob', path: 'a' }), { code: 'deadlock' });
  await assert.rejects(gate.acquire({ owner: 'bob', path: '../a' }), { code: 'invalid_request' });
  await assert.rejects(gate.release({ lockId: a.lockId, owner: 'bob' }), { code: 'owner_mismatch' });
  await gate.release(b);
  await waiting;
  await assert.rejects(gate.release(b), { code: 'not_found' });
});

test('giving up leaves the queue, and gives back a grant that was on its way', async (t) => {
  const { socketPath } = await broker(t);
  const gate = await connect({ socket: socketPath, kind: 'test' });
  t.after(() => gate.close());
  const held = await gate.acquire({ owner: 'ann', path: 'f' });
  const giveUp = new AbortController();
  let queued: Push | undefined;
  const waiting = gate.acquire(
    { owner: 'bob', path: 'f' },
    { signal: giveUp.signal, onQueued: (push) => (queued = push) },
  );
  await eventually('it is told that it waits', () => queued);
  giveUp.abort();
  await assert.rejects(waiting, { code: 'cancelled' });
  assert.equal((await gate.waits()).length, 0);
  // Granted at once, and given up before the answer came.
  const hasty = new AbortController();
  const granted = gate.acquire({ owner: 'bob', path: 'g' }, { signal: hasty.signal });
  hasty.abort();
  await assert.rejects(granted, { code: 'cancelled' });
  assert.equal((await gate.status('g')).holds.length, 0);
  await assert.rejects(gate.acquire({ owner: 'x', path: 'y' }, { signal: AbortSignal.abort() }), {
    code: 'cancelled',
  });
  await gate.release(held);
});

test('a cut connection is taken up again: requests go on, nothing is done twice', async (t) => {
  const { socketPath } = await broker(t);
  const way = await proxy(t, socketPath);
  const gate = await connect({ socket: way.path, kind: 'test' });
  const watcher = await connect({ socket: socketPath, kind: 'test' });
  t.after(() => Promise.all([gate.close(), watcher.close()]));
  const lost: string[] = [];
  gate.onHoldLost = (lockId) => lost.push(lockId);
  const connection: boolean[] = [];
  gate.onConnection = (yes) => connection.push(yes);

  const twice = await gate.acquire({ owner: 'ann', path: 'f' });
  await gate.acquire({ owner: 'ann', path: 'f' });
  const blocker = await watcher.acquire({ owner: 'bob', path: 'g' });
  const waiting = gate.acquire({ owner: 'ann', path: 'g' });
  await eventually('it waits', async () => (await watcher.waits()).length === 1);
  const [before] = await watcher.waits();

  // The release arrives, its answer does not.
  const events: GateEvent[] = [];
  watcher.subscribe((event) => events.push(event));
  await watcher.waits();
  way.refuse(true);
  const released = gate.release(twice);
  await eventually('the release was done', () => events.some((event) => event.type === 'released'));
  way.cut();
  await eventually('it noticed', () => !gate.connected);
  way.refuse(false);
  const offline = gate.acquire({ owner: 'ann', path: 'h' });
  await released;
  await offline;
  const [hold] = (await watcher.status('f')).holds;
  assert.equal(hold!.count, 1, 'one of two was given back, once');
  assert.equal((await watcher.waits())[0]!.ticket, before!.ticket, 'it kept its place');
  await watcher.release(blocker);
  assert.equal((await waiting).owner, 'ann');
  assert.deepEqual(lost, []);
  assert.deepEqual(connection, [false, true]);
});

test('a hold that was broken while the connection was away is told of', async (t) => {
  const { socketPath } = await broker(t);
  const way = await proxy(t, socketPath);
  const gate = await connect({ socket: way.path, kind: 'test' });
  t.after(() => gate.close());
  const hold = await gate.acquire({ owner: 'ann', path: 'f' });
  const kept = await gate.acquire({ owner: 'ann', path: 'g' });
  const lost: string[] = [];
  gate.onHoldLost = (lockId) => lost.push(lockId);
  way.refuse(true);
  way.cut();
  await eventually('it noticed', () => !gate.connected);
  await new BrokerHttp({ socket: socketPath }).break(hold.lockId);
  way.refuse(false);
  await eventually('it is told', () => lost.length > 0);
  assert.deepEqual(lost, [hold.lockId]);
  await gate.release(kept);
});

test('a release whose answer was lost gives back one count, not the lock', async (t) => {
  const { socketPath } = await broker(t);
  const way = await proxy(t, socketPath);
  const watcher = await connect({ socket: socketPath, kind: 'watcher' });
  const gate = await connect({ socket: way.path, kind: 'test' });
  t.after(() => Promise.all([gate.close(), watcher.close()]));
  const lost: string[] = [];
  gate.onHoldLost = (lockId) => lost.push(lockId);
  const hold = await gate.acquire({ owner: 'ann', path: 'f' });
  assert.equal((await gate.acquire({ owner: 'ann', path: 'f' })).lockId, hold.lockId);
  way.mute(true);
  const first = gate.release(hold);
  const count = async () => (await watcher.status('f')).holds[0]?.count;
  await eventually('the broker did it', async () => (await count()) === 1);
  way.mute(false);
  way.cut();
  assert.equal((await first).gone, false);
  // What was reasserted is decided when this is answered.
  await gate.status('f');
  assert.equal(await count(), 1, 'the other count is still held');
  assert.equal((await gate.release(hold)).gone, true);
  assert.deepEqual(lost, []);
});

test('authority ends one TTL after the last answered renewal was sent, whatever the connection does', async (t) => {
  const { socketPath } = await broker(t, { sessionTtlMs: 300 });
  const way = await proxy(t, socketPath);
  const gate = await connect({ socket: way.path, kind: 'test' });
  await gate.acquire({ owner: 'ann', path: 'f' });
  const ends = gate.authorityEndsMs();
  await eventually('it renews', () => gate.authorityEndsMs() > ends);
  const waiting = assert.rejects(gate.acquire({ owner: 'bob', path: 'f' }), { code: 'session_lost' });
  let why: string | undefined;
  gate.onLost = (text) => (why = text);
  way.deafen(true);
  const api = new Api({ socketPath });
  const lock = await api.lock('eve', 'write', 'f');
  assert.ok(why, 'the holder knew before anybody else got it');
  assert.match(why, /300 ms/);
  await waiting;
  await api.release(lock);
});

test('waking from suspend the client trusts nothing that came meanwhile', async (t) => {
  const { socketPath } = await broker(t);
  let sleptMs = 0;
  const gate = await connect({ socket: socketPath, kind: 'test', bootMs: () => performance.now() + sleptMs });
  const lost = new Promise((resolve) => (gate.onLost = resolve));
  const asked = gate.acquire({ owner: 'ann', path: 'f' });
  sleptMs = 60_000;
  await assert.rejects(asked, { code: 'session_lost' });
  await lost;
  assert.equal(gate.ended, true);
});

test('a broker that is not there is unavailable; a wrong token is unauthorized', async (t) => {
  const dir = tempDir(t);
  const nobody = { socket: join(dir, 'nobody.sock'), kind: 'test', connectMs: 50 };
  await assert.rejects(connect(nobody), { code: 'unavailable', message: /nobody\.sock/ });
  const running = await broker(t, { stateDir: dir, auth: 'token' });
  await assert.rejects(connect({ url: running.url, token: 'wrong', kind: 'test' }), { code: 'unauthorized' });
  await assert.rejects(connect({ url: running.url, kind: 'test' }), { code: 'unauthorized' });
  for (const options of [{ url: running.url, stateDir: dir }, { stateDir: dir }]) {
    const gate = await connect({ ...options, kind: 'test' });
    await gate.close();
  }
  await assert.rejects(connect({ kind: 'test' }), { code: 'invalid_request' });
});

test('events and history, by session and by HTTP', async (t) => {
  const { socketPath } = await broker(t);
  const gate = await connect({ socket: socketPath, kind: 'test' });
  t.after(() => gate.close());
  const http = new BrokerHttp({ socket: socketPath });
  const bySession: string[] = [];
  const byHttp: string[] = [];
  const stop = new AbortController();
  const reading = (async () => {
    for await (const event of http.events({ signal: stop.signal })) byHttp.push(event.type);
  })();
  const unsubscribe = gate.subscribe((event) => bySession.push(event.type));
  await eventually('both listen', async () => {
    await gate.registerVolume({ root: `/r${performance.now()}`, dev: '1', ino: '1' });
    return byHttp.length > 0 && bySession.length > 0;
  });
  await gate.release(await gate.acquire({ owner: 'ann', path: 'f\udce9' }));
  await eventually('both heard', () => byHttp.includes('released') && bySession.includes('released'));
  unsubscribe();
  stop.abort();
  await reading;
  const [released] = await gate.history('f\udce9');
  assert.equal(released!.type, 'released');
  assert.equal(released!.path, 'f\udce9', 'bytes that are not UTF-8 come through');
  assert.equal((await http.history({ limit: 1 })).length, 1);
  assert.equal((await http.info()).sessions.length, 1);
  assert.equal((await http.volumes())[0]!.ino, '1');
  assert.deepEqual(await http.waits(), []);
  await assert.rejects(http.status('../x'), { code: 'invalid_request' });
});

test('the low form answers tens of thousands in order', async (t) => {
  const { socketPath } = await broker(t);
  const gate = await connect({ socket: socketPath, kind: 'test' });
  t.after(() => gate.close());
  let next = 0;
  await new Promise<void>((resolve) => {
    for (let i = 0; i < 20_000; i++)
      gate.send(
        {
          op: 'acquire',
          requestId: gate.newRequestId(),
          owner: 'view',
          volume: 'v',
          kind: 'handle',
          targets: [{ path: `p${i}`, mode: 'read', scope: 'file' }],
        },
        (answer) => {
          assert.ok(answer && 'ok' in answer);
          assert.equal(next++, i);
          if (next === 20_000) resolve();
        },
      );
  });
});

test('the broker is found where one lives', async (t) => {
  const home = tempDir(t);
  const env = { GATE_STATE_DIR: join(home, 'mine') };
  assert.deepEqual(stateDirs(env, home), [env.GATE_STATE_DIR]);
  assert.deepEqual(stateDirs({}, '/h'), ['/var/lib/gate', '/h/.local/state/gate']);
  assert.equal(await discover(env, home), undefined);
  const running = await broker(t, { stateDir: env.GATE_STATE_DIR });
  const found = await discover(env, home);
  assert.equal(found?.socket, running.socketPath);
  assert.equal(found?.info?.pid, process.pid);
  await running.close();
  assert.equal(await discover(env, home), undefined, 'what a dead one wrote does not count');
});
