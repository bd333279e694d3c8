/**
 * Plays seeds by hand: `node test/sim/run.ts [--seed N] [--seeds COUNT] [--trace]`. Ends with status 1 at the first that fails.
 */
import { parseArgs } from 'node:util';
import { play } from './play.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    trace: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
  },
});
const first = Number(values.seed);
let steps = 0;
let granted = 0;
let local = 0;
let failed = 0;
const start = performance.now();
for (let seed = first; seed < first + Number(values.seeds); seed++) {
  const outcome = await play(seed);
  steps += outcome.steps;
  granted += outcome.granted;
  local += outcome.localGrants;
  if (values.trace) console.log(outcome.trace.join('\n'), outcome.summary);
  if (outcome.error) {
    failed++;
    console.log(`seed ${seed}: ${values.keep ? outcome.error.message.slice(0, 300) : outcome.error.stack}`);
    if (!values.keep) {
      console.log(outcome.summary);
      break;
    }
  }
}
const seconds = (performance.now() - start) / 1000;
console.log(
  `${steps} steps, ${granted} grants (${local} by delegates), ${failed} failed, ${seconds.toFixed(1)} s, ${Math.round(steps / seconds)} steps/s`,
);
process.exitCode = failed > 0 ? 1 : 0;
