/** A full disk in the state directory: refused cleanly, nothing lost, and it goes on by itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../client/index.ts';
import { MemoryDisk, MemoryStore } from '../store/index.ts';
import { type Batch, NoRoom } from '../store/types.ts';
import { Api, broker, eventually } from './testing/fixture.ts';

class SmallStore extends MemoryStore {
  full = false;

  override commit(batch: Batch): undefined {
    if (this.full && !batch.empty) throw new NoRoom('a test');
    return super.commit(batch);
  }
}

test('while the disk is full locks are refused and sessions live; then it goes on', async (t) => {
  const disk = new MemoryDisk();
  const store = new SmallStore(disk);
  const running = await broker(t, { store, sessionTtlMs: 1000 });
  const gate = await connect({ socket: running.socketPath, kind: 'test' });
  t.after(() => gate.close());
  let lost = false;
  gate.onLost = () => {
    lost = true;
  };
  const hold = await gate.acquire({ owner: 'ann', path: 'f' });
  const other = await gate.acquire({ owner: 'ann', path: 'g' });
  store.full = true;
  let released = false;
  // The first that is to be stored finds that there is no room.
  const releasing = gate.release(hold).then(() => {
    released = true;
  });
  const api = new Api(running);
  await eventually(
    'it is refused',
    async () => (await api.acquire('eve', 'write', 'h', { timeout_ms: 0 })).status === 503,
  );
  await assert.rejects(gate.acquire({ owner: 'bob', path: 'h' }), {
    code: 'unavailable',
    message: /no room/,
  });
  const endsMs = gate.authorityEndsMs();
  // Three times its time to live.
  await eventually('it is renewed', () => gate.authorityEndsMs() >= endsMs + 2000);
  assert.deepEqual([lost, released], [false, false], 'what is not stored is not acknowledged');
  store.full = false;
  await releasing;
  await gate.release(await gate.acquire({ owner: 'bob', path: 'f' }));
  assert.equal((await gate.status('g')).holds[0]?.lockId, other.lockId);
  const held = [...new MemoryStore(disk).rows('hold')].map(([lockId]) => lockId);
  assert.deepEqual(held, [other.lockId]);
});
