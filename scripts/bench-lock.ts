/** Measures the lock core alone: `node scripts/bench-lock.ts [holds]`. Best with `--expose-gc` for the memory. */
import { LockCore } from '../src/lock/index.ts';
import type { AcquireRequest, Counters } from '../src/lock/types.ts';

const HOLDS = Number(process.argv[2] ?? 1_000_000);
const PAIRS = 1_000_000;

function counters(): Counters {
  let n = 0;
  return { nextTicket: () => ++n, nextToken: () => ++n, newLockId: () => `lock_${++n}` };
}

function request(n: number, path: string, mode: 'read' | 'write', owner = `u/${n}`): AcquireRequest {
  return {
    ...{ requestId: `r${n}`, session: 's', volume: 'v', owner, kind: 'handle' },
    ...{ targets: [{ path, mode, scope: 'file' }], waitMs: null, leaseMs: null, holdCapMs: null },
  } as AcquireRequest;
}

function pairs(): void {
  const core = new LockCore({ counters: counters() });
  let start = 0;
  for (let i = -100_000; i < PAIRS; i++) {
    if (i === 0) start = performance.now();
    const one = request(i, `src/dir${i & 15}/file${i & 1023}.ts`, 'write', 'u/ann');
    const [granted] = core.apply({ type: 'acquire', request: one }, i);
    if (granted?.type !== 'granted') throw new Error('not granted');
    core.apply({ type: 'release', lockId: granted.hold.lockId, owner: one.owner }, i);
  }
  const seconds = (performance.now() - start) / 1000;
  console.log(`uncontended acquire+release: ${Math.round(PAIRS / seconds).toLocaleString('en')} pairs/s`);
}

function memory(): void {
  const heap = () => {
    (globalThis as { gc?: () => void }).gc?.();
    return process.memoryUsage().heapUsed;
  };
  const core = new LockCore({ counters: counters() });
  const before = heap();
  for (let i = 0; i < HOLDS; i++)
    core.apply(
      { type: 'acquire', request: request(i, `src/d${i % 1000}/file${i}.ts`, 'write', `u/${i % 1000}`) },
      0,
    );
  const bytes = (heap() - before) / core.stats().holds;
  console.log(
    `${core.stats().holds.toLocaleString('en')} holds: ${Math.round(bytes)} bytes each, their strings included`,
  );
}

function chain(count: number): void {
  const core = new LockCore({ counters: counters() });
  for (let i = 0; i <= count; i++) core.apply({ type: 'acquire', request: request(i, 'a/f', 'write') }, 0);
  const times: number[] = [];
  let [hold] = core.holdsOf('s');
  while (hold !== undefined) {
    const start = performance.now();
    const effects = core.apply({ type: 'release', lockId: hold.lockId, owner: hold.owner }, 0);
    times.push(performance.now() - start);
    hold = effects.flatMap((effect) => (effect.type === 'granted' ? [effect.hold] : []))[0];
  }
  times.sort((a, b) => a - b);
  const at = (part: number) => ((times[Math.floor(times.length * part)] ?? 0) * 1000).toFixed(1);
  console.log(`release to next grant, ${count} writers waiting: p50 ${at(0.5)} µs, p99 ${at(0.99)} µs`);
}

pairs();
chain(1000);
chain(10_000);
memory();
