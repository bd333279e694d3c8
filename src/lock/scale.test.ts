import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LockCore } from './core.ts';
import { Bench, on } from './test-kit.test-helper.ts';

const WAITERS = 10_000;
const HOLDS = 200_000;

/** Waiters examined and index entries visited by `run`. */
function work(core: LockCore, run: () => void): { examined: number; visited: number } {
  const before = core.stats();
  run();
  const after = core.stats();
  return { examined: after.examined - before.examined, visited: after.visited - before.visited };
}

test('with 10,000 writers waiting a release looks at a handful of them', () => {
  const b = new Bench();
  for (let i = 0; i <= WAITERS; i++) b.ask(`w${i}`, on('d/f'), { requestId: `r${i}` });
  for (let i = 0; i < 100; i++) {
    const { examined, visited } = work(b.core, () => b.release(`w${i}`));
    assert.ok(examined <= 4 && visited <= 40, `examined ${examined}, visited ${visited}`);
  }
});

test('leaving the middle of a queue of 10,000 looks at a handful of them', () => {
  const b = new Bench();
  for (let i = 0; i <= WAITERS; i++)
    b.ask(`w${i}`, on('f', i % 2 === 0 ? 'write' : 'read'), { requestId: `r${i}` });
  for (let i = 5000; i < 5200; i++) {
    const { examined } = work(b.core, () => b.do({ type: 'cancel', requestId: `r${i}`, session: 's' }));
    assert.ok(examined <= 300, `examined ${examined}`);
  }
});

test('10,000 readers behind a writer are granted together, each looked at once or twice', () => {
  const b = new Bench();
  b.ask('ann', on('f'));
  for (let i = 0; i < WAITERS; i++) b.ask(`r${i}`, on('f', 'read'));
  const { examined } = work(b.core, () => assert.equal(b.release('ann').length, WAITERS + 1));
  assert.ok(examined <= 2 * WAITERS);
});

test('joining a queue of 10,000 while holding something does not walk the queue', () => {
  const b = new Bench();
  let most = 0;
  for (let i = 0; i < WAITERS; i++) {
    b.ask(`w${i}`, on(`own/${i}`));
    most = Math.max(most, work(b.core, () => b.ask(`w${i}`, on('f'))).visited);
  }
  assert.ok(most <= 1000, `visited ${most}`);
});

test('a deadlock at the end of a queue of 10,000 is found in one walk along it', () => {
  const b = new Bench();
  b.ask('ann', on('g'));
  for (let i = 0; i < WAITERS; i++) b.ask(`w${i}`, on('f'));
  b.ask('w0', on('g'));
  const { visited } = work(b.core, () => assert.deepEqual(b.ask('ann', on('f')), ['ann deadlock']));
  assert.ok(visited <= 20 * WAITERS, `visited ${visited}`);
});

test('among 200,000 held locks nothing costs more for their number', () => {
  const b = new Bench();
  for (let i = 0; i < HOLDS; i++) b.ask(`o${i % 1000}`, on(`d${i % 100}/f${i}`, 'read'));
  const cheap = (what: string, run: () => void) => {
    const { visited } = work(b.core, run);
    assert.ok(visited <= 200, `${what} visited ${visited}`);
  };
  cheap('a file', () => b.ask('ann', on('d1/new')));
  cheap('a tree write that waits', () => b.ask('bob', on('d2', 'write', 'tree'), { requestId: 'tree' }));
  cheap('a tree read', () =>
    assert.deepEqual(b.ask('cat', on('d3', 'read', 'tree')), [`cat has L${HOLDS + 2}`]),
  );
  cheap('a directory rename past open readers', () =>
    assert.deepEqual(b.ask('dan', on('d4', 'replace', 'tree')), [`dan has L${HOLDS + 3}`]),
  );
  cheap('a release', () => b.do({ type: 'release', lockId: 'L2', owner: 'o1' }));
  cheap('a cancel', () => b.do({ type: 'cancel', requestId: 'tree', session: 's' }));
});
