/** A state directory whose database was damaged: refused with a reason or used, never overwritten when refused, never a hang. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { GateError } from '../../src/base/errors.ts';
import { startBroker } from '../../src/broker/index.ts';
import { Api, broker } from '../../src/broker/testing/fixture.ts';
import { below, bytes, generator, seedOf } from './kit.ts';

const ROUNDS = 60;

test('a database with bytes changed, cut or added', { timeout: 120_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'gate-fuzz-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const good = join(dir, 'good');
  mkdirSync(good);
  const first = await broker(t, { stateDir: good });
  const api = new Api({ socketPath: first.socketPath });
  for (let i = 0; i < 50; i++) await api.lock(`owner ${i}`, 'write', `file ${i}`, { lease_ms: 600_000 });
  await first.close();
  const database = readFileSync(join(good, 'broker.db'));

  const seed = seedOf(4);
  const random = generator(seed);
  let refused = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const told = `GATE_SEED=${seed}, round ${round}`;
    const stateDir = join(dir, String(round));
    mkdirSync(stateDir);
    const damaged = Buffer.from(database);
    const at = random() < 0.3 ? below(random, 100) : below(random, damaged.length);
    bytes(random, 1 + below(random, 200)).copy(damaged, at);
    const cut = random() < 0.3 ? damaged.subarray(0, below(random, damaged.length)) : damaged;
    const path = join(stateDir, 'broker.db');
    writeFileSync(path, cut);
    const running = await startBroker({ stateDir, port: 0, auth: 'off' }).catch((error: unknown) => {
      assert.ok(error instanceof GateError, `${told}: ${String((error as Error).stack)}`);
      assert.notEqual(error.message, '', told);
      return null;
    });
    if (running === null) {
      refused++;
      assert.equal(digest(readFileSync(path)), digest(cut), `${told}: a refused database was written to`);
      continue;
    }
    // What it could read it goes on with; a failure later on ends it, and is no hang.
    await new Api({ socketPath: running.socketPath }).get('/v1/locks/status?path=').catch(() => undefined);
    await running.close().catch(() => undefined);
  }
  assert.ok(refused > 0, 'no damage was ever noticed');
});

function digest(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
