import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { GateError } from '../base/errors.ts';
import { JOINED_MAX } from './joined.ts';
import { Bench, on } from './test-kit.test-helper.ts';

const code = (expected: string, field?: string) => (error: unknown) =>
  error instanceof GateError &&
  error.code === expected &&
  (field === undefined || error.message.includes(field));

describe('one writer or many readers, in order of arrival', () => {
  test('readers share, a writer waits for all of them', () => {
    const b = new Bench();
    assert.deepEqual(b.ask('ann', on('f', 'read')), ['ann has L1']);
    assert.deepEqual(b.ask('bob', on('f', 'read')), ['bob has L2']);
    assert.deepEqual(b.ask('cat', on('f')), ['cat waits']);
    assert.deepEqual(b.release('ann'), ['ann released']);
    assert.deepEqual(b.release('bob'), ['bob released', 'cat has L3']);
  });

  test('a reader waits behind a writer that came first', () => {
    const b = new Bench();
    b.ask('ann', on('f', 'read'));
    b.ask('bob', on('f'));
    assert.deepEqual(b.ask('cat', on('f', 'read')), ['cat waits']);
    assert.deepEqual(b.release('ann'), ['ann released', 'bob has L2']);
    assert.deepEqual(b.release('bob'), ['bob released', 'cat has L3']);
  });

  test('a request gets all its targets at once or none, and still keeps its place in each queue', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    assert.deepEqual(b.ask('bob', [on('f'), on('g')]), ['bob waits']);
    assert.deepEqual(b.ask('cat', on('g')), ['cat waits']);
    assert.deepEqual(b.release('ann'), ['ann released', 'bob has L2']);
    assert.deepEqual(b.release('bob'), ['bob released', 'cat has L3']);
  });

  test('a waiter that leaves the middle of the queue lets the next ones through', () => {
    const b = new Bench();
    b.ask('ann', on('f', 'read'));
    b.ask('bob', on('f'), { requestId: 'w' });
    b.ask('cat', on('f', 'read'));
    assert.deepEqual(b.do({ type: 'cancel', requestId: 'w', session: 's' }), ['bob cancelled', 'cat has L2']);
  });
});

describe('trees and replaces', () => {
  test('a tree write stands in the way of everything below it and of nothing beside it', () => {
    const b = new Bench();
    b.ask('ann', on('d', 'write', 'tree'));
    assert.deepEqual(b.ask('bob', on('d/e/f', 'read')), ['bob waits']);
    assert.deepEqual(b.ask('cat', on('de', 'write')), ['cat has L2']);
    assert.deepEqual(b.release('ann'), ['ann released', 'bob has L3']);
  });

  test('a tree request waits for files below it, and files that come later wait for it', () => {
    const b = new Bench();
    b.ask('ann', on('d/e/f', 'read'));
    assert.deepEqual(b.ask('bob', on('', 'write', 'tree')), ['bob waits']);
    assert.deepEqual(b.ask('cat', on('d/x', 'read')), ['cat waits']);
    assert.deepEqual(b.release('ann'), ['ann released', 'bob has L2']);
  });

  test('a replace and an open handle that reads never wait for each other, name reads and writers do', () => {
    const b = new Bench();
    b.ask('ann', on('f', 'read'));
    assert.deepEqual(b.ask('bob', on('f', 'replace')), ['bob has L2']);
    assert.deepEqual(b.ask('cat', on('f', 'read')), ['cat has L3']);
    assert.deepEqual(b.ask('dan', on('f', 'read'), { kind: 'name' }), ['dan waits']);
    assert.deepEqual(b.ask('eve', on('f', 'replace')), ['eve waits']);
  });
});

describe('an owner does not wait for itself', () => {
  test('the same again is the same lock, counted', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    b.ask('bob', on('f'));
    assert.deepEqual(b.ask('ann', on('f', 'read')), ['ann has 2 of L1']);
    assert.deepEqual(b.release('ann'), ['ann gave back']);
    assert.deepEqual(b.release('ann'), ['ann released', 'bob has L2']);
  });

  test('its own holds are found on a crowded path, among its many others, and only while they are there', () => {
    const b = new Bench();
    for (let i = 0; i < 20; i++) b.ask(`r${i}`, on('d', 'read', 'tree'));
    for (let i = 0; i < 20; i++) b.ask('ann', on(`own/${i}`));
    assert.deepEqual(b.ask('ann', on('d', 'read', 'tree')), ['ann has L41']);
    b.ask('bob', on('d/f'));
    assert.deepEqual(b.ask('ann', on('d/f', 'read')), ['ann has 2 of L41']);
    assert.deepEqual(b.ask('cat', on('d/f', 'read')), ['cat waits']);
    b.do({ type: 'break', lockId: 'L41' });
    assert.deepEqual(b.ask('ann', on('d/f', 'read')), ['ann waits']);
  });

  test('a tree over its own holds passes who could not have gone before them', () => {
    const b = new Bench();
    for (let i = 0; i < 20; i++) b.ask('ann', on(`d/${i}`, 'read'));
    b.ask('bob', on('d/7'));
    assert.deepEqual(b.ask('ann', on('d', 'read', 'tree')), ['ann has L21']);
  });

  test('what several holds cover together is granted at once, as a lock of its own', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    b.ask('ann', on('g'));
    b.ask('bob', [on('f'), on('g')]);
    assert.deepEqual(b.ask('ann', [on('f'), on('g')]), ['ann has L3']);
  });

  test('an upgrade waits for other readers but not for a writer that queued behind it', () => {
    const b = new Bench();
    b.ask('ann', on('f', 'read'));
    b.ask('bob', on('f', 'read'));
    b.ask('cat', on('f'));
    assert.deepEqual(b.ask('ann', on('f')), ['ann waits']);
    assert.deepEqual(b.release('bob'), ['bob released', 'ann has L3']);
  });

  test('the hold cap runs from the start of unbroken coverage, so re-reads do not starve a writer', () => {
    const b = new Bench();
    const cap = { holdCapMs: 60 };
    b.ask('ann', on('f', 'read'), cap);
    b.now = 50;
    b.ask('ann', on('f', 'read'), { ...cap, kind: 'name' });
    b.release('ann');
    assert.equal(b.lockOf('ann').coveredSinceMs, 0);
    b.ask('bob', on('f'));
    assert.equal(b.core.nextDeadlineMs(), 60);
    assert.deepEqual(b.tick(60), ['ann cap', 'bob has L3']);
  });
});

describe('deadlock', () => {
  test('of two readers that both ask to write the second is refused', () => {
    const b = new Bench();
    b.ask('ann', on('f', 'read'));
    b.ask('bob', on('f', 'read'));
    assert.deepEqual(b.ask('ann', on('f')), ['ann waits']);
    assert.deepEqual(b.ask('bob', on('f')), ['bob deadlock']);
  });

  test('a cycle through somebody who only waits is found too', () => {
    const b = new Bench();
    b.ask('ann', on('f', 'read'));
    b.ask('bob', on('g'));
    b.ask('cat', [on('f'), on('h')]); // waits for ann
    b.ask('bob', on('h')); // waits for cat, who only waits
    assert.deepEqual(b.ask('ann', on('g')), ['ann deadlock']);
  });

  test('the refusal names the owners of the cycle in order', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    b.ask('bob', on('g'));
    b.ask('ann', on('g'));
    const request = { requestId: 'x', session: 's', volume: 'v', owner: 'bob', kind: 'handle' } as const;
    const rest = { targets: [on('f')], waitMs: null, leaseMs: null, holdCapMs: null };
    const [effect] = b.core.apply({ type: 'acquire', request: { ...request, ...rest } }, 0);
    assert.ok(effect?.type === 'refused');
    assert.deepEqual(effect.cycle, ['bob', 'ann']);
  });

  test('a cycle that a rename closes ends the newest waiter in it', () => {
    const b = new Bench();
    b.ask('ann', on('f', 'read'));
    b.ask('bob', on('g'));
    b.ask('bob', on('x'));
    b.ask('cat', on('to'), { kind: 'name' });
    b.ask('bob', on('to')); // bob waits for cat
    b.ask('ann', on('g')); // ann waits for bob
    const moved = b.do({ type: 'add_target', lockId: b.lockOf('ann').lockId, target: on('to', 'read') });
    assert.deepEqual(moved, ['ann linked', 'ann deadlock']);
  });

  test('a waiter on a directory does not hide what is held below it', () => {
    const b = new Bench();
    b.ask('ann', on('g'));
    b.ask('cat', on('d/x'));
    b.ask('eve', on('d'));
    b.ask('pat', on('d'));
    b.ask('cat', on('g'));
    assert.deepEqual(b.ask('ann', on('d', 'write', 'tree')), ['ann deadlock']);
  });

  test('two requests of one owner behind the same stranger are no cycle', () => {
    const b = new Bench();
    b.ask('bob', on('f'));
    b.ask('ann', on('f', 'read'));
    b.ask('cat', on('f'));
    assert.deepEqual(b.ask('ann', on('f', 'read')), ['ann waits']);
    assert.deepEqual(b.release('bob'), ['bob released', 'ann has L2', 'ann has 2 of L2']);
  });
});

describe('ends', () => {
  test('a wait limit ends the wait, at the tick', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    b.ask('bob', on('f'), { waitMs: 100 });
    assert.equal(b.core.nextDeadlineMs(), 100);
    assert.deepEqual(b.tick(99), []);
    assert.deepEqual(b.tick(100), ['bob timeout']);
    assert.deepEqual(b.ask('cat', on('f'), { waitMs: 0 }), ['cat timeout']);
    assert.equal(b.core.nextDeadlineMs(), null);
  });

  test('a lease ends the hold unless a heartbeat comes first', () => {
    const b = new Bench();
    b.ask('ann', on('f'), { leaseMs: 50 });
    b.ask('bob', on('f'));
    b.now = 40;
    b.do({ type: 'heartbeat', lockId: 'L1', owner: 'ann' });
    assert.deepEqual(b.tick(50), []);
    assert.deepEqual(b.tick(90), ['ann lease_expired', 'bob has L2']);
  });

  test('a cap breaks nothing while one blocker of the first waiter is younger than its own', () => {
    const b = new Bench();
    b.ask('ann', on('f', 'read'), { holdCapMs: 10 });
    b.ask('bob', on('f', 'read'), { holdCapMs: 90 });
    b.ask('cat', on('f'));
    assert.deepEqual(b.tick(50), []);
    assert.deepEqual(b.tick(90), ['ann cap', 'bob cap', 'cat has L3']);
  });

  test('a hold past its cap stays while nobody waits', () => {
    const b = new Bench();
    b.ask('ann', on('f'), { holdCapMs: 10 });
    assert.deepEqual(b.tick(500), []);
    assert.deepEqual(b.ask('bob', on('f')), ['bob waits', 'ann cap', 'bob has L2']);
  });

  test('a session that ends takes its holds and waiters with it', () => {
    const b = new Bench();
    b.ask('ann', on('f'), { session: 't' });
    b.ask('bob', on('f'), { session: 't' });
    b.ask('cat', on('f'));
    const ended = b.do({ type: 'end_session', session: 't', reason: 'session_lost' });
    assert.deepEqual(ended, ['bob session_lost', 'ann session_lost', 'cat has L2']);
  });

  test('a break ends a hold whatever its count', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    b.ask('ann', on('f'));
    assert.deepEqual(b.do({ type: 'break', lockId: 'L1' }), ['ann forced']);
  });
});

describe('requests may be repeated', () => {
  test('while it waits, a repeated request is not queued twice', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    b.ask('bob', on('f'), { requestId: 'x' });
    assert.deepEqual(b.ask('bob', on('f'), { requestId: 'x' }), ['bob waits']);
    assert.equal(b.core.stats().waiters, 1);
    assert.deepEqual(b.release('ann'), ['ann released', 'bob has L2']);
    assert.deepEqual(b.ask('bob', on('f'), { requestId: 'x' }), ['bob has L2']);
    assert.deepEqual(b.release('bob'), ['bob released']);
  });

  test('each request that joined is known by its id until it is given back, also after a restart', () => {
    const b = new Bench();
    for (const requestId of ['x', 'y', 'z']) b.ask('ann', on('f'), { requestId });
    b.restart();
    assert.deepEqual(b.ask('ann', on('f'), { requestId: 'z' }), ['ann has 3 of L1']);
    // Who releases has had an answer: the oldest goes, not one that may be repeated yet.
    b.release('ann');
    assert.deepEqual(b.ask('ann', on('f'), { requestId: 'z' }), ['ann has 2 of L1']);
    assert.deepEqual(b.do({ type: 'cancel', requestId: 'y', session: 's' }), ['ann gave back']);
    b.restart();
    const { requestId, joined, count } = b.lockOf('ann');
    assert.deepEqual({ requestId, joined, count }, { requestId: 'z', joined: undefined, count: 1 });
    assert.deepEqual(b.ask('ann', on('f'), { requestId: 'y' }), ['ann has 2 of L1']);
  });

  test('so many may join one lock; the next gets its own', () => {
    const b = new Bench();
    for (let i = 0; i <= JOINED_MAX; i++) b.ask('ann', on('f'));
    assert.deepEqual(b.ask('ann', on('f')), ['ann has L2']);
    assert.deepEqual(b.ask('ann', on('f')), ['ann has 2 of L2']);
  });

  test('the same id in another session is another request', () => {
    const b = new Bench();
    b.ask('ann', on('f'), { requestId: 'x' });
    assert.deepEqual(b.ask('bob', on('g'), { requestId: 'x', session: 't' }), ['bob has L2']);
  });

  test('a cancel that comes after the grant gives it back', () => {
    const b = new Bench();
    b.ask('ann', on('f'), { requestId: 'x' });
    b.ask('bob', on('f'));
    assert.deepEqual(b.do({ type: 'cancel', requestId: 'x', session: 's' }), ['ann released', 'bob has L2']);
    assert.deepEqual(b.do({ type: 'cancel', requestId: 'x', session: 's' }), []);
  });
});

describe('names move, handles follow their inode', () => {
  test('a handle follows a rename, a name hold stays', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    b.ask('ann', on('f', 'write'), { kind: 'name' });
    assert.deepEqual(b.do({ type: 'move', volume: 'v', from: 'f', to: 'g', tree: false }), ['ann moved']);
    assert.deepEqual(b.ask('bob', on('g')), ['bob waits']);
    assert.deepEqual(b.ask('cat', on('f')), ['cat waits']);
  });

  test('a handle whose name another inode takes is detached and guards nothing', () => {
    const b = new Bench();
    b.ask('ann', on('to'));
    b.ask('bob', on('to'));
    const moved = b.do({ type: 'move', volume: 'v', from: 'from', to: 'to', tree: false });
    assert.deepEqual(moved, ['ann detached', 'bob has L2']);
    assert.deepEqual(b.do({ type: 'release', lockId: 'L1', owner: 'ann' }), ['ann released']);
  });

  test('a directory takes the handles below it along', () => {
    const b = new Bench();
    b.ask('ann', on('d/e/f'));
    b.do({ type: 'move', volume: 'v', from: 'd', to: 'x', tree: true });
    assert.deepEqual(
      b.core.status('v', 'x/e/f').holds.map((hold) => hold.owner),
      ['ann'],
    );
    assert.deepEqual(b.ask('bob', on('d/e/f')), ['bob has L2']);
  });

  test('exchange lets handles change places', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    b.ask('bob', on('g'));
    assert.deepEqual(b.do({ type: 'exchange', volume: 'v', a: 'f', b: 'g', tree: false }), [
      'ann moved',
      'bob moved',
    ]);
    assert.deepEqual(
      b.core.status('v', 'g').holds.map((hold) => hold.owner),
      ['ann'],
    );
  });

  test('what another session may not have heard of yet guards both names, and covers neither', () => {
    const b = new Bench();
    const command = { type: 'exchange', volume: 'v', a: 'f', b: 'g', tree: false } as const;
    b.ask('ann', on('f', 'read'));
    b.now = 100;
    assert.deepEqual(b.do({ ...command, by: { session: 'other', sinceMs: 0 } }), ['ann moved']);
    const { targets, spread } = b.lockOf('ann');
    assert.deepEqual([targets.map(({ path }) => path), spread], [['f', 'g'], true]);
    assert.deepEqual(b.ask('bob', on('f')), ['bob waits']);
    assert.deepEqual(b.ask('cid', on('g')), ['cid waits']);
    b.restart();
    assert.equal(b.lockOf('ann').spread, true);
    assert.deepEqual(b.ask('ann', on('h', 'read')), ['ann has L2']);
    assert.deepEqual(
      b.do({ ...command, a: 'h', b: 'k', by: { session: 's', sinceMs: 0 } }),
      ['ann moved'],
      'its own',
    );
    assert.equal(b.core.hold('L2')!.spread, undefined);
    assert.deepEqual(
      b.do({ ...command, a: 'k', b: 'h', by: { session: 'other', sinceMs: 101 } }),
      ['ann moved'],
      'old',
    );
    assert.equal(b.core.hold('L2')!.spread, undefined);
    assert.deepEqual(b.do({ ...command, a: 'k', b: 'h', by: { session: 's', sinceMs: 0, lost: true } }), []);
    assert.deepEqual(b.release('ann'), ['ann released', 'bob has L3', 'cid has L4']);
  });

  test('a file with two names is guarded by the second when the first goes, and a nameless one by a new one', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    b.do({ type: 'add_target', lockId: 'L1', target: on('g') });
    b.do({ type: 'detach', volume: 'v', path: 'f', tree: false });
    assert.equal(b.core.hold('L1')?.detached, false);
    assert.deepEqual(b.ask('bob', on('g')), ['bob waits']);
    assert.deepEqual(b.do({ type: 'detach', volume: 'v', path: 'g', tree: false }), [
      'ann detached',
      'bob has L2',
    ]);
    assert.deepEqual(b.do({ type: 'add_target', lockId: 'L1', target: on('h') }), ['ann attached']);
    assert.deepEqual(b.ask('cat', on('h')), ['cat waits']);
  });

  test('a hold that moves in frees the name of the inode it replaces, and brings its ticket along', () => {
    const b = new Bench();
    b.ask('ann', on('h', 'read'));
    b.ask('bob', on('d/y'));
    b.ask('cat', on('d/x', 'read'));
    assert.deepEqual(b.ask('tom', on('d', 'read', 'tree')), ['tom waits']);
    assert.deepEqual(b.ask('ann', on('d/x')), ['ann waits']);
    b.do({ type: 'move', volume: 'v', from: 'h', to: 'd/x', tree: false });
    // The inode that was at d/x lost its name, so cat is in nobody's way.
    assert.deepEqual(
      b.core.waits().map((w) => w.request.owner),
      ['tom'],
    );
  });

  test('a waiter that a move gave an earlier ticket is not overlooked by a tree above it', () => {
    const b = new Bench();
    b.ask('ann', on('h', 'read'));
    b.ask('bob', on('d/y'));
    b.ask('cat', on('d/x', 'read'), { kind: 'name' });
    b.ask('tom', on('d', 'read', 'tree'));
    b.ask('ann', on('d/x'));
    b.do({ type: 'move', volume: 'v', from: 'h', to: 'd/x', tree: false });
    assert.deepEqual(b.release('bob'), ['bob released']);
    assert.deepEqual(b.release('cat'), ['cat released', 'ann has L4']);
  });

  test('a retargeted waiter keeps its ticket', () => {
    const b = new Bench();
    b.ask('ann', on('g'));
    b.ask('bob', on('h'));
    b.ask('cat', on('h'), { requestId: 'x' });
    b.ask('dan', on('g'));
    assert.deepEqual(b.do({ type: 'retarget', requestId: 'x', session: 's', targets: [on('g')] }), [
      'cat changed',
    ]);
    assert.deepEqual(b.release('ann'), ['ann released', 'cat has L3']);
  });
});

describe('refusals name what is wrong and change nothing', () => {
  test('bad requests', () => {
    const b = new Bench();
    assert.throws(() => b.ask('ann', on('a/../b')), code('invalid_request', 'targets[0].path'));
    assert.throws(() => b.ask('ann', on('f', 'own' as 'read')), code('invalid_request', 'targets[0].mode'));
    assert.throws(() => b.ask('ann', []), code('invalid_request', 'targets'));
    assert.throws(() => b.ask('', on('f')), code('invalid_request', 'owner'));
    assert.throws(() => b.ask('ann', on('f'), { waitMs: -1 }), code('invalid_request', 'waitMs'));
    assert.throws(
      () => b.ask('ann', on(`${'x'.repeat(200)}/`.repeat(100).slice(0, -1))),
      code('invalid_request', '16384'),
    );
    assert.throws(() => b.ask('ann', on('x'.repeat(256))), code('invalid_request', '255'));
    assert.equal(b.core.stats().sessions, 0);
  });

  test('somebody else, or nobody', () => {
    const b = new Bench();
    b.ask('ann', on('f'));
    assert.throws(
      () => b.do({ type: 'release', lockId: 'L1', owner: 'bob' }),
      code('owner_mismatch', 'owner'),
    );
    assert.throws(() => b.do({ type: 'release', lockId: 'L9', owner: 'ann' }), code('not_found', 'L9'));
    assert.throws(() => b.do({ type: 'heartbeat', lockId: 'L9', owner: 'ann' }), code('not_found'));
    assert.throws(() => b.do({ type: 'break', lockId: 'L9' }), code('not_found'));
    assert.throws(
      () => b.do({ type: 'retarget', requestId: 'x', session: 's', targets: [on('f')] }),
      code('not_found'),
    );
  });

  test('every limit is reached and named', () => {
    const b = new Bench({ waitersPerKey: 2, locksPerSession: 4, targetsPerRequest: 3 });
    assert.throws(() => b.ask('ann', [on('a'), on('b'), on('c'), on('d')]), code('limit', 'targets'));
    b.ask('ann', on('f'));
    b.ask('bob', on('f'));
    b.ask('cat', on('f'));
    assert.deepEqual(b.ask('dan', on('f')), ['dan limit']);
    b.ask('eve', on('g'));
    assert.deepEqual(b.ask('eve', on('h')), ['eve limit']);
    assert.deepEqual(b.ask('eve', on('g')), ['eve has 2 of L2']);
    assert.deepEqual(b.ask('eve', on('g'), { kind: 'name' }), ['eve limit']);
  });
});

test('after a restart everybody holds and waits as before', () => {
  const b = new Bench();
  b.ask('ann', on('f', 'read'));
  b.ask('bob', on('f', 'read'), { leaseMs: 70 });
  b.ask('cat', on('f'), { waitMs: 500 });
  b.ask('ann', on('f'));
  const before = [b.core.holdsOf('s'), b.core.waits(), b.core.status('v', 'f')];
  b.restart();
  assert.deepEqual([b.core.holdsOf('s'), b.core.waits(), b.core.status('v', 'f')], before);
  assert.deepEqual(b.tick(1), []);
  assert.equal(b.core.nextDeadlineMs(), 70);
  assert.deepEqual(b.tick(70), ['bob lease_expired', 'ann has L3']);
});

test('one can see who holds, who waits, and for whom', () => {
  const b = new Bench();
  b.ask('ann', on('d', 'read', 'tree'));
  b.ask('bob', on('d/f'), { requestId: 'x' });
  const { holds, waiters } = b.core.status('v', 'd/f');
  assert.deepEqual([holds.map((h) => h.owner), waiters.map((w) => w.request.owner)], [['ann'], ['bob']]);
  assert.deepEqual(
    b.core.blockersOf('x', 's')?.holds.map((h) => h.owner),
    ['ann'],
  );
  assert.equal(b.core.blockersOf('y', 's'), null);
  assert.equal(b.core.status('v', 'd', 'tree').waiters.length, 1);
});
