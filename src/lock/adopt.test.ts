import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { GateError } from '../base/errors.ts';
import { Bench, on } from './test-kit.test-helper.ts';
import type { Hold, Target } from './types.ts';

function elsewhere(owner: string, targets: Target[], more: Partial<Hold> = {}): Hold {
  return {
    ...{ lockId: `E-${owner}`, requestId: `r-${owner}`, session: 's', volume: 'v', owner, kind: 'handle' },
    ...{ targets, ticket: 7000, token: 9, count: 2, grantedAtMs: 5, coveredSinceMs: 3 },
    ...{ leaseMs: null, leaseExpiresAtMs: null, holdCapMs: null, detached: false },
    ...more,
  };
}

describe('a hold that a delegate granted', () => {
  test('comes in as it is, under a new ticket, and only once', () => {
    const b = new Bench();
    const hold = elsewhere('ann', [on('f')]);
    assert.deepEqual(b.core.apply({ type: 'adopt', hold }, 50), [
      {
        ...{ type: 'granted', hold: { ...hold, ticket: 1 }, requestId: 'r-ann' },
        ...{ waited: false, again: false },
      },
    ]);
    assert.deepEqual(b.do({ type: 'adopt', hold }), []);
    assert.deepEqual(b.ask('bob', on('f')), ['bob waits']);
    assert.deepEqual(b.release('ann'), ['ann gave back']);
    assert.deepEqual(b.release('ann'), ['ann released', 'bob has L1']);
  });

  test('keeps out who waits for it already, behind the recall that brought it', () => {
    const b = new Bench();
    b.ask('cat', on('d', 'write', 'tree'));
    b.ask('bob', on('d/f'));
    b.do({ type: 'adopt', hold: elsewhere('ann', [on('d/f')], { count: 1 }) });
    assert.deepEqual(b.release('cat'), ['cat released']);
    assert.deepEqual(b.release('ann'), ['ann released', 'bob has L2']);
  });

  test('that closes a cycle ends the newest waiter in it', () => {
    const b = new Bench();
    b.ask('bob', on('g'));
    b.ask('eve', on('f', 'read'));
    b.ask('bob', on('f'));
    b.ask('ann', on('g'));
    const hold = elsewhere('ann', [on('f', 'read')]);
    assert.deepEqual(b.do({ type: 'adopt', hold }), ['ann has 2 of E-ann', 'ann deadlock']);
  });

  test('answers its own request when that waits here', () => {
    const b = new Bench();
    b.ask('bob', on('f', 'read'));
    b.ask('ann', on('f'), { requestId: 'r-ann' });
    const [granted] = b.core.apply({ type: 'adopt', hold: elsewhere('ann', [on('f', 'read')]) }, 0);
    assert.ok(granted?.type === 'granted' && granted.waited);
    assert.equal(b.core.stats().waiters, 0);
  });

  test('ends with its session, also beside another of the same request id', () => {
    const b = new Bench();
    b.do({ type: 'adopt', hold: elsewhere('ann', [on('f')]) });
    b.do({ type: 'adopt', hold: elsewhere('ann', [on('g')], { lockId: 'E2' }) });
    b.do({ type: 'end_session', session: 's', reason: 'released' });
    const { holds, sessions, owners } = b.core.stats();
    assert.deepEqual({ holds, sessions, owners }, { holds: 0, sessions: 0, owners: 0 });
  });

  test('is refused when it is not one', () => {
    const b = new Bench();
    const refused = (error: unknown) => error instanceof GateError && error.code === 'invalid_request';
    assert.throws(() => b.do({ type: 'adopt', hold: elsewhere('ann', [on('../f')]) }), refused);
  });
});

test('a path is quiet when nothing is held or awaited on it', () => {
  const b = new Bench();
  assert.equal(b.core.isQuiet('v', 'd', 'tree'), true);
  b.ask('ann', on('d/f'));
  b.ask('bob', [on('d/f'), on('e')]);
  assert.deepEqual(
    [b.core.isQuiet('v', 'd', 'tree'), b.core.isQuiet('v', 'd', 'file'), b.core.isQuiet('v', 'e', 'file')],
    [false, true, false],
  );
});
