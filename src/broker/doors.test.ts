/** Who gets in, and what a broker refuses to start with. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { isAlive } from '../base/process.ts';
import { startBroker } from './index.ts';
import { Api, broker, brokerProcess, raw, tempDir, tokenHeader } from './testing/fixture.ts';

test('TCP wants the token, the socket does not', async (t) => {
  const running = await broker(t, { auth: 'token' });
  const open = new Api(running);
  assert.equal((await open.get('/v1/info')).status, 401);
  assert.equal((await open.acquire('ann', 'write')).status, 401);
  assert.equal(
    (await raw(running, 'GET', '/v1/info', undefined, { Authorization: 'Bearer wrong' })).status,
    401,
  );
  assert.equal((await raw(running, 'GET', '/metrics')).status, 401);
  assert.equal((await open.get('/healthz')).status, 200);
  const token = tokenHeader(running.tokenFile);
  assert.equal((await raw(running, 'GET', '/v1/info', undefined, token)).status, 200);
  assert.equal((await new Api({ socketPath: running.socketPath }).get('/v1/info')).status, 200);
  assert.equal(statSync(running.tokenFile).mode & 0o777, 0o600);
  assert.equal(statSync(running.socketPath).mode & 0o777, 0o660);
  const upgrade = (url: string, headers = {}) =>
    new Promise((resolve) => {
      const socket = new WebSocket(url, { headers });
      const end = (how: unknown) => {
        socket.terminate();
        resolve(how);
      };
      socket.on('open', () => end('open'));
      socket.on('unexpected-response', (_, response) => end(response.statusCode));
      socket.on('error', () => {});
    });
  const url = running.url.replace('http', 'ws');
  assert.equal(await upgrade(`${url}/v1/session`), 401);
  assert.equal(await upgrade(`${url}/v1/session`, token), 'open');
  assert.equal(await upgrade(`${url}/v1/nothing`, token), 404);
  assert.equal(await upgrade(`${url}/v1/session`, { ...token, Origin: 'http://evil.example' }), 403);
});

test('the token stays the same over restarts', async (t) => {
  const stateDir = tempDir(t);
  const first = await broker(t, { stateDir, auth: 'token' });
  const token = readFileSync(first.tokenFile, 'utf8');
  await first.close();
  const second = await broker(t, { stateDir, auth: 'token' });
  assert.equal(readFileSync(second.tokenFile, 'utf8'), token);
});

test('foreign Origin and Host are refused, with authentication off too', async (t) => {
  const running = await broker(t);
  const ask = async (headers: Record<string, string>) =>
    (await raw(running, 'GET', '/v1/info', undefined, headers)).status;
  const { port } = running;
  assert.equal(await ask({}), 200);
  for (const host of [`localhost:${port}`, `LOCALHOST:${port}`, `[::1]:${port}`])
    assert.equal(await ask({ Host: host }), 200, host);
  for (const host of ['evil.example', `evil.example:${port}`, '127.0.0.1', 'localhost:1'])
    assert.equal(await ask({ Host: host }), 403, host);
  for (const origin of ['null', 'http://evil.example', `https://localhost:${port}`, 'http://localhost:1'])
    assert.equal(await ask({ Origin: origin }), 403, origin);
  assert.equal(await ask({ Origin: running.url }), 200);
  const socket = { socketPath: running.socketPath };
  assert.equal(
    (await raw(socket, 'GET', '/v1/info', undefined, { Origin: 'http://evil.example' })).status,
    403,
  );
});

test('a second broker is refused, naming the first', async (t) => {
  const stateDir = tempDir(t);
  const first = await brokerProcess(t, { stateDir });
  const pid = new RegExp(`already \\(pid ${first.child.pid},`);
  await assert.rejects(startBroker({ stateDir, port: 0 }), { code: 'unavailable', message: pid });
  await first.kill();
  assert.ok(existsSync(join(stateDir, 'broker.sock')), 'the dead one left its socket');
  const second = await broker(t, { stateDir });
  const info = JSON.parse(readFileSync(join(stateDir, 'broker.json'), 'utf8'));
  assert.equal(info.pid, process.pid);
  assert.equal(info.port, second.port);
  assert.ok(isAlive(info));
  await assert.rejects(startBroker({ stateDir, port: 0 }), { code: 'unavailable', message: /already/ });
});

test('a taken default port is replaced, a taken explicit one is an error', async (t) => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  t.after(() => taken.close());
  const { port } = taken.address() as { port: number };
  const stateDir = tempDir(t);
  await assert.rejects(startBroker({ stateDir, port }), {
    code: 'unavailable',
    message: new RegExp(`${port} is taken`),
  });
  const running = await broker(t, { stateDir, port, portExplicit: false });
  assert.notEqual(running.port, port);
  assert.equal(JSON.parse(readFileSync(join(stateDir, 'broker.json'), 'utf8')).url, running.url);
  assert.equal((await new Api(running).get('/healthz')).status, 200);
});

test('impossible places are refused with a reason', async (t) => {
  const stateDir = tempDir(t);
  for (const host of ['0.0.0.0', '::', '192.168.1.1', 'example.com'])
    await assert.rejects(startBroker({ stateDir, port: 0, host }), { message: /beyond loopback/ }, host);
  const socketPath = join(stateDir, 'x'.repeat(120));
  await assert.rejects(startBroker({ stateDir, port: 0, socketPath }), { message: /Linux allows 107/ });
  const file = join(stateDir, 'file');
  writeFileSync(file, 'mine');
  await assert.rejects(startBroker({ stateDir, port: 0, socketPath: file }), { message: /is not a socket/ });
  assert.equal(readFileSync(file, 'utf8'), 'mine');
  await broker(t, { stateDir, host: '::1' }).catch((error) =>
    assert.match(String(error), /EADDRNOTAVAIL|EAFNOSUPPORT/),
  );
});

test('a damaged or newer database is refused, and the broker starts once it is moved away', async (t) => {
  const stateDir = tempDir(t);
  await (await broker(t, { stateDir })).close();
  const path = join(stateDir, 'broker.db');
  const db = new DatabaseSync(path);
  db.exec('PRAGMA user_version = 9');
  db.close();
  await assert.rejects(startBroker({ stateDir, port: 0 }), { message: /newer Gate/ });
  writeFileSync(path, 'garbage '.repeat(1000));
  await assert.rejects(startBroker({ stateDir, port: 0 }), { message: /is damaged/ });
  assert.match(readFileSync(path, 'utf8'), /^garbage/);
  const other = await broker(t, { stateDir: tempDir(t) });
  await other.close();
});
