/** The HTTP API as a plain client sees it: one connection a request, blocking in acquire. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../base/limits.ts';
import { connect } from '../client/index.ts';
import { Api, broker, eventually, type Json, raw } from './testing/fixture.ts';

test('acquire, status, heartbeat and release have the shapes of the API', async (t) => {
  const api = new Api(await broker(t));
  const before = Date.now() / 1000;
  const { status, json } = await api.acquire('ann', 'write', '/repo/a.txt', {
    lease_ms: 5000,
    max_hold_ms: 60000,
  });
  assert.equal(status, 200);
  assert.equal(json.status, 'granted');
  const { lock } = json;
  assert.match(lock.lock_id, /^lk_/);
  assert.equal(lock.path, '/repo/a.txt');
  assert.equal(lock.mode, 'write');
  assert.equal(lock.owner, 'ann');
  assert.ok(Math.abs(lock.acquired_at - before) < 5, 'acquired_at is in Unix seconds');
  assert.ok(Math.abs(lock.lease_expires_at - lock.acquired_at - 5) < 0.1);
  assert.equal(lock.max_hold_ms, 60000);
  assert.equal(lock.hold_count, 1);
  assert.ok(Number.isSafeInteger(lock.fencing_token));

  const waiting = api.acquire('bob', 'read', '/repo/a.txt', { reason: 'to look' });
  await api.queued(1, '/repo/a.txt');
  const seen = await api.status('/repo/a.txt');
  assert.deepEqual(seen.locks[0], lock);
  const [entry] = seen.queue;
  assert.equal(entry.owner, 'bob');
  assert.equal(entry.path, '/repo/a.txt');
  assert.equal(entry.mode, 'read');
  assert.match(entry.req_id, /^req_/);
  assert.ok(Math.abs(entry.requested_at - before) < 5);
  assert.equal(entry.who.reason, 'to look');
  assert.equal(entry.blockers[0].owner, 'ann');
  assert.equal((await api.get('/v1/locks/waits')).json.waits.length, 1);

  const beat = await api.post('/v1/locks/heartbeat', { lock_id: lock.lock_id, owner: 'ann', lease_ms: 9000 });
  assert.equal(beat.status, 200);
  assert.equal(beat.json.status, 'ok');
  assert.deepEqual(
    await api.post('/v1/locks/release', { lock_id: lock.lock_id, owner: 'ann' }).then((a) => a.json),
    {
      status: 'released',
    },
  );
  const granted = (await waiting).json.lock;
  assert.ok(granted.fencing_token > lock.fencing_token);
  await api.release(granted);
});

test('every refusal names what is wrong and changes nothing', async (t) => {
  const api = new Api(await broker(t));
  const held = await api.lock('ann', 'write');
  const acquire = '/v1/locks/acquire';
  const good = { path: 'f2', mode: 'write', owner: 'ann' };
  const cases: [string, string, unknown, number, Json][] = [
    ['no path', acquire, { mode: 'read', owner: 'x' }, 400, { error: 'invalid request', field: 'path' }],
    ['null path', acquire, { ...good, path: null }, 400, { field: 'path' }],
    ['path of a wrong type', acquire, { ...good, path: 7 }, 400, { field: 'path' }],
    ['empty path', acquire, { ...good, path: '' }, 400, { field: 'path' }],
    ['.. in the path', acquire, { ...good, path: 'a/../b' }, 400, { field: 'path' }],
    ['NUL in the path', acquire, { ...good, path: 'a\0b' }, 400, { field: 'path' }],
    ['path too long', acquire, { ...good, path: 'x'.repeat(LIMITS.pathBytes + 1) }, 400, { field: 'path' }],
    ['lone surrogate', acquire, { ...good, path: '\ud800' }, 400, { field: 'path' }],
    ['bad mode', acquire, { ...good, mode: 'append' }, 400, { field: 'mode' }],
    ['no mode', acquire, { ...good, mode: undefined }, 400, { field: 'mode' }],
    ['bad scope', acquire, { ...good, scope: 'forest' }, 400, { field: 'scope' }],
    ['no owner', acquire, { ...good, owner: undefined }, 400, { field: 'owner' }],
    ['empty owner', acquire, { ...good, owner: '' }, 400, { field: 'owner' }],
    ['owner too long', acquire, { ...good, owner: 'x'.repeat(600) }, 400, { field: 'owner' }],
    ['timeout of a wrong type', acquire, { ...good, timeout_ms: '5' }, 400, { field: 'timeout_ms' }],
    ['negative timeout', acquire, { ...good, timeout_ms: -1 }, 400, { field: 'timeout_ms' }],
    ['lease of nothing', acquire, { ...good, lease_ms: 0 }, 400, { field: 'lease_ms' }],
    ['cap of a wrong type', acquire, { ...good, max_hold_ms: true }, 400, { field: 'max_hold_ms' }],
    [
      'bad target',
      acquire,
      { owner: 'x', targets: [{ path: 'a', mode: 'x' }] },
      400,
      { field: 'targets[0].mode' },
    ],
    ['no targets', acquire, { owner: 'x', targets: [] }, 400, { field: 'targets' }],
    [
      'too many targets',
      acquire,
      { owner: 'x', targets: Array.from({ length: 65 }, (_, i) => ({ path: `p${i}`, mode: 'read' })) },
      429,
      { field: 'targets' },
    ],
    ['not JSON', acquire, '{"path":', 400, { field: 'body' }],
    ['not an object', acquire, '[1]', 400, { field: 'body' }],
    [
      'body over the limit',
      acquire,
      { ...good, reason: 'x'.repeat(LIMITS.bodyBytes) },
      413,
      { field: 'body' },
    ],
    ['release without lock', '/v1/locks/release', { owner: 'ann' }, 400, { field: 'lock_id' }],
    [
      'release of nothing',
      '/v1/locks/release',
      { lock_id: 'lk_0', owner: 'ann' },
      404,
      { error: 'lock not found' },
    ],
    [
      'release by another',
      '/v1/locks/release',
      { lock_id: held.lock_id, owner: 'bob' },
      403,
      { error: 'owner mismatch' },
    ],
    [
      'heartbeat of nothing',
      '/v1/locks/heartbeat',
      { lock_id: 'lk_0', owner: 'ann' },
      404,
      { error: 'lock not found' },
    ],
    [
      'heartbeat by another',
      '/v1/locks/heartbeat',
      { lock_id: held.lock_id, owner: 'bob' },
      403,
      { error: 'owner mismatch' },
    ],
    ['break of nothing', '/v1/locks/break', { lock_id: 'lk_0' }, 404, { error: 'lock not found' }],
  ];
  for (const [title, path, body, status, expected] of cases) {
    const answer = await api.post(path, body);
    assert.equal(answer.status, status, `${title}: ${answer.text}`);
    for (const [key, value] of Object.entries(expected)) assert.equal(answer.json[key], value, title);
    if (expected.field)
      assert.ok(answer.json.message.includes(expected.field), `${title}: ${answer.json.message}`);
  }
  assert.equal((await api.get('/v1/locks/status')).json.field, 'path');
  assert.equal((await api.get('/v1/nothing')).status, 404);
  const info = (await api.get('/v1/info')).json;
  assert.equal(info.holds, 1);
  assert.equal(info.waiters, 0);
});

test('null counts as absent, and any content type is JSON', async (t) => {
  const running = await broker(t);
  const api = new Api(running);
  const nulls = {
    timeout_ms: null,
    lease_ms: null,
    max_hold_ms: null,
    volume: null,
    scope: null,
    targets: null,
  };
  const lock = await api.lock('ann', 'read', 'f', { ...nulls, request_id: null, reason: null });
  assert.equal(lock.max_hold_ms, 60_000); // as when it is absent
  const form = { 'Content-Type': 'application/x-www-form-urlencoded' };
  const body = { path: 'g', mode: 'write', owner: 'ann' };
  assert.equal((await raw(running, 'POST', '/v1/locks/acquire', body, form)).status, 200);
});

test('a wait limit ends in 408, a cycle in 409', async (t) => {
  const api = new Api(await broker(t));
  const a = await api.lock('ann', 'write', 'a');
  const b = await api.lock('bob', 'write', 'b');
  for (const timeout of [0, 20]) {
    const late = await api.acquire('bob', 'read', 'a', { timeout_ms: timeout });
    assert.equal(late.status, 408);
    assert.equal(late.json.status, 'timeout');
  }
  const waiting = api.acquire('ann', 'write', 'b');
  await api.queued(1, 'b');
  const refused = await api.acquire('bob', 'write', 'a');
  assert.equal(refused.status, 409);
  assert.equal(refused.json.error, 'deadlock');
  assert.deepEqual([...refused.json.cycle].sort(), ['ann', 'bob']);
  await api.release(b);
  assert.equal((await waiting).status, 200);
  await api.release(a);
});

test('first come, first served: W1 then W2, R3, R4, W5', async (t) => {
  const api = new Api(await broker(t));
  const order: string[] = [];
  const w1 = await api.lock('w1', 'write');
  const waiting: Record<string, Promise<Json>> = {};
  for (const [i, name] of ['w2', 'r3', 'r4', 'w5'].entries()) {
    waiting[name] = api.acquire(name, name.startsWith('w') ? 'write' : 'read').then(({ json }) => {
      order.push(name);
      return json.lock;
    });
    await api.queued(i + 1);
  }
  assert.deepEqual(
    (await api.status()).queue.map((entry) => entry.owner),
    ['w2', 'r3', 'r4', 'w5'],
  );
  await api.release(w1);
  const w2 = await waiting.w2;
  assert.deepEqual(order, ['w2']);
  await api.release(w2);
  const [r3, r4] = await Promise.all([waiting.r3, waiting.r4]);
  assert.deepEqual(order.toSorted(), ['r3', 'r4', 'w2']);
  await api.release(r3);
  assert.equal((await api.status()).queue.length, 1);
  await api.release(r4);
  const w5 = await waiting.w5;
  const tokens = [w1, w2, r3, w5].map((lock) => lock.fencing_token);
  assert.deepEqual(
    tokens,
    tokens.toSorted((x, y) => x - y),
  );
});

test('a client that goes away while it waits leaves the queue', async (t) => {
  const api = new Api(await broker(t));
  const held = await api.lock('ann', 'write');
  const gone = api.acquire('bob', 'write');
  await api.queued(1);
  const next = api.acquire('eve', 'write');
  await api.queued(2);
  gone.socket.destroy();
  await api.queued(1);
  await api.release(held);
  assert.equal((await next).json.lock.owner, 'eve');
});

test('a grant that cannot be answered is undone, unless it had a request_id', async (t) => {
  const running = await broker(t);
  const api = new Api(running);
  // The request and the end of the connection arrive together: granted at once, and nobody to tell.
  const hasty = api.acquire('ann', 'write', 'a', { lease_ms: 60_000 });
  hasty.socket.once('connect', () => hasty.socket.resetAndDestroy());
  await eventually(
    'a is free',
    async () => (await api.acquire('bob', 'write', 'a', { timeout_ms: 0 })).status === 200,
  );

  const held = await api.lock('ann', 'write', 'b');
  const waiting = api.acquire('bob', 'write', 'b', { request_id: 'once' });
  await api.queued(1, 'b');
  assert.equal((await api.status('b')).queue[0].req_id, 'once');
  await api.release(held);
  const { lock } = (await waiting).json;
  const again = await api.lock('bob', 'write', 'b', { request_id: 'once' });
  assert.equal(again.lock_id, lock.lock_id);
  assert.equal(again.hold_count, 1, 'a repeated request is not a second one');
  assert.notEqual((await api.lock('eve', 'write', 'c', { request_id: 'once' })).lock_id, lock.lock_id);
});

test('the same owner enters again, and a lease ends by itself', async (t) => {
  const api = new Api(await broker(t));
  const one = await api.lock('ann', 'write', 'f', { lease_ms: 60_000 });
  const two = await api.lock('ann', 'write');
  assert.equal(two.lock_id, one.lock_id);
  assert.equal(two.hold_count, 2);
  const short = await api.lock('ann', 'write', 'g', { lease_ms: 30 });
  const next = await api.lock('bob', 'write', 'g');
  assert.ok(next.fencing_token > short.fencing_token);
  const late = await api.post('/v1/locks/heartbeat', { lock_id: short.lock_id, owner: 'ann' });
  assert.equal(late.status, 404);
});

test('HTTP owners are a namespace of their own, and so are their locks', async (t) => {
  const running = await broker(t);
  const api = new Api(running);
  const gate = await connect({ socket: running.socketPath, kind: 'test' });
  const hold = await gate.acquire({ owner: 'ann', path: 'f' });
  assert.equal((await api.acquire('ann', 'write', 'f', { timeout_ms: 0 })).status, 408, 'another ann');
  const { locks } = await api.status();
  assert.equal(locks[0].owner, 'ann');
  assert.equal(locks[0].via, 'session');
  assert.equal((await api.post('/v1/locks/release', { lock_id: hold.lockId, owner: 'ann' })).status, 403);
  assert.equal((await api.post('/v1/locks/heartbeat', { lock_id: hold.lockId, owner: 'ann' })).status, 404);
  await assert.rejects(gate.acquire({ owner: 'http:ann', path: 'g' }), { code: 'invalid_request' });
  const lost = new Promise((resolve) => (gate.onHoldLost = (lockId, reason) => resolve([lockId, reason])));
  assert.equal((await api.post('/v1/locks/break', { lock_id: hold.lockId })).status, 200);
  assert.deepEqual(await lost, [hold.lockId, 'forced']);
  await gate.close();
});

test('a path inside a registered root or mount means that volume', async (t) => {
  const running = await broker(t);
  const api = new Api(running);
  const gate = await connect({ socket: running.socketPath, kind: 'mount' });
  const { id } = await gate.registerVolume({ root: '/repo', mount: '/mnt/gate/repo', dev: '1', ino: '2' });
  const inner = await gate.registerVolume({ root: '/repo/inner', dev: '1', ino: '3' });
  assert.equal(
    (await gate.registerVolume({ root: '/repo//', mount: '/mnt/new', dev: '1', ino: '2' })).id,
    id,
  );
  await gate.registerVolume({ root: '/repo', mount: '/mnt/gate/repo', dev: '1', ino: '2' });
  assert.deepEqual(
    (await api.get('/v1/volumes')).json.volumes.map((one: Json) => one.id).toSorted(),
    [id, inner.id].toSorted(),
  );
  const lock = await api.lock('ann', 'write', '/repo/a');
  assert.equal(lock.volume, id);
  assert.equal(lock.path, '/repo/a');
  for (const other of ['/mnt/gate/repo/a', '/repo/./a', '/repo//a'])
    assert.equal((await api.acquire('bob', 'write', other, { timeout_ms: 0 })).status, 408, other);
  assert.equal((await api.acquire('bob', 'write', 'a', { timeout_ms: 0, volume: id })).status, 408);
  assert.equal((await api.lock('bob', 'write', '/repository/a')).volume, 'default');
  assert.equal((await api.lock('bob', 'write', '/repo/inner/a')).volume, inner.id);
  await assert.rejects(gate.acquire({ owner: 'x', volume: id, path: 'a', waitMs: 0 }), { code: 'timeout' });
  await gate.close();
});

test('history tells of a path, with commands cut to the program', async (t) => {
  const running = await broker(t);
  const api = new Api(running);
  const gate = await connect({ socket: running.socketPath, kind: 'test' });
  const who = { pid: 7, command: '/usr/bin/curl --user me:secret' };
  await gate.release(await gate.acquire({ owner: 'ann', path: 'dir/f', who }));
  await gate.release(await gate.acquire({ owner: 'ann', path: 'dir/fg' }));
  const types = async (path: string) =>
    (await api.get(`/v1/history?path=${path}`)).json.events.map(
      (event: Json) => `${event.type} ${event.path}`,
    );
  assert.deepEqual(await types('dir/f'), ['released dir/f', 'granted dir/f']);
  assert.equal((await types('dir')).length, 4);
  assert.equal((await types('nothing')).length, 0);
  const [, granted] = (await api.get('/v1/history?path=dir/f')).json.events;
  assert.equal(granted.who.command, 'curl');
  assert.equal(granted.owner, 'ann');
  assert.ok(Math.abs(granted.time - Date.now() / 1000) < 5);
  assert.ok(!(await api.get('/v1/history')).text.includes('secret'));
  assert.equal((await api.get('/v1/history?limit=1')).json.events.length, 1);
  await gate.close();
});

test('events stream as they happen', async (t) => {
  const api = new Api(await broker(t));
  const stream = api.get('/v1/events');
  let text = '';
  stream.socket.on('data', (data) => (text += data));
  await eventually('the stream is open', () => text.includes(': events'));
  assert.match(text, /content-type: text\/event-stream/i);
  const lock = await api.lock('ann', 'write', 'f');
  await api.release(lock);
  await eventually('both events', () => text.includes('event: released'));
  const line = /event: granted\ndata: (.*)\n/.exec(text)![1]!;
  const event = JSON.parse(line);
  assert.equal(event.lockId, lock.lock_id);
  assert.equal(event.via, 'http');
  assert.equal(event.volume, 'default');
  stream.socket.destroy();
});

test('health, metrics and info', async (t) => {
  const running = await broker(t);
  const api = new Api(running);
  await api.release(await api.lock('ann', 'write'));
  await api.lock('ann', 'read');
  assert.deepEqual((await api.get('/healthz')).json, { status: 'ok' });
  const { text } = await api.get('/metrics');
  assert.match(text, /^gate_grants_total\{mode="write"\} 1$/m);
  assert.match(text, /^gate_releases_total\{reason="released"\} 1$/m);
  assert.match(text, /^gate_holds 1$/m);
  assert.match(text, /^gate_commit_seconds_count [1-9]/m);
  const info = (await api.get('/v1/info')).json;
  assert.equal(info.pid, process.pid);
  assert.equal(info.socket, running.socketPath);
});
