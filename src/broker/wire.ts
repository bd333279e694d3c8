/**
 * The session protocol: what a client and a broker say to each other over the WebSocket `/v1/session`.
 * Pure types and constants; both sides import them.
 *
 * - A frame is JSON text: one message, or an array of messages. Both sides gather what one turn of their
 *   event loop produced into one frame.
 * - The client's messages carry `op` and a number `id`, which grows strictly over the life of the session.
 *   Each is answered once, by a message with the same `id`: `{id, ok}` or `{id, error}`. The answer to an
 *   acquire comes when it is granted or refused, which may be hours later. Answers go out after what they
 *   say is durable.
 * - Messages without `id` are pushes: see `Push`.
 * - The first message must be `hello`.
 * - **Exactly once.** The broker stores the greatest `id` that it has carried out of each session, together with
 *   what it changed, and tells it in the welcome (`lastId`). After a reconnect the client repeats what was not
 *   answered: an `acquire` always (the same `requestId` makes it harmless, and takes up its place in the
 *   queue), and so whatever else may be carried out twice; the rest only when its `id` is above `lastId`, for below it was
 *   done and only the answer was lost.
 * - Times are milliseconds of the broker's clock: Unix time, except that it never goes backwards.
 * - Paths are `PathString`s (base/bytes.ts): bytes that are not UTF-8 travel as `"\udcXX"`.
 */
import type { ErrorCode } from '../base/errors.ts';
import type { Region } from '../lock/regions.ts';
import type { EndReason, Hold, Kind, Mode, ReleaseReason, Scope, Target, Who } from '../lock/types.ts';

export type { EndReason, Hold, Kind, Mode, Region, ReleaseReason, Scope, Target, Who };

export const PROTOCOL = 1;
export const SESSION_PATH = '/v1/session';
/** The volume of paths that lie in no registered root or mount. */
export const DEFAULT_VOLUME = 'default';
/** The pseudo-session in which the locks of plain HTTP clients live; they have a lease each instead. */
export const HTTP_SESSION = 'http';
/** Prefix, inside the broker, of owners that came by HTTP. No session may use it. It is never shown. */
export const HTTP_OWNER_PREFIX = 'http:';
/**
 * Owner, inside the broker, of the holds that stand for a delegate's right to decide while a region is on its way
 * from or to it. No session may use it.
 */
export const DELEGATE_OWNER = '#delegate';

/** WebSocket close codes of ours (RFC 6455, 7.4.2: 4000 to 4999 are private). */
export const CLOSE = {
  replaced: 4001,
  sessionLost: 4002,
  tooSlow: 4003,
  badMessage: 4004,
  shutdown: 4005,
} as const;

/** Who opens a session, for people to read. */
export interface ClientInfo {
  /** `mount`, `hold`, `sdk`, `mcp`, `dashboard`, … */
  readonly kind: string;
  readonly pid?: number;
  readonly host?: string;
}

// ---------------------------------------------------------------- what a client says

export interface Hello {
  readonly op: 'hello';
  readonly id: number;
  readonly protocol?: number;
  /** A new session when false; else `session` and `secret` of the one to take up. */
  readonly resume: boolean;
  readonly session?: string;
  readonly secret?: string;
  readonly client: ClientInfo;
}

export interface Acquire {
  readonly op: 'acquire';
  readonly id: number;
  /** Unique within the session. */
  readonly requestId: string;
  readonly owner: string;
  readonly volume: string;
  readonly kind: Kind;
  readonly targets: readonly Target[];
  /** 0 tries, null waits without limit; absent: the broker's default. */
  readonly waitMs?: number | null;
  readonly leaseMs?: number | null;
  /** absent: the broker's default; null: never broken. */
  readonly holdCapMs?: number | null;
  readonly who?: Who;
}

/** Part of a resume: what the client believes that it holds and waits for. After the part with `last` the broker
 * gives back what was not named; the answer (`Reasserted`) names what the broker does not have any more. */
export interface Reassert {
  readonly op: 'reassert';
  readonly id: number;
  readonly locks: readonly string[];
  readonly requests: readonly string[];
  readonly last: boolean;
}

export type ClientMessage =
  | Hello
  | { readonly op: 'renew'; readonly id: number }
  | Acquire
  | { readonly op: 'release'; readonly id: number; readonly lockId: string; readonly owner: string }
  | { readonly op: 'cancel'; readonly id: number; readonly requestId: string }
  | {
      readonly op: 'heartbeat';
      readonly id: number;
      readonly lockId: string;
      readonly owner: string;
      readonly leaseMs?: number | null;
    }
  | {
      readonly op: 'move';
      readonly id: number;
      readonly volume: string;
      readonly from: string;
      readonly to: string;
      readonly tree: boolean;
    }
  | {
      readonly op: 'exchange';
      readonly id: number;
      readonly volume: string;
      readonly a: string;
      readonly b: string;
      readonly tree: boolean;
    }
  | {
      readonly op: 'detach';
      readonly id: number;
      readonly volume: string;
      readonly path: string;
      readonly tree: boolean;
    }
  | { readonly op: 'add_target'; readonly id: number; readonly lockId: string; readonly target: Target }
  | {
      readonly op: 'retarget';
      readonly id: number;
      readonly requestId: string;
      readonly targets: readonly Target[];
    }
  /** Ends a hold of anybody by force. */
  | { readonly op: 'break'; readonly id: number; readonly lockId: string }
  | Reassert
  /** Ends the session: gives everything back. `unclean`: files of its view were still open for writing, so it counts as lost. */
  | { readonly op: 'end'; readonly id: number; readonly unclean?: boolean }
  /** Nobody writes any more where these records said that somebody may; but on the paths `still`, of one for the whole volume. */
  | {
      readonly op: 'clean';
      readonly id: number;
      readonly volume: string;
      readonly ids: readonly string[];
      readonly still?: readonly string[];
    }
  | {
      readonly op: 'status';
      readonly id: number;
      readonly volume: string;
      readonly path: string;
      /** What lies below the path, too. */
      readonly tree?: boolean;
    }
  | { readonly op: 'waits'; readonly id: number }
  | { readonly op: 'volumes'; readonly id: number }
  | {
      readonly op: 'register_volume';
      readonly id: number;
      readonly root: string;
      readonly mount?: string | null;
      readonly dev: string;
      readonly ino: string;
    }
  | {
      readonly op: 'history';
      readonly id: number;
      readonly volume: string;
      readonly path: string;
      readonly limit?: number;
    }
  /** An event of the client's own (a pass without a lock, a refused stale write), for history and subscribers. */
  | {
      readonly op: 'note';
      readonly id: number;
      readonly volume: string;
      readonly path: string;
      readonly what: string;
      readonly owner?: string;
      readonly message?: string;
      /** Another owner whom it concerns: of a stale write, who made the change. Absent: looked up in the history. */
      readonly whose?: string;
      readonly who?: Who;
    }
  /** Asks for a whole volume's paths to be decided by this session: `Delegated`, or `conflict` when another has it. Repeated,
   * it is answered with the same epoch: only who has granted nothing yet may do so. */
  | { readonly op: 'delegate'; readonly id: number; readonly volume: string }
  /** These paths are the broker's again, with all that is held on them. Answers `recall`, or comes by itself. */
  | {
      readonly op: 'returned';
      readonly id: number;
      readonly volume: string;
      readonly epoch: string;
      readonly regions: readonly Region[];
      readonly holds: readonly Hold[];
    }
  /** Answers `give`: whether the session decides this region from now on. */
  | {
      readonly op: 'taken';
      readonly id: number;
      readonly volume: string;
      readonly epoch: string;
      /** Of the `give`. */
      readonly give: string;
      readonly region: Region;
      readonly yes: boolean;
    }
  /** Answers `report`. */
  | { readonly op: 'reported'; readonly id: number; readonly report: number; readonly holds: readonly Hold[] }
  /** What a delegate granted and what was given back since the last time, for history: writes only. */
  | {
      readonly op: 'activity';
      readonly id: number;
      readonly volume: string;
      readonly entries: readonly Activity[];
    }
  | { readonly op: 'subscribe'; readonly id: number; readonly volume?: string }
  | { readonly op: 'unsubscribe'; readonly id: number };

export type Op = ClientMessage['op'];

// ---------------------------------------------------------------- what the broker says

export interface Welcome {
  readonly session: string;
  readonly secret: string;
  readonly ttlMs: number;
  /** The broker started less than one TTL ago: returning sessions still reclaim. */
  readonly grace: boolean;
  readonly lastId: number;
  readonly resumed: boolean;
  readonly nowMs: number;
  readonly brokerId: string;
  readonly version: string;
}

/** Somebody may still write there whom no lock stops: its last hold did not end by its holder's release. */
export interface UncleanPath {
  readonly id: string;
  readonly path: string;
  /** `tree` with path `''`: a view that decided the whole volume's locks died. */
  readonly scope: Scope;
  readonly sinceMs: number;
  readonly why: ReleaseReason;
  /** Whose hold it was; `''`: unknown. */
  readonly owner: string;
}

/** Answer to `delegate`. */
export interface Delegated {
  readonly epoch: string;
  /** Fencing tokens for the delegate's grants: `from` is the first, `to` is not among them. */
  readonly tokens: { readonly from: number; readonly to: number };
  /** Regions that others have business with: they stay with the broker. */
  readonly out: readonly Region[];
  /** All of the volume. */
  readonly unclean?: readonly UncleanPath[];
}

/** One grant or release of a delegate. */
export interface Activity {
  readonly type: 'granted' | 'released';
  readonly targets: readonly Target[];
  readonly owner: string;
  readonly lockId: string;
  readonly token: number;
  readonly who?: Who;
}

/** Answer to an acquire. Together with the request it makes a `Hold`. */
export interface Grant {
  readonly lockId: string;
  readonly token: number;
  readonly ticket: number;
  readonly count: number;
  readonly grantedAtMs: number;
  readonly coveredSinceMs: number;
  readonly leaseExpiresAtMs: number | null;
  /** The owner had it already; the count grew. */
  readonly again: boolean;
  readonly waited: boolean;
  /** What is unclean where it was granted. */
  readonly unclean?: readonly UncleanPath[];
}

export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

export type Answer =
  | { readonly id: number; readonly ok: unknown }
  | { readonly id: number; readonly error: WireError };

export interface Reasserted {
  /** Of `locks`: what the broker does not have any more. */
  readonly lost: readonly string[];
}

export interface Released {
  /** The hold is gone; false: it has a count left. */
  readonly gone: boolean;
}

/** Somebody in the way. */
export interface Blocker {
  readonly owner: string;
  /** Holds it, or waits for it with an earlier ticket. */
  readonly state: 'holds' | 'waits';
  readonly path: string;
  readonly mode: Mode;
  readonly sinceMs: number;
  readonly who?: Who;
  /** Its client cannot be reached: it comes back, or this ends with its session. */
  readonly away?: true;
}

export type Push =
  /** An acquire did not get through at once; some owners in its way, nearest first. `status` tells more of them. */
  | {
      readonly push: 'queued';
      readonly requestId: string;
      readonly ticket: number;
      readonly blockers: readonly string[];
    }
  /** A hold of this session ended other than by its own release. */
  | { readonly push: 'lost'; readonly lockId: string; readonly reason: ReleaseReason }
  | { readonly push: 'session_lost'; readonly message: string }
  /** To a delegate: paths of its volume that are unclean from now on. */
  | { readonly push: 'unclean'; readonly volume: string; readonly paths: readonly UncleanPath[] }
  /** Somebody else wants this region of a delegated volume: answer with `returned`. Repeated until it is answered. */
  | { readonly push: 'recall'; readonly volume: string; readonly epoch: string; readonly region: Region }
  /** A region that was returned is quiet: answer with `taken`. */
  | {
      readonly push: 'give';
      readonly volume: string;
      readonly epoch: string;
      readonly region: Region;
      /** Names this offer: it is answered once, however often it comes. */
      readonly give: string;
      /** For all that the delegate grants from now on: above those of the grants that were made meanwhile. */
      readonly tokens: Delegated['tokens'];
    }
  /** What is held in this region? Answer with `reported`. */
  | { readonly push: 'report'; readonly volume: string; readonly report: number; readonly region: Region }
  | { readonly push: 'events'; readonly events: readonly GateEvent[] }
  /** The subscriber read too slowly: so many events were left out here. */
  | { readonly push: 'gap'; readonly missed: number };

export type BrokerMessage = Answer | Push;

// ---------------------------------------------------------------- shared by HTTP and session

/** One line of history. */
export interface GateEvent {
  /** Grows by one with each event of this state directory. */
  readonly seq: number;
  /** Unix seconds, with a fraction. */
  readonly time: number;
  /** queued, granted, refused, released, renewed, moved, detached, attached, linked, session_started, session_resumed,
   * session_ended, session_lost, volume_registered, broker_started, broker_slept, or a client's own `note`. */
  readonly type: string;
  readonly volume?: string;
  readonly path?: string;
  readonly mode?: Mode;
  readonly scope?: Scope;
  /** When the request had more than one target: all paths. */
  readonly paths?: readonly string[];
  readonly owner?: string;
  /** Absent: a session. */
  readonly via?: 'http' | 'session';
  readonly session?: string;
  readonly lockId?: string;
  readonly requestId?: string;
  readonly token?: number;
  readonly count?: number;
  readonly reason?: string;
  readonly message?: string;
  /** Of a stale write: whose change it would have written over, as far as is known. */
  readonly whose?: string;
  /** Of a grant: how long it waited. */
  readonly waitedMs?: number;
  readonly who?: Who;
}

export interface VolumeInfo {
  readonly id: string;
  readonly root: string;
  readonly mount: string | null;
  /** Where it was mounted before, and may still be. */
  readonly earlierMounts?: readonly string[];
  /** Device and inode of the root, decimal. */
  readonly dev: string;
  readonly ino: string;
  readonly registeredAtMs: number;
}

/** A hold as people see it: owner without the HTTP prefix. */
export interface HoldInfo {
  readonly lockId: string;
  readonly volume: string;
  readonly targets: readonly Target[];
  readonly owner: string;
  readonly via: 'http' | 'session';
  readonly session: string;
  readonly kind: Kind;
  readonly token: number;
  readonly ticket: number;
  readonly count: number;
  readonly grantedAtMs: number;
  readonly coveredSinceMs: number;
  readonly leaseExpiresAtMs: number | null;
  readonly holdCapMs: number | null;
  readonly detached: boolean;
  readonly who?: Who;
}

export interface WaitInfo {
  readonly requestId: string;
  readonly volume: string;
  readonly targets: readonly Target[];
  readonly owner: string;
  readonly via: 'http' | 'session';
  readonly session: string;
  readonly kind: Kind;
  readonly ticket: number;
  readonly arrivedAtMs: number;
  readonly deadlineMs: number | null;
  readonly blockers: readonly Blocker[];
  readonly who?: Who;
}

export interface PathStatus {
  readonly holds: readonly HoldInfo[];
  /** In order of their tickets. */
  readonly queue: readonly WaitInfo[];
}

/** `<state>/broker.json`, and the answer of `GET /v1/info` (which adds counts). */
export interface BrokerInfo {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat (proc_pid_stat(5)): with the pid it names one process for ever, within one boot. */
  readonly startTicks: number;
  /** /proc/sys/kernel/random/boot_id. */
  readonly bootId: string;
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly socket: string;
  readonly version: string;
  /** Unix seconds. */
  readonly startedAt: number;
  readonly auth: 'token' | 'off';
}
