/**
 * Plays seeds: `node test/sim/run.ts [--seed FIRST] [--seeds COUNT] [--minutes N] [--mutant NAME] [--trace] [--all]`. Stops at the first
 * that fails, with status 1 (`--all`: goes on). The last line is a JSON summary.
 */
import { parseArgs } from 'node:util';
import { MUTANTS } from './mutants.ts';
import { plant } from './mutate.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string' },
    minutes: { type: 'string' },
    mutant: { type: 'string' },
    trace: { type: 'boolean', default: false },
    all: { type: 'boolean', default: false },
  },
});
if (values.mutant !== undefined) {
  const mutant = MUTANTS.find(({ name }) => name === values.mutant);
  if (mutant === undefined) throw new Error(`There is no mutant "${values.mutant}".`);
  plant(mutant);
}
// After the mutant is planted.
const { play } = await import('./play.ts');

const first = Number(values.seed);
const endMs =
  values.minutes === undefined
    ? Number.POSITIVE_INFINITY
    : performance.now() + Number(values.minutes) * 60_000;
const count =
  values.seeds === undefined
    ? values.minutes === undefined
      ? 1
      : Number.POSITIVE_INFINITY
    : Number(values.seeds);
const startMs = performance.now();
const sum = {
  seeds: 0,
  failed: [] as number[],
  steps: 0,
  grants: 0,
  byDelegates: 0,
  waits: 0,
  checks: 0,
};
for (let seed = first; seed < first + count && performance.now() < endMs; seed++) {
  const outcome = await play(seed);
  sum.seeds++;
  sum.steps += outcome.steps;
  sum.grants += outcome.granted;
  sum.byDelegates += outcome.localGrants;
  sum.waits += outcome.waited;
  sum.checks += outcome.checks;
  if (values.trace) console.log(outcome.trace.join('\n'));
  if (outcome.error === null) continue;
  sum.failed.push(seed);
  console.log(`seed ${seed}: ${values.all ? outcome.error.message.slice(0, 400) : outcome.error.stack}`);
  console.log(`again: node test/sim/run.ts --seed ${seed} --trace`);
  if (values.all) continue;
  console.log(outcome.summary);
  break;
}
console.log(JSON.stringify({ ...sum, seconds: Math.round((performance.now() - startMs) / 100) / 10 }));
process.exitCode = sum.failed.length > 0 ? 1 : 0;
