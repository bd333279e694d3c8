/**
 * Acquire+release pairs a second of one pipelined connection to a broker of its own, everything durable.
 *
 *     node scripts/bench-broker.ts [--pairs 200000] [--depth 512] [--durability process|power] [--tcp]
 *
 * The broker runs in a process of its own. `depth` pairs are on their way at a time.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readInfo, readToken } from '../src/client/endpoint.ts';
import { connect } from '../src/client/index.ts';

const { values } = parseArgs({
  options: {
    pairs: { type: 'string', default: '200000' },
    depth: { type: 'string', default: '512' },
    durability: { type: 'string', default: 'process' },
    tcp: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const pairs = Number(values.pairs);
const depth = Number(values.depth);

const stateDir = mkdtempSync(join(tmpdir(), 'gate-bench-'));
const entry = new URL('../src/broker/testing/run.ts', import.meta.url).pathname;
const broker = spawn(
  process.execPath,
  [entry, JSON.stringify({ stateDir, port: 0, durability: values.durability })],
  {
    stdio: ['ignore', 'pipe', 'inherit'],
  },
);
try {
  await new Promise((resolve) => broker.stdout.once('data', resolve));
  const info = readInfo(stateDir)!;
  const gate = await connect(
    values.tcp
      ? { url: info.url, token: readToken(stateDir), kind: 'bench' }
      : { socket: info.socket, kind: 'bench' },
  );
  const run = (count: number) =>
    new Promise<void>((resolve, reject) => {
      let started = 0;
      let done = 0;
      const pair = () => {
        if (started >= count) return;
        const n = started++;
        const owner = `bench-${n % depth}`;
        gate.send(
          {
            op: 'acquire',
            requestId: gate.newRequestId(),
            owner,
            volume: 'bench',
            kind: 'handle',
            targets: [
              {
                path: `src/some/directory/file-${n % 5000}.ts`,
                mode: n % 4 === 0 ? 'write' : 'read',
                scope: 'file',
              },
            ],
          },
          (granted) => {
            if (!granted || 'error' in granted) return reject(new Error(JSON.stringify(granted)));
            gate.send(
              { op: 'release', lockId: (granted.ok as { lockId: string }).lockId, owner },
              (released) => {
                if (!released || 'error' in released) return reject(new Error(JSON.stringify(released)));
                if (++done === count) resolve();
                else pair();
              },
            );
          },
        );
      };
      for (let i = 0; i < depth; i++) pair();
    });
  await run(Math.min(pairs, 20_000));
  const start = performance.now();
  await run(pairs);
  const seconds = (performance.now() - start) / 1000;
  const result = {
    pairs,
    depth,
    durability: values.durability,
    seconds,
    pairsPerSecond: Math.round(pairs / seconds),
  };
  console.log(
    values.json
      ? JSON.stringify(result)
      : `${result.pairsPerSecond} pairs/s (${pairs} pairs, ${depth} at a time, durability ${values.durability})`,
  );
  await gate.close();
} finally {
  broker.kill('SIGTERM');
  await new Promise((resolve) => (broker.exitCode === null ? broker.once('exit', resolve) : resolve(null)));
  rmSync(stateDir, { recursive: true, force: true });
}
