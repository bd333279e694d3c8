/**
 * Plays of the whole lock system with faults (play.ts), and the planted bugs that the checker must catch (mutants.ts).
 * GATE_SEED=N begins with another seed; GATE_SEEDS=N plays so many.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { MUTANTS } from './mutants.ts';
import { mutated } from './mutate.ts';
import { play } from './play.ts';

const RUN = new URL('./run.ts', import.meta.url).pathname;
const SEEDS = Number(process.env.GATE_SEEDS ?? 2000);
/** Plays in which a planted bug must show. */
const MUTANT_SEEDS = 400;

test(`${SEEDS} plays: nobody beside another, nobody overtaken, nobody forgotten, no token twice`, async (t) => {
  const first = Number(process.env.GATE_SEED ?? 1);
  let steps = 0;
  for (let seed = first; seed < first + SEEDS; seed++) {
    const { error, steps: taken } = await play(seed);
    steps += taken;
    if (error !== null)
      assert.fail(`seed ${seed}: ${error.stack}\nagain: node test/sim/run.ts --seed ${seed} --trace`);
  }
  t.diagnostic(`${steps} steps`);
});

test('the same seed is the same play', async () => {
  const [a, b] = [await play(7), await play(7)];
  assert.deepEqual(
    [a.steps, a.granted, a.localGrants, a.waited, a.checks],
    [b.steps, b.granted, b.localGrants, b.waited, b.checks],
  );
});

test('every planted bug has its place in the source', () => {
  for (const mutant of MUTANTS) mutated(mutant);
  assert.ok(MUTANTS.length >= 15);
});

/** Plays with a planted bug until a play fails; the seed, or undefined. */
async function failing(
  name: string,
  first: number,
  end: number,
  after: (kill: () => void) => void,
): Promise<number | undefined> {
  const seeds = ['--seed', String(first), '--seeds', String(end - first)];
  const args = ['--disable-warning=ExperimentalWarning', RUN, '--mutant', name, ...seeds];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  after(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.on('data', (data) => {
    said += data;
  });
  await new Promise((resolve) => child.on('close', resolve));
  const seed = /^seed (\d+)/m.exec(said)?.[1];
  return seed === undefined ? undefined : Number(seed);
}

for (const { name, seed: rare = 1 } of MUTANTS)
  test(`the checker catches: ${name}`, async (t) => {
    for (let first = rare; ; first++) {
      const seed = await failing(name, first, rare + MUTANT_SEEDS, (kill) => t.after(kill));
      assert.ok(seed !== undefined, `it was not caught in ${MUTANT_SEEDS} plays`);
      first = seed;
      // Without the bug the same play must be in order.
      if ((await play(seed)).error !== null) continue;
      t.diagnostic(`node test/sim/run.ts --seed ${seed} --mutant '${name}'`);
      return;
    }
  });
