import type { Clock } from '../base/clock.ts';
import type {
  BrokerMessage,
  ClientMessage,
  GateEvent,
  Hold,
  Kind,
  Mode,
  PathStatus,
  Push,
  ReleaseReason,
  Scope,
  Target,
  UncleanPath,
  VolumeInfo,
  WaitInfo,
  Who,
} from '../broker/wire.ts';
import type { Dial } from './link.ts';

export interface ConnectOptions {
  /** The broker's Unix socket; or */
  readonly socket?: string;
  /** its address and token; or */
  readonly url?: string;
  readonly token?: string;
  /** its state directory, where the other three are found. */
  readonly stateDir?: string;
  /** `mount`, `hold`, `sdk`, …: for people to read. */
  readonly kind: string;
  readonly pid?: number;
  readonly host?: string;
  readonly clock?: Clock;
  /** Milliseconds of a clock that also counts suspend (CLOCK_BOOTTIME). Default: `os.uptime()`, 10 ms steps. */
  readonly bootMs?: () => number;
  /** Opens connections in place of WebSockets: for simulations. */
  readonly dial?: Dial;
  /** How long to try to reach the broker at first. Default 5,000. */
  readonly connectMs?: number;
}

export interface AcquireOptions {
  readonly owner: string;
  /** Default `default`. */
  readonly volume?: string;
  /** One target: a path, with mode (default write) and scope (default file); or several. */
  readonly path?: string;
  readonly mode?: Mode;
  readonly scope?: Scope;
  readonly targets?: readonly Target[];
  /** Default `name`. */
  readonly kind?: Kind;
  /** 0 tries, null waits without limit; absent: the broker's default. */
  readonly waitMs?: number | null;
  readonly leaseMs?: number | null;
  readonly holdCapMs?: number | null;
  readonly who?: Who;
  readonly requestId?: string;
}

/** A hold, and what is unclean where it was granted: somebody may still write there whom no lock stops. */
export type Granted = Hold & { readonly unclean?: readonly UncleanPath[] };

export interface AcquireControl {
  /** Gives up waiting: the promise rejects with `cancelled`. */
  readonly signal?: AbortSignal;
  /** Called when the request waits, with who is in the way. */
  readonly onQueued?: (queued: Extract<Push, { push: 'queued' }>) => void;
}

/** A client's message without its number, which `send` gives. */
export type Outgoing = ClientMessage extends infer M
  ? M extends { id: number }
    ? Omit<M, 'id'>
    : never
  : never;

/** `message` is the answer; undefined once the session is lost or closed. */
export type SendCallback = (answer: Extract<BrokerMessage, { id: number }> | undefined) => void;

export interface GateSession {
  readonly id: string;
  readonly ttlMs: number;
  /** Connected right now. Without a connection requests wait, and are sent when it is back. */
  readonly connected: boolean;
  /** The session is lost or closed, for ever. */
  readonly ended: boolean;
  /** `bootMs()` at which this holder's authority ends, unless a renewal is answered before. */
  authorityEndsMs(): number;
  acquire(options: AcquireOptions, control?: AcquireControl): Promise<Granted>;
  release(hold: { readonly lockId: string; readonly owner: string }): Promise<{ gone: boolean }>;
  withLock<T>(
    options: AcquireOptions,
    run: (hold: Hold) => T | Promise<T>,
    control?: AcquireControl,
  ): Promise<T>;
  heartbeat(hold: { readonly lockId: string; readonly owner: string }, leaseMs?: number): Promise<void>;
  move(volume: string, from: string, to: string, tree: boolean): Promise<void>;
  exchange(volume: string, a: string, b: string, tree: boolean): Promise<void>;
  detach(volume: string, path: string, tree: boolean): Promise<void>;
  addTarget(lockId: string, target: Target): Promise<void>;
  retarget(requestId: string, targets: readonly Target[]): Promise<void>;
  break(lockId: string): Promise<void>;
  /** With `tree` also what lies below. */
  status(path: string, volume?: string, tree?: boolean): Promise<PathStatus>;
  waits(): Promise<WaitInfo[]>;
  volumes(): Promise<VolumeInfo[]>;
  registerVolume(volume: {
    root: string;
    mount?: string | null;
    dev: string;
    ino: string;
  }): Promise<VolumeInfo>;
  history(path: string, volume?: string, limit?: number): Promise<GateEvent[]>;
  /** Events from now on; a `gap` says how many were left out. Returns what ends it. */
  subscribe(onEvent: (event: GateEvent) => void, onGap?: (missed: number) => void): () => void;
  /** The low form: numbers the message, sends it with this turn's others, calls back with its answer. An acquire needs a
   * `requestId`, see `newRequestId`. Survives reconnects like everything else. */
  send(message: Outgoing, callback: SendCallback): number;
  newRequestId(): string;
  /** Pushes as they come (`queued`, `lost`, …), for users of `send`. */
  onPush: ((push: Push) => void) | undefined;
  /** Called at once when a hold ended other than by its release. */
  onHoldLost: ((lockId: string, reason: ReleaseReason) => void) | undefined;
  /** Called once, at once, when the session and all it held is lost: the broker said so, or authority ran out. */
  onLost: ((why: string) => void) | undefined;
  /** Connection lost (false) and back (true). */
  onConnection: ((connected: boolean) => void) | undefined;
  /** Gives everything back and ends the session. */
  close(unclean?: boolean): Promise<void>;
}
