import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TimerQueue } from './timers.ts';

const nothing = () => assert.fail('a timer threw');

test('timers run when due, in order, and not when cancelled', () => {
  let now = 0;
  const queue = new TimerQueue(() => now);
  const ran: string[] = [];
  assert.equal(queue.sleepMs(), -1);
  queue.set(10, () => ran.push('b'));
  const cancelled = queue.set(5, () => ran.push('never'));
  queue.set(10, () => ran.push('c'));
  queue.set(2.5, () => ran.push('a'));
  assert.equal(queue.sleepMs(), 3);
  cancelled.cancel();
  cancelled.cancel();
  now = 3;
  assert.equal(queue.runDue(nothing), 1);
  now = 10;
  assert.equal(queue.sleepMs(), 0);
  assert.equal(queue.runDue(nothing), 2);
  assert.deepEqual(ran, ['a', 'b', 'c']);
  assert.equal(queue.size, 0);
});

test('a timer that sets itself again does not starve the rest', () => {
  const queue = new TimerQueue(() => 0);
  const again = (): void => void queue.set(0, again);
  again();
  assert.equal(queue.runDue(nothing), 1);
  assert.equal(queue.size, 1);
});

test('a timer that throws is reported', () => {
  const queue = new TimerQueue(() => 0);
  const errors: unknown[] = [];
  queue.set(0, () => {
    throw new Error('x');
  });
  assert.equal(
    queue.runDue((error) => errors.push(error)),
    1,
  );
  assert.equal(errors.length, 1);
});

test('many timers, some cancelled, against a sorted list', () => {
  let now = 0;
  const queue = new TimerQueue(() => now);
  const ran: number[] = [];
  const expected: number[] = [];
  let state = 7;
  for (let i = 0; i < 5000; i++) {
    state = (state * 48_271) % 2_147_483_647;
    const due = state % 1000;
    const timer = queue.set(due, () => ran.push(due));
    if (state % 3 === 0) timer.cancel();
    else expected.push(due);
  }
  for (now = 0; now <= 1006; now += 7) queue.runDue(nothing);
  assert.deepEqual(
    ran,
    expected.sort((a, b) => a - b),
  );
});
