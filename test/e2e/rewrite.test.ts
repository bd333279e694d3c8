/** A crash after `echo text > FILE` must leave the old content or the new, as far as the disk below sees to it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { test } from 'node:test';
import { startGate } from './harness.ts';

/**
 * Rewrites a file in `dir` and says whether its new content goes on waiting for its place on the disk (delayed allocation). Without
 * passthrough the file below is closed by the view, a moment after close(2) has returned: so it is looked at for a while.
 */
const rewrite = (dir: string, below: string) =>
  `set -e; seq 10000 > ${dir}/f; sync -f ${dir}/f; seq 5 20000 > ${dir}/f
   for i in $(seq 100); do found=$(filefrag -v ${below}/f | grep -c delalloc || true); [ "$found" = 0 ] && break; sleep 0.02; done; echo $found`;

for (const passthrough of [true, false])
  test(`a file that is cut and rewritten is put on the disk at close, as natively (${passthrough ? 'passthrough' : 'through the view'})`, async (t) => {
    if (spawnSync('sh', ['-c', 'command -v filefrag']).status !== 0)
      return t.skip('filefrag (e2fsprogs) is not installed');
    const gate = await startGate(t, { passthrough });
    const beside = `${gate.dir}/beside`;
    mkdirSync(beside);
    const native = await gate.sh(rewrite(beside, beside)).done;
    assert.equal(native.status, 0, native.err);
    if (native.out !== '0\n') return t.skip('the disk below does not do so itself');
    const view = await gate.sh(rewrite(gate.mount, gate.root)).done;
    assert.deepEqual([view.out, view.status], [native.out, native.status], view.err);
  });
