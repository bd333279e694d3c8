/** The broker's time and numbers over restarts, whatever becomes of the wall clock. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { LIMITS } from '../base/limits.ts';
import { MemoryDisk, MemoryStore } from '../store/index.ts';
import { DurableCounters } from './counters.ts';
import { BrokerTime, originKey } from './time.ts';

const WALL_MS = 1_800_000_000_000;

/** A process that starts `bootMs` after the machine, which is `boot`, and reads this wall clock. */
function timeOf(boot: string, bootMs: number, wallMs: number, origins: Map<string, number>, latestMs = 0) {
  const clock = { ...systemClock, wallMs: () => wallMs, nowMs: () => 5 };
  const machine = { id: boot, monotonicMs: () => bootMs };
  const time = new BrokerTime(clock, machine, { origins, latestMs, busy: latestMs > 0 });
  origins.clear();
  origins.set(originKey(machine), time.originMs);
  return time.nowMs();
}

test('broker time goes on over restarts, whatever is done to the wall clock', () => {
  const origins = new Map<string, number>();
  assert.equal(timeOf('b1', 1000, WALL_MS, origins), WALL_MS);
  assert.equal(
    timeOf('b1', 3000, WALL_MS + 86_400_000, origins),
    WALL_MS + 2000,
    'the wall clock was set on',
  );
  assert.equal(timeOf('b1', 9000, WALL_MS - 86_400_000, origins), WALL_MS + 8000, 'it was set back');
  assert.equal(timeOf('b2', 50, WALL_MS + 86_400_000, origins, WALL_MS + 8000), WALL_MS + 8000, 'a boot');
  assert.equal(timeOf('b2', 60, WALL_MS, origins), WALL_MS + 8010);
  assert.equal(timeOf('b3', 70, WALL_MS + 86_400_000, origins), WALL_MS + 86_400_000, 'nothing is held');
});

test('tokens of a restored or removed database begin above those that were given since', async () => {
  const draw = async (disk: MemoryDisk, wallMs: number) => {
    const counters = new DurableCounters(new MemoryStore(disk), wallMs, LIMITS.counterBlock);
    await counters.refill();
    return counters.nextToken();
  };
  const disk = new MemoryDisk();
  const first = await draw(disk, WALL_MS);
  assert.ok(first > 0 && first < 2 ** 53);
  const backup = structuredClone({ head: disk.head, meta: [...disk.tables.meta] });
  const later = await draw(disk, WALL_MS + 1000);
  assert.ok(later > first);
  disk.head = backup.head;
  disk.tables.meta.clear();
  for (const [key, body] of backup.meta) disk.tables.meta.set(key, body);
  assert.ok((await draw(disk, WALL_MS + 60_000)) > later, 'restored');
  assert.ok((await draw(new MemoryDisk(), WALL_MS + 60_000)) > later, 'removed');
  assert.ok(
    (await draw(disk, WALL_MS - 86_400_000)) > later,
    'the mark counts when the wall clock was set back',
  );
  assert.ok((await draw(new MemoryDisk(), 1e15)) <= 2 ** 52, 'a wall clock far in the future');
});
