/** Unclean paths: what a hold leaves behind that did not end by its holder's own release. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { connect, type GateSession, type Push } from '../client/index.ts';
import { MemoryDisk, MemoryStore, SqliteStore } from '../store/index.ts';
import { Api, broker, brokerProcess, eventually, tempDir } from './testing/fixture.ts';
import { DEFAULT_VOLUME, type Delegated, type UncleanPath } from './wire.ts';

const TTL_MS = 400;
const V = 'v';

async function session(t: TestContext, socket: string, kind: string): Promise<GateSession> {
  const opened = await connect({ socket, kind });
  t.after(() => opened.close());
  return opened;
}

/** Takes a path and gives it back; what was said to be unclean there. */
async function look(
  gate: GateSession,
  path: string,
  mode: 'read' | 'write' = 'write',
): Promise<UncleanPath[]> {
  const hold = await gate.acquire({ owner: 'looker', volume: V, path, mode, kind: 'handle' });
  await gate.release(hold);
  return [...(hold.unclean ?? [])];
}

const brief = (paths: readonly UncleanPath[]) =>
  paths.map(({ path, scope, why, owner }) => [path, scope, why, owner]);

function delegate(gate: GateSession): Promise<Delegated> {
  return new Promise((resolve, reject) =>
    gate.send({ op: 'delegate', volume: V }, (answer) => {
      if (answer && 'ok' in answer) resolve(answer.ok as Delegated);
      else reject(new Error(JSON.stringify(answer)));
    }),
  );
}

test('a hold that was broken, by force, cap or loss of its session, leaves its path unclean; a release does not', async (t) => {
  const { socketPath } = await broker(t, { sessionTtlMs: TTL_MS, maxHoldWriteMs: 60 });
  const gate = await session(t, socketPath, 'a');
  const take = (path: string, mode: 'read' | 'write' | 'replace' = 'write', volume = V) =>
    gate.acquire({ owner: 'w', volume, path, mode, kind: 'handle' });
  await gate.release(await take('released'));
  for (const path of ['forced', 'read', 'replace'])
    await gate.break((await take(path, path === 'forced' ? 'write' : (path as 'read'))).lockId);
  await gate.break((await take('elsewhere', 'write', DEFAULT_VOLUME)).lockId);
  await take('capped');
  assert.deepEqual(brief(await look(gate, 'capped')), [['capped', 'file', 'cap', 'w']]);
  assert.deepEqual(brief(await look(gate, 'forced', 'read')), [['forced', 'file', 'forced', 'w']]);
  for (const path of ['released', 'read', 'replace']) assert.deepEqual(await look(gate, path), []);

  const short = await connect({ socket: socketPath, kind: 'b' });
  await short.acquire({ owner: 'w2', volume: V, path: 'lost', kind: 'handle' });
  await new Promise((resolve) => short.send({ op: 'end', unclean: true }, resolve));
  const [record] = await look(gate, 'lost');
  assert.deepEqual(brief([record!]), [['lost', 'file', 'session_lost', 'w2']]);
  const tree = await gate.acquire({ owner: 't', volume: V, path: '', scope: 'tree', mode: 'replace' });
  assert.deepEqual(new Set(tree.unclean?.map(({ path }) => path)), new Set(['capped', 'forced', 'lost']));
  await gate.release(tree);

  await new Promise((resolve) =>
    gate.send({ op: 'clean', volume: V, ids: [record!.id, 'unknown'] }, resolve),
  );
  assert.deepEqual(await look(gate, 'lost'), []);
});

test('records survive a restart of the broker, and HTTP tells of them', async (t) => {
  const store = new MemoryDisk();
  const first = await broker(t, { store: new MemoryStore(store) });
  const gate = await connect({ socket: first.socketPath, kind: 'a' });
  await gate.break((await gate.acquire({ owner: 'w', volume: V, path: 'f', kind: 'handle' })).lockId);
  await gate.close();
  await first.close();
  const second = await broker(t, { store: new MemoryStore(store) });
  const { json } = await new Api({ url: second.url }).acquire('h', 'read', 'f', { volume: V });
  assert.equal(json.status, 'granted');
  assert.deepEqual([json.unclean.length, json.unclean[0].path, json.unclean[0].why], [1, 'f', 'forced']);
});

test('a dead delegate leaves its whole volume unclean, in one record that stands for all before it', async (t) => {
  const { socketPath } = await broker(t, { sessionTtlMs: TTL_MS });
  const gate = await session(t, socketPath, 'other');
  await gate.break((await gate.acquire({ owner: 'w', volume: V, path: 'old', kind: 'handle' })).lockId);
  const view = await connect({ socket: socketPath, kind: 'mount' });
  const { unclean } = await delegate(view);
  assert.deepEqual(brief(unclean ?? []), [['old', 'file', 'forced', 'w']]);
  const pushed: Push[] = [];
  view.onPush = (push) => pushed.push(push);
  await view.acquire({ owner: 'x', volume: V, path: 'mine', kind: 'handle' });
  await gate.break((await view.acquire({ owner: 'w', volume: V, path: 'other', kind: 'handle' })).lockId);
  await eventually('the delegate is told', () =>
    pushed.some((push) => push.push === 'unclean' && push.paths[0]?.path === 'other'),
  );
  await new Promise((resolve) => view.send({ op: 'end', unclean: true }, resolve));
  assert.deepEqual(brief(await look(gate, 'anything')), [['', 'tree', 'session_lost', '']]);
  assert.deepEqual(brief(await look(gate, 'mine')), [['', 'tree', 'session_lost', '']]);
});

test('a view that ends in order leaves nothing unclean', async (t) => {
  const { socketPath } = await broker(t, { sessionTtlMs: TTL_MS });
  const gate = await session(t, socketPath, 'other');
  const orderly = await connect({ socket: socketPath, kind: 'mount' });
  await delegate(orderly);
  await orderly.close();
  assert.deepEqual(await look(gate, 'f'), []);
});

test('too many records of a volume become one', async (t) => {
  const { socketPath } = await broker(t, { limits: { uncleanPaths: 3 } });
  const gate = await session(t, socketPath, 'a');
  for (let i = 0; i < 4; i++)
    await gate.break((await gate.acquire({ owner: 'w', volume: V, path: `f${i}`, kind: 'handle' })).lockId);
  assert.deepEqual(brief(await look(gate, 'f0')), [['', 'tree', 'forced', '']]);
});

test('a hold that only a delegate knows of can be broken', async (t) => {
  const { socketPath, url } = await broker(t);
  const view = await session(t, socketPath, 'mount');
  const { epoch } = await delegate(view);
  const hold = {
    lockId: `${epoch}.0`,
    requestId: 'r',
    session: view.id,
    volume: V,
    owner: 'x',
    kind: 'handle' as const,
    targets: [{ path: 'f', mode: 'write' as const, scope: 'file' as const }],
    ticket: 1,
    token: 1,
    count: 1,
    grantedAtMs: 0,
    coveredSinceMs: 0,
    leaseMs: null,
    leaseExpiresAtMs: null,
    holdCapMs: null,
    detached: false,
  };
  const lost: string[] = [];
  view.onHoldLost = (lockId) => lost.push(lockId);
  view.onPush = (push) => {
    if (push.push === 'report') view.send({ op: 'reported', report: push.report, holds: [hold] }, () => {});
    if (push.push === 'recall')
      view.send({ op: 'returned', volume: V, epoch, regions: [push.region], holds: [hold] }, () => {});
  };
  const { status } = await new Api({ url }).post('/v1/locks/break', { lock_id: hold.lockId });
  assert.equal(status, 200);
  await eventually('the view is told', () => lost.includes(hold.lockId));
  const gate = await session(t, socketPath, 'other');
  assert.deepEqual(brief(await look(gate, 'f')), [['f', 'file', 'forced', 'x']]);
  await assert.rejects(gate.break(hold.lockId), { code: 'not_found' });
});

test('a database of the schema before is brought up to date', async (t) => {
  const path = join(tempDir(t), 'broker.db');
  new SqliteStore({ path }).close();
  const old = new DatabaseSync(path);
  old.exec('DROP TABLE unclean; PRAGMA user_version = 1');
  old.close();
  const store = new SqliteStore({ path });
  assert.deepEqual([...store.rows('unclean')], []);
  store.close();
  const now = new DatabaseSync(path);
  assert.equal(Object.values(now.prepare('PRAGMA user_version').get()!)[0], 2);
  now.close();
});

test('records survive kill -9 of the broker', async (t) => {
  const stateDir = tempDir(t);
  const socket = join(stateDir, 'broker.sock');
  const first = await brokerProcess(t, { stateDir });
  const gate = await session(t, socket, 'a');
  await gate.break((await gate.acquire({ owner: 'w', volume: V, path: 'f', kind: 'handle' })).lockId);
  await first.kill();
  await brokerProcess(t, { stateDir });
  assert.deepEqual(brief(await look(gate, 'f')), [['f', 'file', 'forced', 'w']]);
});
