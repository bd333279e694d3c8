/** The session protocol on the wire, by a WebSocket without the client: what is refused, and the limits. */
import assert from 'node:assert/strict';
import { connect as connectNet } from 'node:net';
import { type TestContext, test } from 'node:test';
import { WebSocket } from 'ws';
import type { RunningBroker } from './options.ts';
import { Api, broker, eventually, type Json } from './testing/fixture.ts';
import { CLOSE } from './wire.ts';

class Wire {
  readonly socket: WebSocket;
  readonly got: Json[] = [];
  closed: number | undefined;
  #id = 0;

  constructor(running: RunningBroker) {
    this.socket = new WebSocket('ws://localhost/v1/session', {
      createConnection: () => connectNet(running.socketPath),
    });
    this.socket.on('message', (data) => this.got.push(...[JSON.parse(String(data))].flat()));
    this.socket.on('close', (code) => (this.closed = code));
    this.socket.on('error', () => {});
  }

  static async open(t: TestContext, running: RunningBroker): Promise<Wire> {
    const wire = new Wire(running);
    t.after(() => wire.socket.terminate());
    await new Promise((resolve) => wire.socket.once('open', resolve));
    return wire;
  }

  say(...messages: Json[]): number[] {
    const numbered = messages.map((message) => ({ id: ++this.#id, ...message }));
    this.socket.send(JSON.stringify(numbered.length === 1 ? numbered[0] : numbered));
    return numbered.map((message) => message.id);
  }

  async answer(id: number): Promise<Json> {
    const find = () => this.got.find((message) => message.id === id);
    await eventually(`an answer to ${id}`, find);
    return find();
  }

  async ask(message: Json): Promise<Json> {
    return this.answer(this.say(message)[0]!);
  }

  async hello(more: Json = {}): Promise<Json> {
    return (await this.ask({ op: 'hello', resume: false, client: { kind: 'test' }, ...more })).ok;
  }
}

const acquire = (requestId: string, path: string, more: Json = {}) => ({
  op: 'acquire',
  requestId,
  owner: 'ann',
  volume: 'v',
  kind: 'name',
  targets: [{ path, mode: 'write', scope: 'file' }],
  ...more,
});

test('hello comes first, once, with a protocol that is known', async (t) => {
  const running = await broker(t);
  const wire = await Wire.open(t, running);
  assert.equal((await wire.ask({ op: 'waits' })).error.code, 'invalid_request');
  assert.match(
    (await wire.ask({ op: 'hello', resume: false, client: { kind: 'x' }, protocol: 99 })).error.message,
    /protocol/,
  );
  assert.equal(
    (await wire.ask({ op: 'hello', resume: true, session: 'ses_x', secret: 'y', client: { kind: 'x' } }))
      .error.code,
    'session_lost',
  );
  const welcome = await wire.hello();
  assert.match(welcome.session, /^ses_/);
  assert.equal(welcome.secret.length, 64);
  assert.equal(welcome.ttlMs, 15_000);
  assert.equal(welcome.lastId, 0);
  assert.equal(
    (await wire.ask({ op: 'hello', resume: false, client: { kind: 'x' } })).error.code,
    'invalid_request',
  );
  const thief = await Wire.open(t, running);
  const stolen = await thief.ask({
    op: 'hello',
    resume: true,
    session: welcome.session,
    secret: 'guess',
    client: { kind: 'x' },
  });
  assert.equal(stolen.error.code, 'unauthorized');
});

test('what is wrong is named, and changes nothing', async (t) => {
  const running = await broker(t);
  const wire = await Wire.open(t, running);
  await wire.hello();
  const target = { path: 'f', mode: 'read', scope: 'file' };
  const cases: [Json, string][] = [
    [{ op: 'dance' }, 'op'],
    [{ op: 'constructor' }, 'op'],
    [acquire('r', '/f'), 'targets[0].path'],
    [acquire('r', 'a/../f'), 'targets[0].path'],
    [acquire('r', 'a//f'), 'targets[0].path'],
    [acquire('r', 'a\0f'), 'targets[0].path'],
    [acquire('r', 'x'.repeat(5000)), 'targets[0].path'],
    [acquire('', 'f'), 'requestId'],
    [acquire('r', 'f', { owner: 7 }), 'owner'],
    [acquire('r', 'f', { volume: null }), 'volume'],
    [acquire('r', 'f', { kind: 'x' }), 'kind'],
    [acquire('r', 'f', { waitMs: -1 }), 'waitMs'],
    [acquire('r', 'f', { leaseMs: 'x' }), 'leaseMs'],
    [acquire('r', 'f', { holdCapMs: 0 }), 'holdCapMs'],
    [acquire('r', 'f', { targets: [] }), 'targets'],
    [acquire('r', 'f', { targets: [{ ...target, mode: 'x' }] }), 'targets[0].mode'],
    [acquire('r', 'f', { targets: [{ ...target, scope: 'x' }] }), 'targets[0].scope'],
    [acquire('r', 'f', { targets: Array(65).fill(target) }), 'targets'],
    [acquire('r', 'f', { who: 'me' }), 'who'],
    [{ op: 'release', owner: 'ann' }, 'lockId'],
    [{ op: 'move', volume: 'v', from: 'a', to: 7, tree: false }, 'to'],
    [{ op: 'move', volume: 'v', from: 'a', to: 'b' }, 'tree'],
    [{ op: 'register_volume', root: 'relative', dev: '1', ino: '1' }, 'root'],
    [{ op: 'reassert', locks: [7], requests: [], last: true }, 'locks'],
    [{ op: 'status', volume: 'v' }, 'path'],
  ];
  for (const [message, field] of cases) {
    const { error } = await wire.ask(message);
    assert.equal(error?.details?.field, field, JSON.stringify({ message, error }).slice(0, 300));
    assert.ok(error.message.includes(field.replace(/\[.*/, '')));
  }
  assert.equal((await wire.ask({ op: 'release', lockId: 'lk_x', owner: 'ann' })).error.code, 'not_found');
  assert.equal((await new Api(running).get('/v1/info')).json.holds, 0);
});

test('one frame may carry many messages; a wait is pushed, its grant answered later', async (t) => {
  const running = await broker(t);
  const wire = await Wire.open(t, running);
  await wire.hello();
  const [a, b, c] = wire.say(acquire('1', 'f'), acquire('2', 'f', { owner: 'bob' }), { op: 'waits' });
  const granted = await wire.answer(a!);
  assert.equal(granted.ok.count, 1);
  const queued = wire.got.find((message) => message.push === 'queued');
  assert.deepEqual([queued.requestId, queued.blockers], ['2', ['ann']]);
  const [wait] = (await wire.answer(c!)).ok;
  assert.equal(wait.owner, 'bob');
  assert.equal(wait.blockers[0].state, 'holds');
  assert.equal(
    wire.got.find((message) => message.id === b),
    undefined,
  );
  wire.say({ op: 'release', lockId: granted.ok.lockId, owner: 'ann' });
  const second = await wire.answer(b!);
  assert.ok(second.ok.token > granted.ok.token);
  assert.equal(second.ok.waited, true);
});

test('what is not the protocol closes the connection', async (t) => {
  const running = await broker(t, { limits: { frameBytes: 10_000 } });
  for (const [frame, code] of [
    ['not json', CLOSE.badMessage],
    ['{"op":"renew"}', CLOSE.badMessage],
    ['{"op":"renew","id":0}', CLOSE.badMessage],
    [' '.repeat(10_001), 1009],
  ] as const) {
    const wire = await Wire.open(t, running);
    wire.socket.send(frame);
    await eventually(`closed after ${frame.slice(0, 20)}`, () => wire.closed !== undefined);
    assert.equal(wire.closed, code);
  }
});

test('sessions are limited', async (t) => {
  const running = await broker(t, { limits: { sessions: 2 } });
  for (let i = 0; i < 2; i++) await (await Wire.open(t, running)).hello();
  const third = await Wire.open(t, running);
  assert.equal((await third.ask({ op: 'hello', resume: false, client: { kind: 'x' } })).error.code, 'limit');
});

test('locks of a session and waiters of a key are limited', async (t) => {
  const running = await broker(t, { limits: { locksPerSession: 5, waitersPerKey: 2 } });
  const wire = await Wire.open(t, running);
  await wire.hello();
  for (let i = 0; i < 3; i++) await wire.ask(acquire(`r${i}`, `f${i}`));
  const waits = wire.say(acquire('w0', 'f0', { owner: 'b' }), acquire('w1', 'f0', { owner: 'c' }), {
    op: 'waits',
  });
  await wire.answer(waits[2]!);
  assert.match((await wire.ask(acquire('r5', 'f5'))).error.message, /session/);
  const other = await Wire.open(t, running);
  await other.hello();
  const refused = await other.ask(acquire('w2', 'f0', { owner: 'd' }));
  assert.equal(refused.error.code, 'limit');
  const api = new Api(running);
  assert.equal((await api.acquire('http', 'write', 'f0', { volume: 'v' })).status, 429);
});

test('a client that floods and does not read is disconnected; others do not notice', async (t) => {
  const running = await broker(t, { limits: { outboxBytes: 200_000 } });
  const flood = await Wire.open(t, running);
  await flood.hello();
  flood.socket.pause();
  // Each answer repeats a history of some length.
  const other = await Wire.open(t, running);
  await other.hello();
  for (let i = 0; i < 50; i++)
    await other.ask({ op: 'note', volume: 'v', path: 'f', what: 'note', message: 'x'.repeat(500) });
  const api = new Api(running);
  const connected = async () =>
    (await api.get('/v1/info')).json.sessions.filter((one: Json) => one.connected).length;
  assert.equal(await connected(), 2);
  await eventually('the flooding client is cut', async () => {
    for (let i = 0; i < 20; i++) flood.say({ op: 'history', volume: 'v', path: 'f' });
    return (await connected()) === 1;
  });
  assert.equal((await other.ask({ op: 'renew' })).ok, null);
});

test('a slow reader of events gets a gap, and holds up nobody', async (t) => {
  const running = await broker(t, { limits: { eventsOutboxBytes: 20_000 } });
  const slow = await Wire.open(t, running);
  await slow.hello();
  await slow.ask({ op: 'subscribe' });
  slow.socket.pause();
  const busy = await Wire.open(t, running);
  await busy.hello();
  const api = new Api(running);
  const missed = async () => Number(/^gate_events_missed (\d+)/m.exec((await api.get('/metrics')).text)![1]);
  const note = { op: 'note', volume: 'v', path: 'f', what: 'noise', message: 'x'.repeat(1000) };
  await eventually('events are missed', async () => {
    const ids = busy.say(...Array(100).fill(note));
    await busy.answer(ids.at(-1)!);
    return (await missed()) > 0;
  });
  slow.socket.resume();
  const gap = () => slow.got.find((message) => message.push === 'gap');
  await eventually('the gap is told', async () => {
    await busy.ask(note);
    return gap();
  });
  assert.equal(gap().missed <= (await missed()), true);
  const seqs = slow.got
    .filter((message) => message.push === 'events')
    .flatMap((message) => message.events.map((event: Json) => event.seq));
  assert.deepEqual(
    seqs,
    seqs.toSorted((a: number, b: number) => a - b),
  );
});

test('a resume needs the secret, replaces the old connection, and tells what is lost', async (t) => {
  const running = await broker(t);
  const first = await Wire.open(t, running);
  const { session, secret } = await first.hello();
  const held = await first.ask(acquire('1', 'f'));
  const forgotten = await first.ask(acquire('2', 'g'));
  const second = await Wire.open(t, running);
  const welcome = await second.hello({ resume: true, session, secret });
  assert.equal(welcome.resumed, true);
  assert.equal(welcome.lastId, 3, 'the id of the last acquire');
  await eventually('the old connection is closed', () => first.closed === CLOSE.replaced);
  const repeated = await second.ask(acquire('1', 'f'));
  assert.deepEqual([repeated.ok.lockId, repeated.ok.count], [held.ok.lockId, 1]);
  const { ok } = await second.ask({
    op: 'reassert',
    locks: [held.ok.lockId, 'lk_gone'],
    requests: [],
    last: true,
  });
  assert.deepEqual(ok.lost, ['lk_gone']);
  const status = await second.ask({ op: 'status', volume: 'v', path: 'g' });
  assert.deepEqual(status.ok.holds, [], `${forgotten.ok.lockId} was not named, so it is given back`);
});

test('a session that is not heard of ends, and what it holds is free', async (t) => {
  const running = await broker(t, { sessionTtlMs: 150 });
  const wire = await Wire.open(t, running);
  await wire.hello();
  await wire.ask(acquire('1', 'f'));
  const api = new Api(running);
  const lock = await api.lock('bob', 'write', 'f', { volume: 'v' });
  assert.equal(lock.owner, 'bob');
  await eventually('it is told', () => wire.closed === CLOSE.sessionLost);
  assert.equal(wire.got.at(-1).push, 'session_lost');
  assert.equal((await api.get('/v1/info')).json.sessions.length, 0);
});

test('ending a session gives everything back', async (t) => {
  const running = await broker(t);
  const wire = await Wire.open(t, running);
  await wire.hello();
  await wire.ask(acquire('1', 'f'));
  assert.equal((await wire.ask({ op: 'end' })).ok, null);
  await eventually('closed', () => wire.closed === 1000);
  const info = (await new Api(running).get('/v1/info')).json;
  assert.deepEqual([info.holds, info.sessions.length], [0, 0]);
});

test('handles follow a move, a waiter may be retargeted, a hold may get a further target', async (t) => {
  const running = await broker(t);
  const wire = await Wire.open(t, running);
  await wire.hello();
  const hold = (await wire.ask(acquire('1', 'a', { kind: 'handle' }))).ok;
  assert.equal((await wire.ask({ op: 'move', volume: 'v', from: 'a', to: 'b', tree: false })).ok, null);
  const holdsOn = async (path: string) =>
    (await wire.ask({ op: 'status', volume: 'v', path })).ok.holds.length;
  assert.deepEqual([await holdsOn('a'), await holdsOn('b')], [0, 1]);
  await wire.ask({
    op: 'add_target',
    lockId: hold.lockId,
    target: { path: 'c', mode: 'write', scope: 'file' },
  });
  assert.equal(await holdsOn('c'), 1);
  const [waiting] = wire.say(acquire('2', 'c', { owner: 'bob' }));
  await eventually('queued', () => wire.got.some((message) => message.push === 'queued'));
  await wire.ask({
    op: 'retarget',
    requestId: '2',
    targets: [{ path: 'free', mode: 'write', scope: 'file' }],
  });
  assert.equal((await wire.answer(waiting!)).ok.count, 1);
  await wire.ask({ op: 'detach', volume: 'v', path: 'b', tree: false });
  const [missing] = wire.say({
    op: 'add_target',
    lockId: 'lk_x',
    target: { path: 'c', mode: 'write', scope: 'file' },
  });
  assert.equal((await wire.answer(missing!)).error.code, 'not_found');
});
