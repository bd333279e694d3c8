/** Short words for the tests of the lock core. */
import { LockCore } from './core.ts';
import type { AcquireRequest, Command, Counters, Effect, Mode, Scope, Target } from './types.ts';
import type { LockLimits } from './validate.ts';

export function counters(): Counters {
  let ticket = 0;
  let token = 0;
  let id = 0;
  return { nextTicket: () => ++ticket, nextToken: () => ++token, newLockId: () => `L${++id}` };
}

export function on(path: string, mode: Mode = 'write', scope: Scope = 'file'): Target {
  return { path, mode, scope };
}

/** A core with a clock that only the test moves, and effects told in one word each. */
export class Bench {
  core: LockCore;
  now = 0;
  readonly #counters = counters();
  #request = 0;

  constructor(limits: Partial<LockLimits> = {}) {
    this.core = new LockCore({ counters: this.#counters, limits });
  }

  /** A core as after a restart. */
  restart(): void {
    const sessions = ['s'];
    const holds = sessions.flatMap((session) => this.core.holdsOf(session));
    const waiters = this.core.waits();
    this.core = new LockCore({ counters: this.#counters });
    this.core.load(holds, waiters);
  }

  do(command: Command): string[] {
    return this.core.apply(command, this.now).map(tell);
  }

  ask(owner: string, targets: Target | Target[], more: Partial<AcquireRequest> = {}): string[] {
    const request: AcquireRequest = {
      ...{ requestId: `${owner}${++this.#request}`, session: 's', volume: 'v', owner, kind: 'handle' },
      ...{
        targets: Array.isArray(targets) ? targets : [targets],
        waitMs: null,
        leaseMs: null,
        holdCapMs: null,
      },
      ...more,
    };
    return this.do({ type: 'acquire', request });
  }

  /** Releases an owner's earliest hold. */
  release(owner: string): string[] {
    const hold = this.core.holdsOf('s').find((one) => one.owner === owner);
    if (hold === undefined) throw new Error(`${owner} holds nothing`);
    return this.do({ type: 'release', lockId: hold.lockId, owner });
  }

  lockOf(owner: string) {
    const hold = this.core.holdsOf('s').find((one) => one.owner === owner);
    if (hold === undefined) throw new Error(`${owner} holds nothing`);
    return hold;
  }

  tick(now: number): string[] {
    this.now = now;
    return this.do({ type: 'tick' });
  }
}

function tell(effect: Effect): string {
  switch (effect.type) {
    case 'queued':
      return `${effect.waiter.request.owner} waits`;
    case 'granted':
      return `${effect.hold.owner} has ${effect.hold.count > 1 ? `${effect.hold.count} of ` : ''}${effect.hold.lockId}`;
    case 'refused':
      return `${effect.request.owner} ${effect.reason}`;
    case 'released':
      return `${effect.hold.owner} ${effect.gone ? effect.reason : 'gave back'}`;
    case 'hold_changed':
      return `${effect.hold.owner} ${effect.why}`;
    case 'waiter_changed':
      return `${effect.waiter.request.owner} changed`;
  }
}
