import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ViewClock } from './actors.ts';
import { awaitThread, COME_BACK_MS, COME_BACK_MS_MAX, KeptGrants } from './kept.ts';
import { Grant, type LockPort } from './locks.ts';

/** Time passes only by `pass`. */
class Clock implements ViewClock {
  #now = 0;
  #due: { at: number; run: () => void }[] = [];

  nowMs(): number {
    return this.#now;
  }

  after(delayMs: number, run: () => void): { cancel(): void } {
    const timer = { at: this.#now + delayMs, run };
    this.#due.push(timer);
    return { cancel: () => (this.#due = this.#due.filter((one) => one !== timer)) };
  }

  pass(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const next = this.#due.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#due = this.#due.filter((one) => one !== next);
      this.#now = next.at;
      next.run();
    }
    this.#now = end;
  }
}

function rig(isOnItsWay: (tid: number) => boolean) {
  const clock = new Clock();
  const released: string[] = [];
  const port = { release: (lockId: string) => released.push(lockId) } as unknown as LockPort;
  const kept = new KeptGrants(clock, isOnItsWay);
  kept.keep(7, 'f', new Grant(port, 'lock', 'o', []));
  return { clock, released, kept };
}

test('a grant is kept for a second, and longer for a thread that is on its way, but not for ever', () => {
  const gone = rig(() => false);
  gone.clock.pass(COME_BACK_MS - 1);
  assert.deepEqual(gone.released, []);
  gone.clock.pass(1);
  assert.deepEqual(gone.released, ['lock']);

  let runs = true;
  const starved = rig((tid) => tid === 7 && runs);
  starved.clock.pass(10 * COME_BACK_MS);
  assert.deepEqual(starved.released, []);
  runs = false;
  starved.clock.pass(COME_BACK_MS);
  assert.deepEqual(starved.released, ['lock']);

  const endless = rig(() => true);
  endless.clock.pass(COME_BACK_MS_MAX + COME_BACK_MS);
  assert.deepEqual(endless.released, ['lock']);
});

test('one that is taken up in time is not given back', () => {
  const { clock, released, kept } = rig(() => true);
  clock.pass(5 * COME_BACK_MS);
  assert.notEqual(kept.take(7, 'f'), null);
  clock.pass(2 * COME_BACK_MS_MAX);
  assert.deepEqual(released, []);
});

test('waiting for a thread can be ended while it is prolonged', () => {
  const clock = new Clock();
  const what: { timer: { cancel(): void } | null } = { timer: null };
  let late = false;
  awaitThread(
    clock,
    () => true,
    what,
    () => (late = true),
  );
  clock.pass(3 * COME_BACK_MS);
  what.timer!.cancel();
  clock.pass(2 * COME_BACK_MS_MAX);
  assert.equal(late, false);
});
