/**
 * Acquire+release pairs a second of one pipelined connection to a broker of its own, everything durable; or how long the
 * next of `N` waiters for one file waits after a release; or how long a broker takes to start with `N` held locks, and what each of them costs in memory.
 *
 *     node scripts/bench-broker.ts [--pairs 200000] [--depth 512] [--durability process|power] [--tcp] [--json]
 *     node scripts/bench-broker.ts --waiters 1000 [--json]
 *     node scripts/bench-broker.ts --restart 1000000 [--json]
 *
 * The broker runs in a process of its own. `depth` pairs are on their way at a time. A start is measured from that of
 * the process to its first answer; the memory is what the heap holds more than that of a broker without locks, once
 * garbage is collected.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startBroker } from '../src/broker/index.ts';
import { readInfo, readToken } from '../src/client/endpoint.ts';
import { connect } from '../src/client/index.ts';
import { SqliteStore } from '../src/store/index.ts';

const { values } = parseArgs({
  options: {
    pairs: { type: 'string', default: '200000' },
    depth: { type: 'string', default: '512' },
    durability: { type: 'string', default: 'process' },
    tcp: { type: 'boolean', default: false },
    waiters: { type: 'string' },
    restart: { type: 'string' },
    /** The part of `--restart` that runs in a fresh process: the state directory to start with. */
    restarted: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

function print(result: object, text: string): void {
  console.log(values.json ? JSON.stringify(result) : text);
}

// ---- pairs -------------------------------------------------------------------------------------------------

type Session = Awaited<ReturnType<typeof connect>>;

/** Runs `use` with a session of a broker in a process of its own. */
async function withBroker(stateDir: string, use: (gate: Session) => Promise<void>): Promise<void> {
  const { durability } = values;
  const entry = new URL('../src/broker/testing/run.ts', import.meta.url).pathname;
  const broker = spawn(process.execPath, [entry, JSON.stringify({ stateDir, port: 0, durability })], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(broker.stdout, 'data');
    const info = readInfo(stateDir)!;
    const gate = await connect(
      values.tcp
        ? { url: info.url, token: readToken(stateDir), kind: 'bench' }
        : { socket: info.socket, kind: 'bench' },
    );
    await use(gate);
    await gate.close();
  } finally {
    broker.kill('SIGTERM');
    if (broker.exitCode === null) await once(broker, 'exit');
  }
}

async function benchPairs(gate: Session): Promise<void> {
  const pairs = Number(values.pairs);
  const depth = Number(values.depth);
  const { durability } = values;
  await runPairs(gate, Math.min(pairs, 20_000), depth);
  const start = performance.now();
  await runPairs(gate, pairs, depth);
  const seconds = (performance.now() - start) / 1000;
  const pairsPerSecond = Math.round(pairs / seconds);
  print(
    { pairs, depth, durability, seconds, pairsPerSecond },
    `${pairsPerSecond} pairs/s (${pairs} pairs, ${depth} at a time, durability ${durability})`,
  );
}

/** `count` owners wait for one file, each gives it to the next: from the sending of a release to the arrival of the grant. */
async function benchWaiters(gate: Session, count: number): Promise<void> {
  const timesMs: number[] = [];
  let sentMs = 0;
  await Promise.all(
    Array.from({ length: count + 1 }, async (_, n) => {
      const hold = await gate.acquire({ path: 'src/file.ts', owner: `bench-${n}`, waitMs: null });
      if (sentMs > 0) timesMs.push(performance.now() - sentMs);
      sentMs = performance.now();
      await gate.release(hold);
    }),
  );
  timesMs.sort((a, b) => a - b);
  const at = (part: number) => timesMs[Math.floor(part * (timesMs.length - 1))]!;
  const figures = { waiters: count, p50Ms: at(0.5), p99Ms: at(0.99) };
  print(
    figures,
    `${count} waiters: release to next grant p50 ${at(0.5).toFixed(3)} ms, p99 ${at(0.99).toFixed(3)} ms`,
  );
}

function runPairs(gate: Session, count: number, depth: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let started = 0;
    let done = 0;
    const pair = () => {
      if (started >= count) return;
      const n = started++;
      const owner = `bench-${n % depth}`;
      const path = `src/some/directory/file-${n % 5000}.ts`;
      const targets = [{ path, mode: n % 4 === 0 ? 'write' : 'read', scope: 'file' }] as const;
      const requestId = gate.newRequestId();
      const request = { op: 'acquire', requestId, owner, volume: 'bench', kind: 'handle', targets } as const;
      gate.send(request, (granted) => {
        if (!granted || 'error' in granted) return reject(new Error(JSON.stringify(granted)));
        const { lockId } = granted.ok as { lockId: string };
        gate.send({ op: 'release', lockId, owner }, (released) => {
          if (!released || 'error' in released) return reject(new Error(JSON.stringify(released)));
          if (++done === count) resolve();
          else pair();
        });
      });
    };
    for (let i = 0; i < depth; i++) pair();
  });
}

// ---- restart -----------------------------------------------------------------------------------------------

async function benchRestart(stateDir: string, locks: number): Promise<void> {
  const empty = await restartedIn(stateDir);
  fill(stateDir, locks);
  const full = await restartedIn(stateDir);
  const seconds = full.seconds;
  const bytesPerLock = Math.round((full.heapBytes - empty.heapBytes) / locks);
  const rssMiB = Math.round(full.rssBytes / 2 ** 20);
  print(
    { locks, seconds, bytesPerLock, rssMiB },
    `${locks.toLocaleString('en')} held locks: started in ${seconds.toFixed(1)} s, ${bytesPerLock} bytes each ` +
      `(resident ${rssMiB} MiB)`,
  );
}

/** Locks as 20 views would hold them: 1000 owners, 1000 directories, ids as the broker and its client make them. */
function fill(stateDir: string, locks: number): void {
  const store = new SqliteStore({ path: join(stateDir, 'broker.db') });
  const now = Date.now();
  let batch = store.batch();
  for (let i = 0; i < 20; i++) {
    const row = { secretHash: '0'.repeat(64), client: { kind: 'bench' }, startedAtMs: now, lastId: 0 };
    batch.put('session', sessionOf(i), { id: sessionOf(i), ...row });
  }
  for (let i = 0; i < locks; i++) {
    const lockId = `lk_0123456z${i.toString(36).padStart(8, '0')}`;
    batch.put('hold', lockId, {
      ...{ lockId, requestId: `req_0123456789abcdef_${i.toString(36)}`, session: sessionOf(i) },
      ...{ volume: 'vol_0123456789abcdef', owner: `agent-${i % 1000}`, kind: 'handle' },
      targets: [{ path: `src/package-${i % 1000}/lib/file-${i}.ts`, mode: 'write', scope: 'file' }],
      ...{ ticket: i + 1, token: i + 1, count: 1, grantedAtMs: now + i, coveredSinceMs: now + i },
      ...{ leaseMs: null, leaseExpiresAtMs: null, holdCapMs: null, detached: false },
    });
    if (i % 10_000 !== 9_999) continue;
    store.commit(batch);
    batch = store.batch();
  }
  store.commit(batch);
  store.close();
}

function sessionOf(n: number): string {
  return `ses_0123456789abcd${(n % 20).toString().padStart(2, '0')}`;
}

interface Restarted {
  readonly seconds: number;
  readonly heapBytes: number;
  readonly rssBytes: number;
}

async function restartedIn(stateDir: string): Promise<Restarted> {
  const child = spawn(process.execPath, ['--expose-gc', import.meta.filename, '--restarted', stateDir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  for await (const chunk of child.stdout) text += chunk;
  return JSON.parse(text) as Restarted;
}

async function restarted(stateDir: string): Promise<void> {
  const broker = await startBroker({ stateDir, port: 0 });
  await (await fetch(`${broker.url}/healthz`)).text();
  const seconds = performance.now() / 1000;
  globalThis.gc!();
  const { heapUsed: heapBytes, rss: rssBytes } = process.memoryUsage();
  console.log(JSON.stringify({ seconds, heapBytes, rssBytes }));
  await broker.close();
}

if (values.restarted !== undefined) await restarted(values.restarted);
else {
  const stateDir = mkdtempSync(join(tmpdir(), 'gate-bench-'));
  try {
    if (values.waiters !== undefined)
      await withBroker(stateDir, (gate) => benchWaiters(gate, Number(values.waiters)));
    else if (values.restart === undefined) await withBroker(stateDir, benchPairs);
    else await benchRestart(stateDir, Number(values.restart));
  } finally {
    rmSync(stateDir, { recursive: true, force: true });
  }
}
