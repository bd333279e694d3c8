/** Whatever comes through the broker's doors: it is refused with a reason, nothing changes, others are served. */
import assert from 'node:assert/strict';
import { connect as connectNet } from 'node:net';
import { type TestContext, test } from 'node:test';
import { WebSocket } from 'ws';
import { delay, until } from '../../src/base/clock.ts';
import type { RunningBroker } from '../../src/broker/index.ts';
import { Api, broker, type Json, raw } from '../../src/broker/testing/fixture.ts';
import { bytes, generator, mutated, pick, type Random, seedOf } from './kit.ts';

const ROUNDS = 1000;
const PATIENCE_MS = 10_000;
/** Who has no answer by then waits for a lock. */
const ANSWER_MS = 500;

/** A lock that somebody holds and somebody waits for, which no garbage may touch. */
async function witness(t: TestContext): Promise<{ running: RunningBroker; untouched: () => Promise<void> }> {
  const running = await broker(t);
  const api = new Api({ socketPath: running.socketPath });
  const held = await api.lock('witness', 'write', 'w', { lease_ms: 600_000 });
  const waiting = api.acquire('patient', 'write', 'w', { timeout_ms: 600_000 });
  t.after(() => waiting.socket.destroy());
  await api.queued(1, 'w');
  return {
    running,
    async untouched() {
      const { locks, queue } = await api.status('w');
      assert.deepEqual([locks.length, queue.length], [1, 1]);
      assert.equal(locks[0].lock_id, held.lock_id);
      assert.equal((await api.get('/healthz')).status, 200);
    },
  };
}

const REQUESTS: readonly [string, string, Json?][] = [
  ['POST', '/v1/locks/acquire', { path: 'f', mode: 'write', owner: 'o', timeout_ms: 0, lease_ms: 1 }],
  [
    'POST',
    '/v1/locks/acquire',
    {
      targets: [
        { path: 'a', mode: 'read' },
        { path: 'b', mode: 'write', scope: 'tree' },
      ],
      owner: 'o',
      timeout_ms: 0,
      lease_ms: 1,
    },
  ],
  ['POST', '/v1/locks/release', { lock_id: 'x', owner: 'o' }],
  ['POST', '/v1/locks/heartbeat', { lock_id: 'x', owner: 'o', lease_ms: 1 }],
  ['GET', '/v1/locks/status?path=f'],
  ['GET', '/v1/history?path=f&limit=3'],
  ['GET', '/healthz'],
];

test('HTTP: mutated requests are answered with a status below 500', { timeout: 120_000 }, async (t) => {
  const { running, untouched } = await witness(t);
  const seed = seedOf(1);
  const random = generator(seed);
  for (let round = 0; round < ROUNDS; round++) {
    const [method, path, body] = pick(random, REQUESTS);
    const sent =
      body === undefined
        ? undefined
        : random() < 0.9
          ? mutated(random, body)
          : bytes(random, 60).toString('latin1');
    const where = random() < 0.3 ? `${path}${encodeURIComponent(bytes(random, 8).toString('latin1'))}` : path;
    const request = raw({ socketPath: running.socketPath }, random() < 0.9 ? method : 'PUT', where, sent);
    const answer = await Promise.race([request, delay(ANSWER_MS)]);
    if (answer === undefined) {
      // It asked to wait, or said that more is to come.
      request.socket.destroy();
      continue;
    }
    const told = `GATE_SEED=${seed}, round ${round}: ${method} ${where} ${JSON.stringify(sent)}`;
    assert.ok(answer.status >= 200 && answer.status < 500, `${told}: ${answer.text}`);
    if (answer.status >= 400)
      assert.ok(
        typeof answer.json?.error === 'string' || answer.json?.status === 'timeout',
        `${told}: ${answer.text}`,
      );
  }
  await untouched();
});

test('HTTP: bytes that are no requests end their connection, and no other', {
  timeout: 120_000,
}, async (t) => {
  const { running, untouched } = await witness(t);
  const random = generator(seedOf(2));
  const good =
    'POST /v1/locks/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nContent-Type: application/json\r\n\r\n{"a":1}   ';
  const open = Array.from({ length: 200 }, () => {
    const socket = connectNet(running.socketPath);
    socket.on('error', () => {});
    const mixed = Buffer.from(good);
    for (let flips = 0; flips < 6; flips++)
      mixed[Math.floor(random() * mixed.length)] = Math.floor(random() * 256);
    const what = random();
    socket.write(
      what < 0.4 ? bytes(random, 400) : what < 0.9 ? mixed : `GET /${'a'.repeat(100_000)} HTTP/1.1\r\n`,
    );
    if (random() < 0.5) socket.end();
    return socket;
  });
  t.after(() => {
    for (const socket of open) socket.destroy();
  });
  await untouched();
});

const MESSAGES: readonly Json[] = [
  { op: 'renew' },
  {
    op: 'acquire',
    requestId: 'r',
    owner: 'o',
    volume: 'v',
    kind: 'handle',
    targets: [{ path: 'f', mode: 'write', scope: 'file' }],
    waitMs: 0,
  },
  { op: 'cancel', requestId: 'r' },
  { op: 'release', lockId: 'x', owner: 'o' },
  { op: 'move', volume: 'v', from: 'a', to: 'b', tree: false },
  { op: 'exchange', volume: 'v', a: 'a', b: 'b', tree: true },
  { op: 'detach', volume: 'v', path: 'a', tree: false },
  { op: 'add_target', lockId: 'x', target: { path: 'f', mode: 'read', scope: 'file' } },
  { op: 'retarget', requestId: 'r', targets: [{ path: 'g', mode: 'write', scope: 'file' }] },
  { op: 'status', volume: 'v', path: '' },
  { op: 'history', volume: 'v', path: 'f', limit: 2 },
  { op: 'waits' },
  { op: 'volumes' },
  { op: 'note', volume: 'v', path: 'f', what: 'x', owner: 'o', message: 'm' },
  { op: 'delegate', volume: 'fuzz' },
  { op: 'returned', volume: 'fuzz', epoch: 'e', regions: [{ path: 'f', scope: 'file' }], holds: [] },
  {
    op: 'activity',
    volume: 'v',
    entries: [{ type: 'granted', owner: 'o', targets: [], lockId: 'l', token: 1 }],
  },
  { op: 'reassert', holds: [{ lockId: 'x' }] },
  { op: 'subscribe' },
  { op: 'unsubscribe' },
];

test('the session protocol: mutated messages are answered, or end their connection', {
  timeout: 120_000,
}, async (t) => {
  const { running, untouched } = await witness(t);
  const seed = seedOf(3);
  const random = generator(seed);
  for (let connection = 0; connection < 40; connection++)
    await converse(t, running, random, `GATE_SEED=${seed}, connection ${connection}`);
  await untouched();
});

async function converse(t: TestContext, running: RunningBroker, random: Random, told: string): Promise<void> {
  const socket = new WebSocket('ws://localhost/v1/session', {
    createConnection: () => connectNet(running.socketPath),
  });
  t.after(() => socket.terminate());
  let closed = false;
  const answers = new Map<number, Json>();
  socket.on('error', () => {});
  socket.on('close', () => (closed = true));
  socket.on('message', (data) => {
    for (const one of [JSON.parse(String(data))].flat()) if (one.id !== undefined) answers.set(one.id, one);
  });
  await new Promise((resolve) => socket.once('open', resolve));
  socket.send(JSON.stringify({ id: 1, op: 'hello', resume: false, client: { kind: 'fuzz' } }));
  for (let id = 2; id < 60 && !closed; id++) {
    const message = mutated(random, { ...pick(random, MESSAGES) });
    const what = random();
    if (what < 0.02) socket.send(bytes(random, 30));
    else if (what < 0.04) socket.send('{"id":');
    else if (typeof message === 'object' && message !== null) socket.send(JSON.stringify({ ...message, id }));
  }
  socket.send(JSON.stringify({ id: 60, op: 'renew' }));
  assert.ok(
    await until(() => closed || answers.has(60), PATIENCE_MS),
    `${told}: neither answered nor closed`,
  );
  for (const answer of answers.values())
    assert.notEqual(answer.error?.code, 'internal', `${told}: ${JSON.stringify(answer)}`);
  socket.close();
}
