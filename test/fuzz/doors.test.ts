/** Who floods, who does not read, and who should not be there at all: others are served all the while. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, statSync } from 'node:fs';
import { connect as connectNet } from 'node:net';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { delay, until } from '../../src/base/clock.ts';
import { Api, broker, raw, tokenHeader } from '../../src/broker/testing/fixture.ts';

const PATIENCE_MS = 20_000;

/** Milliseconds that `count` acquire and release pairs took, the slowest last. */
async function served(api: Api, count: number): Promise<number[]> {
  const took: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await api.release(await api.lock('other', 'write', `other ${i}`));
    took.push(performance.now() - start);
  }
  return took.sort((a, b) => a - b);
}

test('a client that floods meets limits, and others are served', { timeout: 120_000 }, async (t) => {
  const running = await broker(t, { limits: { waitersPerKey: 200, locksPerSession: 3000 } });
  const where = { socketPath: running.socketPath };
  const api = new Api(where);
  await api.lock('holder', 'write', 'f', { lease_ms: 600_000 });
  const statuses = new Map<number, number>();
  const flood = Array.from({ length: 600 }, (_, i) => {
    const asked = api.acquire(`flood ${i}`, 'write', 'f', { timeout_ms: 600_000 });
    asked.then(
      ({ status }) => statuses.set(status, (statuses.get(status) ?? 0) + 1),
      () => {},
    );
    return asked;
  });
  t.after(() => {
    for (const { socket } of flood) socket.destroy();
  });
  assert.ok(await until(() => (statuses.get(429) ?? 0) >= 100, PATIENCE_MS), JSON.stringify([...statuses]));
  const socket = new WebSocket('ws://localhost/v1/session', {
    createConnection: () => connectNet(running.socketPath),
  });
  t.after(() => socket.terminate());
  const limited = new Set<string>();
  socket.on('message', (data) => {
    for (const one of [JSON.parse(String(data))].flat()) if (one.error) limited.add(one.error.code);
  });
  await new Promise((open) => socket.once('open', open));
  socket.send(JSON.stringify({ id: 1, op: 'hello', resume: false, client: { kind: 'flood' } }));
  for (let id = 2; id < 10_000; id++) {
    const targets = [{ path: `s${id}`, mode: 'write', scope: 'file' }];
    socket.send(
      JSON.stringify({
        id,
        op: 'acquire',
        requestId: `r${id}`,
        owner: 'o',
        volume: 'v',
        kind: 'name',
        targets,
        waitMs: 0,
      }),
    );
  }
  const took = await served(api, 100);
  assert.ok(await until(() => limited.has('limit'), PATIENCE_MS));
  t.diagnostic(
    `an acquire and release during the flood: median ${took[50]!.toFixed(1)} ms, slowest ${took[99]!.toFixed(1)} ms`,
  );
  assert.ok(took[50]! < 5000);
});

test('readers of events who do not read hold up nobody, and cost no memory without end', {
  timeout: 120_000,
}, async (t) => {
  const running = await broker(t);
  const api = new Api({ socketPath: running.socketPath });
  const streams = Array.from({ length: 5 }, () => {
    const socket = connectNet(running.socketPath);
    socket.on('error', () => {});
    socket.write('GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n');
    socket.pause();
    return socket;
  });
  const sessions = await Promise.all(
    Array.from({ length: 5 }, async () => {
      const socket = new WebSocket('ws://localhost/v1/session', {
        createConnection: () => connectNet(running.socketPath),
      });
      await new Promise((open) => socket.once('open', open));
      socket.send(JSON.stringify({ id: 1, op: 'hello', resume: false, client: { kind: 'slow' } }));
      socket.send(JSON.stringify({ id: 2, op: 'subscribe' }));
      socket.pause();
      return socket;
    }),
  );
  t.after(() => {
    for (const socket of streams) socket.destroy();
    for (const socket of sessions) socket.terminate();
  });
  const reason = 'r'.repeat(1000);
  const before = process.memoryUsage.rss();
  // About 40 MiB of events, were they all to be kept for each of them.
  for (let round = 0; round < 40; round++)
    await Promise.all(
      Array.from({ length: 50 }, async (_, i) =>
        api.release(await api.lock('busy', 'write', `busy ${i}`, { reason })),
      ),
    );
  const grownMib = (process.memoryUsage.rss() - before) / 2 ** 20;
  const took = await served(api, 50);
  t.diagnostic(`grown by ${grownMib.toFixed(0)} MiB; others: median ${took[25]!.toFixed(1)} ms`);
  assert.ok(grownMib < 300, `${grownMib} MiB`);
  assert.ok(took[25]! < 5000);
});

test('connections that say nothing hold up nobody', { timeout: 60_000 }, async (t) => {
  const running = await broker(t);
  const silent = Array.from({ length: 500 }, (_, i) => {
    const socket = i % 2 === 0 ? connectNet(running.socketPath) : connectNet(running.port, '127.0.0.1');
    socket.on('error', () => {});
    if (i % 3 === 0) socket.write('POST /v1/locks/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Le');
    return socket;
  });
  t.after(() => {
    for (const socket of silent) socket.destroy();
  });
  await delay(100);
  const took = await served(new Api({ socketPath: running.socketPath }), 50);
  assert.ok(took[25]! < 5000);
});

test('a web page cannot talk to the port: not by a foreign Origin, a rebound Host, a WebSocket, or a form', async (t) => {
  const running = await broker(t, { auth: 'token' });
  const token = tokenHeader(running.tokenFile);
  const body = { path: 'f', mode: 'write', owner: 'page' };
  const post = (headers: Record<string, string>) =>
    raw(running, 'POST', '/v1/locks/acquire', body, { ...token, ...headers });
  const { port } = running;
  for (const headers of [
    { Origin: 'https://evil.example' },
    { Origin: 'null' },
    { Origin: `http://evil.example:${port}` },
    { Host: `evil.example:${port}` },
    { Host: `127.0.0.1.evil.example:${port}` },
    { Host: '' },
  ] as Record<string, string>[]) {
    const { status, text } = await post(headers);
    assert.ok(status === 403 || status === 400, `${JSON.stringify(headers)}: ${text}`);
    assert.doesNotMatch(text, /access-control-allow/i);
  }
  // A preflight gets no leave, and what a form may send without one has no token.
  const preflight = await raw(running, 'OPTIONS', '/v1/locks/acquire', undefined, {
    Origin: 'https://evil.example',
    'Access-Control-Request-Method': 'POST',
    'Access-Control-Request-Headers': 'authorization',
  });
  assert.ok(preflight.status >= 400);
  assert.doesNotMatch(preflight.text, /access-control-allow/i);
  const form = await raw(running, 'POST', '/v1/locks/acquire', body, { 'Content-Type': 'text/plain' });
  assert.equal(form.status, 401);
  const upgraded = await new Promise((resolve) => {
    const socket = new WebSocket(`${running.url.replace('http', 'ws')}/v1/session`, {
      headers: { ...token, Origin: 'https://evil.example' },
    });
    socket.on('open', () => resolve('open'));
    socket.on('unexpected-response', (_, response) => resolve(response.statusCode));
    socket.on('error', () => {});
  });
  assert.equal(upgraded, 403);
  assert.deepEqual((await new Api({ socketPath: running.socketPath }).status('f')).locks, []);
});

test('another user of the machine takes, breaks and reads nothing without the token', {
  skip: process.getuid?.() !== 0,
}, async (t) => {
  const running = await broker(t, { auth: 'token' });
  // Even where everybody may enter the state directory.
  const dir = running.socketPath.replace(/\/[^/]*$/, '');
  chmodSync(dir, 0o755);
  assert.equal(statSync(running.tokenFile).mode & 0o777, 0o600);
  const held = await new Api({ socketPath: running.socketPath }).lock('mine', 'write', 'f', {
    lease_ms: 600_000,
  });
  const script = `
const http = require('node:http'), fs = require('node:fs');
const ask = (where, method, path, body) => new Promise((done) => {
  const sent = http.request({ ...where, method, path, headers: { 'content-type': 'application/json' } }, (answer) => { answer.resume(); done(answer.statusCode); });
  sent.on('error', (error) => done(error.code)); sent.end(body && JSON.stringify(body));
});
(async () => {
  const doors = [{ socketPath: ${JSON.stringify(running.socketPath)} }, { host: '127.0.0.1', port: ${running.port} }];
  const seen = [];
  for (const door of doors) for (const [method, path, body] of [
    ['GET', '/v1/locks/status?path=f'], ['GET', '/v1/history'], ['GET', '/v1/events'], ['GET', '/metrics'], ['GET', '/v1/info'],
    ['POST', '/v1/locks/acquire', { path: 'g', mode: 'write', owner: 'thief' }],
    ['POST', '/v1/locks/release', { lock_id: ${JSON.stringify(held.lock_id)}, owner: 'mine' }],
    ['POST', '/v1/locks/break', { lock_id: ${JSON.stringify(held.lock_id)} }],
  ]) seen.push(await ask(door, method, path, body));
  for (const file of ['token', 'broker.db']) try { fs.readFileSync(${JSON.stringify(dir)} + '/' + file); seen.push(file); } catch (error) { seen.push(error.code); }
  console.log(JSON.stringify([...new Set(seen)].sort()));
})();`;
  const child = spawn(process.execPath, ['-e', script], { uid: 65_534, gid: 65_534, cwd: '/', env: {} });
  let out = '';
  child.stdout.on('data', (text) => (out += text));
  child.stderr.on('data', (text) => (out += text));
  await new Promise((done) => child.once('close', done));
  assert.deepEqual(JSON.parse(out), [401, 'EACCES']);
  const { locks } = await new Api({ socketPath: running.socketPath }).status('f');
  assert.equal(locks[0].lock_id, held.lock_id);
});
