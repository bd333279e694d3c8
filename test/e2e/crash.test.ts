/** Whatever is killed, and whenever: nothing that was acknowledged is lost or given twice, and no file is torn. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seedOf } from '../fuzz/kit.ts';
import { crashPlay } from './crash-play.ts';

const ROUNDS = 20;

test(`${ROUNDS} times kill -9 of a broker, a mount, a supervisor, whoever holds or waits, or all`, {
  timeout: 400_000,
}, async (t) => {
  const seed = seedOf(7);
  const result = await crashPlay(seed, ROUNDS);
  t.diagnostic(JSON.stringify({ ...result, wrong: undefined }));
  assert.deepEqual(result.wrong, [], `node test/e2e/crash-play.ts --seed ${seed} --rounds ${ROUNDS}`);
  assert.ok(result.sections > 50 && result.grants > 50, 'hardly anything was tried');
});
