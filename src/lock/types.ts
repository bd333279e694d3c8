/**
 * What the lock core speaks of. All values are plain data, so that they can be stored, sent and compared.
 * Times are milliseconds; `now` comes in from outside, on any clock that only goes forward.
 */

/** `replace`: the name changes, not the content (rename, unlink, link). */
export type Mode = 'read' | 'write' | 'replace';
export type Scope = 'file' | 'tree';
/** A *name* hold guards a name whatever happens to it; a *handle* hold follows an open file's inode. */
export type Kind = 'name' | 'handle';

export interface Target {
  /** Normalised path relative to the volume's root; `''` is the root. A `PathString` (base/bytes.ts). */
  readonly path: string;
  readonly mode: Mode;
  readonly scope: Scope;
}

/** Who asks, for people to read: never part of a decision. */
export interface Who {
  readonly pid?: number;
  readonly uid?: number;
  readonly command?: string;
  readonly reason?: string;
  readonly host?: string;
}

export interface AcquireRequest {
  /** Made by the client. Repeating a request with the same id is harmless. */
  readonly requestId: string;
  readonly session: string;
  readonly volume: string;
  readonly owner: string;
  readonly kind: Kind;
  readonly targets: readonly Target[];
  /** How long to wait at most; 0 tries, null waits without limit. */
  readonly waitMs: number | null;
  /** A lease of its own, for locks of clients without a session protocol; null: lives with its session. */
  readonly leaseMs: number | null;
  /** Age from which the hold is broken as soon as somebody waits for it; null: never. */
  readonly holdCapMs: number | null;
  readonly who?: Who;
}

/** A granted lock. */
export interface Hold {
  readonly lockId: string;
  /** The oldest request that is counted in it. */
  readonly requestId: string;
  readonly session: string;
  readonly volume: string;
  readonly owner: string;
  readonly kind: Kind;
  readonly targets: readonly Target[];
  /** The ticket under which it was granted. Tickets grow in order of arrival. */
  readonly ticket: number;
  /** Fencing token: grows strictly between overlapping grants, for ever. Below 2^53. */
  readonly token: number;
  /** How often it was granted, less how often it was released. */
  readonly count: number;
  readonly grantedAtMs: number;
  /** Start of the owner's unbroken coverage; the hold cap runs from here. */
  readonly coveredSinceMs: number;
  readonly leaseMs: number | null;
  readonly leaseExpiresAtMs: number | null;
  readonly holdCapMs: number | null;
  /** Detached: its inode has no name any more, so it guards nothing until it is released. */
  readonly detached: boolean;
  /** Names changed while it was not known where its file stood (`Mover`): it keeps others off all of its targets, and covers nothing. */
  readonly spread?: true;
  readonly who?: Who;
  /** The other requests that are counted in it, oldest first; absent when there are none. */
  readonly joined?: readonly string[];
}

export interface Waiter {
  readonly request: AcquireRequest;
  readonly ticket: number;
  readonly arrivedAtMs: number;
  readonly deadlineMs: number | null;
}

export type EndReason =
  /** Its wait limit passed. */
  | 'timeout'
  /** It would have closed a cycle. */
  | 'deadlock'
  /** Its client gave up. */
  | 'cancelled'
  /** Its session ended. */
  | 'session_lost'
  /** A named limit was passed. */
  | 'limit';

export type ReleaseReason = 'released' | 'lease_expired' | 'session_lost' | 'cap' | 'forced';

/**
 * What a command caused, in order. The shell around the core stores them (`hold` and `waiter` rows), answers
 * clients, and writes events. The core's whole state can be rebuilt from its holds and waiters.
 */
export type Effect =
  /** The request waits. */
  | { readonly type: 'queued'; readonly waiter: Waiter; readonly blockers: readonly string[] }
  /** A new hold, or an old one with one count more (`again`). Also the answer to a repeated request id. */
  | {
      readonly type: 'granted';
      readonly hold: Hold;
      readonly requestId: string;
      readonly waited: boolean;
      readonly again: boolean;
    }
  /** A waiting or new request ended without a grant. */
  | {
      readonly type: 'refused';
      readonly request: AcquireRequest;
      readonly ticket: number | null;
      readonly reason: EndReason;
      readonly message: string;
      readonly cycle?: readonly string[];
    }
  /** A hold is gone (count 0) or has one count less (`hold.count` > 0). */
  | { readonly type: 'released'; readonly hold: Hold; readonly reason: ReleaseReason; readonly gone: boolean }
  /** A hold or waiter changed in place (lease, move, detach, retarget, new target): store it again. */
  | {
      readonly type: 'hold_changed';
      readonly hold: Hold;
      readonly why: 'renewed' | 'moved' | 'detached' | 'attached' | 'linked';
    }
  | { readonly type: 'waiter_changed'; readonly waiter: Waiter };

/**
 * Who changed names. A hold of another session that was granted at `sinceMs` or later may not have been heard of there when the names
 * changed: whether its holder opened what had the name before or what has it now is not known. It guards both names (`Hold.spread`).
 */
export interface Mover {
  readonly session: string;
  readonly sinceMs: number;
  /** It is lost, and may have changed the names without telling: all other sessions' holds guard both, its own stay. */
  readonly lost?: true;
}

export type Command =
  | { readonly type: 'acquire'; readonly request: AcquireRequest }
  /**
   * Enters a hold that was granted elsewhere (by a view to which the broker had delegated the path) as it is, whatever it
   * conflicts with, under a new ticket. Who waits goes on waiting, for this hold too. The effect is `granted`, or
   * none when the lock is known already. A waiter of the same request id ends with it.
   */
  | { readonly type: 'adopt'; readonly hold: Hold }
  /** Gives one count back. Refused with GateError `not_found` or `owner_mismatch`. */
  | { readonly type: 'release'; readonly lockId: string; readonly owner: string; readonly session?: string }
  /** Ends a waiting request; when it was granted in the meantime, gives that grant back. */
  | { readonly type: 'cancel'; readonly requestId: string; readonly session: string }
  | {
      readonly type: 'heartbeat';
      readonly lockId: string;
      readonly owner: string;
      readonly leaseMs?: number | null;
    }
  /** Ends every hold and every waiter of a session. */
  | { readonly type: 'end_session'; readonly session: string; readonly reason: 'released' | 'session_lost' }
  /**
   * The clients of these sessions cannot be reached, or can be again. What they have stands; it is
   * only told of (`isAway`).
   */
  | { readonly type: 'away'; readonly sessions: readonly string[]; readonly away: boolean }
  /** Ends a hold by force, whatever its count. */
  | { readonly type: 'break'; readonly lockId: string }
  /**
   * Handle holds on `from` (and below it, when `tree`) follow their inodes to `to`; handle holds that stood on `to`
   * are detached. Name holds and waiters stay. Done inside a grant of replace or write on both names.
   */
  | {
      readonly type: 'move';
      readonly volume: string;
      readonly from: string;
      readonly to: string;
      readonly tree: boolean;
      readonly by?: Mover;
    }
  /** Handle holds on the two names (and below, when `tree`) change places. */
  | {
      readonly type: 'exchange';
      readonly volume: string;
      readonly a: string;
      readonly b: string;
      readonly tree: boolean;
      readonly by?: Mover;
    }
  /** Handle holds on `path` (and below it, when `tree`) guard nothing any more. */
  | {
      readonly type: 'detach';
      readonly volume: string;
      readonly path: string;
      readonly tree: boolean;
      readonly by?: Mover;
    }
  /** Adds a target to a hold (an inode got a further name, or a nameless one a name). Clears `detached`. */
  | { readonly type: 'add_target'; readonly lockId: string; readonly target: Target }
  /** Replaces a waiting request's targets, keeping its ticket. */
  | {
      readonly type: 'retarget';
      readonly requestId: string;
      readonly session: string;
      readonly targets: readonly Target[];
    }
  /** Time passed: ends wait limits and leases, breaks holds past their cap for those who wait. */
  | { readonly type: 'tick' };

/** Numbers that must survive restarts; the shell keeps them above a high-water mark that is on disk. */
export interface Counters {
  nextTicket(): number;
  nextToken(): number;
  newLockId(): string;
}
