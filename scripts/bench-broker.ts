/**
 * Acquire and release over one connection, pipelined: `node bench-broker.ts SOCKET BUDGET_MS`. A client, in a process of its
 * own. Prints one JSON object: pairs a second.
 */
import { connect } from '../src/client/index.ts';

const [socket = '', budget = '1000'] = process.argv.slice(2);
const PIPELINED = 256;

const session = await connect({ socket, kind: 'sdk' });
let pairs = 0;
const end = performance.now() + Number(budget);
const start = performance.now();
await Promise.all(
  Array.from({ length: PIPELINED }, async (_, lane) => {
    for (let i = 0; performance.now() < end; i++) {
      const hold = await session.acquire({
        owner: `bench-${lane}`,
        volume: 'bench',
        path: `lane-${lane}/${i % 64}`,
      });
      await session.release(hold);
      pairs++;
    }
  }),
);
console.log(JSON.stringify({ pairsPerSecond: Math.round((pairs * 1000) / (performance.now() - start)) }));
await session.close();
