import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../base/clock.ts';
import type { GateSession } from '../client/index.ts';
import type { LockRequest } from '../view/locks.ts';
import { Lookout } from './lookout.ts';
import type { LockWait, Verdict } from './standstill.ts';

/** Time that passes when it is told to. */
class Time implements Pick<Clock, 'nowMs' | 'after'> {
  #now = 0;
  #timers: { atMs: number; run: () => void }[] = [];

  nowMs = () => this.#now;

  after(delayMs: number, run: () => void) {
    const timer = { atMs: this.#now + delayMs, run };
    this.#timers.push(timer);
    return { cancel: () => void (this.#timers = this.#timers.filter((other) => other !== timer)) };
  }

  async pass(ms: number): Promise<void> {
    for (const end = this.#now + ms; this.#now < end; ) {
      this.#now++;
      for (const timer of this.#timers.filter(({ atMs }) => atMs <= this.#now)) {
        this.#timers = this.#timers.filter((other) => other !== timer);
        timer.run();
      }
      await new Promise((done) => setImmediate(done));
    }
  }
}

const asRequest = (requestId: string) => ({ requestId, tid: 1, who: { pid: 1 } }) as LockRequest;

function rig(verdicts: () => readonly Verdict[]) {
  const clock = new Time();
  const looks: number[] = [];
  const used: Verdict[] = [];
  const lookout = new Lookout({
    clock,
    session: () => ({ id: 's', waits: async () => [] }) as unknown as GateSession,
    volume: 'v',
    look: async () => {
      looks.push(clock.nowMs());
      return verdicts();
    },
    use: (verdict) => used.push(verdict),
  });
  const queue = (requestId: string) => {
    lookout.asked(asRequest(requestId));
    lookout.queued(requestId);
  };
  return { clock, looks, used, lookout, queue };
}

test('looks at growing intervals while somebody waits, and not when nobody does', async () => {
  const { clock, looks, lookout, queue } = rig(() => []);
  queue('a');
  await clock.pass(2000);
  assert.deepEqual(looks, [250, 750, 1750]);
  lookout.ended('a');
  await clock.pass(60_000);
  assert.equal(looks.length, 3);
});

test('believes what two looks in a row find, once', async () => {
  const found: Verdict[][] = [[{ requestId: 'a', join: 'o' }], [], [{ requestId: 'a', join: 'o' }]];
  const { clock, used, queue } = rig(() => found.shift() ?? [{ requestId: 'a', join: 'o' }]);
  queue('a');
  await clock.pass(1000);
  assert.deepEqual(used, []);
  await clock.pass(300);
  assert.deepEqual(used, [{ requestId: 'a', join: 'o' }]);
});

test('where requests are queued all the time it looks all the same, but not for short waits', async () => {
  const { clock, looks, lookout, queue } = rig(() => []);
  for (let i = 0; i < 50; i++) {
    queue(`short${i}`);
    await clock.pass(20);
    lookout.ended(`short${i}`);
  }
  assert.deepEqual(looks, []);
  queue('long');
  for (let i = 50; i < 100; i++) {
    queue(`short${i}`);
    await clock.pass(20);
    lookout.ended(`short${i}`);
  }
  assert.ok(looks.length >= 2, String(looks));
});

test('what belongs to a session that is away is not looked at', async () => {
  const clock = new Time();
  const seen: LockWait[][] = [];
  const target = { path: 'f', mode: 'write', scope: 'file' };
  const blocker = { owner: 'o', state: 'waits', path: 'f', mode: 'write', sinceMs: 0 };
  const waits = [{ requestId: 'a', owner: 'p', session: 's', volume: 'v', targets: [target], ticket: 2 }].map(
    (wait) => ({
      ...wait,
      blockers: [
        { ...blocker, away: true },
        { ...blocker, owner: 'there' },
      ],
    }),
  );
  const lookout = new Lookout({
    clock,
    session: () => ({ id: 's', waits: async () => waits }) as unknown as GateSession,
    volume: 'v',
    look: async (found) => {
      seen.push([...found]);
      return [];
    },
    use: () => {},
  });
  lookout.asked(asRequest('a'));
  lookout.queued('a');
  await clock.pass(1000);
  assert.deepEqual(
    seen[0]![0]!.blockers.map(({ owner }) => owner),
    ['there'],
  );
});
