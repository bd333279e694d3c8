import { CONFLICTS } from './conflict.ts';
import type { Lock } from './state.ts';
import { Tables } from './tables.ts';
import type { Hold, Scope, Waiter } from './types.ts';

export interface LockStatus {
  readonly holds: readonly Hold[];
  readonly waiters: readonly Waiter[];
}

export interface LockStats {
  readonly holds: number;
  readonly waiters: number;
  readonly owners: number;
  readonly sessions: number;
  readonly volumes: number;
  /** Paths that the index knows. */
  readonly nodes: number;
  /** Waiters looked at again since the start. */
  readonly examined: number;
  /** Index entries and nodes looked at since the start: what the work is proportional to. */
  readonly visited: number;
}

/** Names in the `blockers` of a `queued` effect. */
const BLOCKERS_SHOWN = 8;
/** Entries looked at to find them. */
const BLOCKERS_SEEN = 64;

/** The core's read-only side. Nothing here changes anything. */
export class Queries {
  protected readonly tables = new Tables();

  hold(lockId: string): Hold | null {
    return this.tables.locks.get(lockId)?.hold ?? null;
  }

  /** What a request became: its hold, its place in the queue, or null when it is not known (any more). */
  request(requestId: string, session: string): Hold | Waiter | null {
    const lock = this.tables.findSession(session)?.requests.get(requestId);
    return lock === undefined ? null : (lock.hold ?? this.waiterOf(lock));
  }

  holdsOf(session: string): Hold[] {
    const locks = new Set(this.tables.findSession(session)?.requests.values());
    return [...locks].filter((lock) => lock.hold !== null).map((lock) => lock.hold!);
  }

  /** Every waiter there is, in order of tickets. */
  waits(): Waiter[] {
    return byTicket(this.tables.waiting).map((lock) => this.waiterOf(lock));
  }

  /** All holds and waiters that overlap a path (with scope `tree`: what lies below it too), by ticket. */
  status(volume: string, path: string, scope: Scope = 'file'): LockStatus {
    const locks = new Set<Lock>();
    const found = this.tables.findTree(volume)?.overlapping(path, scope === 'tree', 0b1111, {
      held: true,
      waitingBefore: Number.POSITIVE_INFINITY,
    });
    for (const entry of found ?? []) locks.add(entry.lock);
    return statusOf(locks, (lock) => this.waiterOf(lock));
  }

  /** True when no hold and no waiter overlaps a path (with scope `tree`: nor anything below it). Stops at the first. */
  isQuiet(volume: string, path: string, scope: Scope): boolean {
    const found = this.tables.findTree(volume)?.overlapping(path, scope === 'tree', 0b1111, {
      held: true,
      waitingBefore: Number.POSITIVE_INFINITY,
    });
    return found === undefined || found.next().done === true;
  }

  /** All that a waiting request waits for: conflicting holds, and conflicting waiters before it. Null: not waiting. */
  blockersOf(requestId: string, session: string): LockStatus | null {
    const lock = this.tables.findSession(session)?.requests.get(requestId);
    if (lock === undefined || lock.hold !== null) return null;
    return statusOf(new Set(this.#blockers(lock)), (one) => this.waiterOf(one));
  }

  stats(): LockStats {
    const { locks, waiting, work } = this.tables;
    return { holds: locks.size, waiters: waiting.size, ...this.tables.counts(), ...work };
  }

  *#blockers(lock: Lock): Generator<Lock, void, void> {
    for (const asked of lock.entries) {
      const found = lock.tree.overlapping(asked.target.path, asked.isTree, CONFLICTS[asked.class]!, {
        held: true,
        waitingBefore: asked.effectiveTicket,
      });
      for (const entry of found) if (entry.lock.owner !== lock.owner) yield entry.lock;
    }
  }

  /** As the command `away` said last. */
  isAway(session: string): boolean {
    return this.tables.findSession(session)?.away ?? false;
  }

  /** Owners in a waiter's way, nearest first; not all when there are many. */
  protected blockerNames(lock: Lock): string[] {
    const names = new Set<string>();
    let seen = 0;
    for (const blocker of this.#blockers(lock)) {
      names.add(blocker.owner.name);
      if (++seen >= BLOCKERS_SEEN || names.size >= BLOCKERS_SHOWN) break;
    }
    return [...names];
  }

  protected waiterOf(lock: Lock): Waiter {
    const { request, arrivedAtMs, deadlineMs } = lock.wait!;
    return { request, ticket: lock.ticket, arrivedAtMs, deadlineMs };
  }
}

function byTicket(locks: Iterable<Lock>): Lock[] {
  return [...locks].sort((a, b) => a.ticket - b.ticket);
}

function statusOf(locks: Set<Lock>, waiterOf: (lock: Lock) => Waiter): LockStatus {
  const sorted = byTicket(locks);
  return {
    holds: sorted.filter((lock) => lock.hold !== null).map((lock) => lock.hold!),
    waiters: sorted.filter((lock) => lock.hold === null).map(waiterOf),
  };
}
