/** The suite passes natively, and a view, with and without kernel passthrough, cannot be told from the disk by it. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Gate, startGate } from '../e2e/harness.ts';
import { type Outcome, topics } from './run.ts';

const RUN = fileURLToPath(new URL('./run.ts', import.meta.url));

async function outcomes(
  gate: Gate,
  dir: string,
  beneath: string,
  pattern = '',
): Promise<Map<string, Outcome>> {
  const args = ['--disable-warning=ExperimentalWarning', RUN, '--json', dir, pattern, beneath];
  const done = await gate.run(process.execPath, args, { env: { GATE_ACTOR: 'conformance' } }).done;
  assert.ok(done.status === 0 || done.status === 1, done.err);
  const lines = done.out.trimEnd().split('\n');
  return new Map(lines.map((line) => JSON.parse(line) as Outcome).map((o) => [o.name, o]));
}

const total = Object.values(topics).reduce((sum, checks) => sum + Object.keys(checks).length, 0);

for (const passthrough of [true, false]) {
  const mode = passthrough ? 'passthrough' : 'through the view';
  test(`${mode}: every check ends as it does natively`, { timeout: 300_000 }, async (t) => {
    const gate = await startGate(t, { passthrough, mountFlags: ['--stale-writes', 'off'] });
    for (const dir of [gate.dir, gate.root]) chmodSync(dir, 0o755);
    const native = mkdtempSync('/var/tmp/gate-native-');
    t.after(() => rmSync(native, { recursive: true, force: true }));
    chmodSync(native, 0o755);
    const expected = await outcomes(gate, native, native);
    const found = await outcomes(gate, gate.mount, gate.root);
    assert.equal(expected.size, total);
    for (const [name, outcome] of expected) {
      assert.notEqual(outcome.result, 'failed', `natively: ${name}: ${outcome.detail}`);
      const { result, detail } = found.get(name)!;
      assert.equal(result, outcome.result, `${name}: ${detail}`);
    }
    await gate.idle();
  });
}

test('remembering names for long: listings end as they do natively', { timeout: 120_000 }, async (t) => {
  const mountFlags = ['--stale-writes', 'off', '--attr-valid-ms', '3600000'];
  const gate = await startGate(t, { mountFlags });
  for (const dir of [gate.dir, gate.root]) chmodSync(dir, 0o755);
  const found = await outcomes(gate, gate.mount, gate.root, 'directory');
  assert.ok(found.size >= 5);
  for (const [name, { result, detail }] of found) assert.equal(result, 'passed', `${name}: ${detail}`);
});
