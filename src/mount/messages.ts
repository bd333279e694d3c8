/** What the mount's threads say to each other: the reactor (worker), the main thread and the prober (worker). */
import type { MessagePort } from 'node:worker_threads';
import type { ErrorCode } from '../base/errors.ts';
import type { UncleanPath } from '../client/index.ts';
import type { Hold, Region, Target } from '../lock/index.ts';
import type { Actor } from '../view/actors.ts';
import type { DelegateActivity, Delegation } from '../view/delegate.ts';
import type { LockRequest } from '../view/locks.ts';
import type { Rescued, RescueJob } from '../view/lost/messages.ts';
import type { StalePolicy } from '../view/stale.ts';
import type { LockWait, Verdict } from './standstill.ts';

/** The reactor to the main thread. */
export type FromReactor =
  | { readonly t: 'acquire'; readonly request: LockRequest }
  | { readonly t: 'cancel'; readonly requestId: string }
  | { readonly t: 'release'; readonly lockId: string; readonly owner: string }
  | { readonly t: 'move'; readonly from: string; readonly to: string; readonly tree: boolean }
  | { readonly t: 'exchange'; readonly a: string; readonly b: string; readonly tree: boolean }
  | { readonly t: 'detach'; readonly path: string; readonly tree: boolean }
  | {
      readonly t: 'returned';
      readonly epoch: string;
      readonly regions: readonly Region[];
      readonly holds: readonly Hold[];
    }
  | {
      readonly t: 'taken';
      readonly epoch: string;
      readonly give: string;
      readonly region: Region;
      readonly yes: boolean;
    }
  | { readonly t: 'reported'; readonly report: number; readonly holds: readonly Hold[] }
  /** It has heard of `session_lost`: what it asks for from here on is for the next session. */
  | { readonly t: 'session_lost_heard' }
  | { readonly t: 'activity'; readonly entries: readonly DelegateActivity[] }
  | { readonly t: 'add_target'; readonly lockId: string; readonly target: Target }
  | {
      readonly t: 'note';
      readonly path: string;
      readonly what: string;
      readonly owner: string;
      readonly message: string;
      readonly whose?: string | undefined;
    }
  /** A system call that may take long; answered by `done`. */
  | {
      readonly t: 'slow';
      readonly id: number;
      readonly call: 'fsync' | 'fdatasync' | 'syncfs';
      readonly fd: number;
    }
  /** Work on what would be lost (rescuer.ts); answered by `rescued`. */
  | { readonly t: 'rescue'; readonly id: number; readonly job: RescueJob }
  | {
      readonly t: 'clean';
      readonly ids: readonly string[];
      readonly still: readonly string[];
    }
  /** What `/.gate/who` shows; answered by `text`. */
  | { readonly t: 'who'; readonly id: number }
  | {
      readonly t: 'log';
      readonly level: 'debug' | 'info' | 'warn' | 'error';
      readonly message: string;
    }
  /** Wake who watches these paths of the view. */
  | { readonly t: 'wake'; readonly paths: readonly string[] }
  /** The reactor knows the waker. */
  | { readonly t: 'waker'; readonly pid: number }
  /** A notification whose writing may wait for the reactor itself. */
  | { readonly t: 'tell_kernel'; readonly message: Uint8Array }
  /** `writers`: handles that were still open for writing. */
  | { readonly t: 'ended'; readonly why: string; readonly writers: number };

/** The main thread to the reactor. */
export type ToReactor =
  | { readonly t: 'granted'; readonly requestId: string; readonly lockId: string; readonly token: number }
  | { readonly t: 'queued'; readonly requestId: string; readonly blockers: readonly string[] }
  | { readonly t: 'refused'; readonly requestId: string; readonly code: ErrorCode; readonly message: string }
  /** The holder in the way waits for this very request: it is to join that owner's lock. */
  | { readonly t: 'join'; readonly requestId: string; readonly owner: string }
  | { readonly t: 'done'; readonly id: number; readonly result: number }
  | { readonly t: 'text'; readonly id: number; readonly text: string }
  | { readonly t: 'rescued'; readonly id: number; readonly result: Rescued }
  /** Paths of the volume that are unclean. `all`: there are no others. */
  | { readonly t: 'unclean'; readonly paths: readonly UncleanPath[]; readonly all: boolean }
  /** One hold ended other than by its release: broken by force. */
  | { readonly t: 'hold_lost'; readonly lockId: string }
  | { readonly t: 'session_lost' }
  /** Process id of the waker; 0: it is gone. */
  | { readonly t: 'waker'; readonly pid: number }
  /** Until then (CLOCK_BOOTTIME, milliseconds) the session surely lives. */
  | { readonly t: 'authority'; readonly untilMs: number }
  | { readonly t: 'delegated'; readonly delegation: Delegation }
  | { readonly t: 'recall'; readonly epoch: string; readonly region: Region }
  | {
      readonly t: 'give';
      readonly epoch: string;
      readonly region: Region;
      readonly give: string;
      readonly tokens: Delegation['tokens'];
    }
  | { readonly t: 'report'; readonly report: number; readonly region: Region };

/** The reactor to the prober. */
export type ToProber =
  | { readonly t: 'actor'; readonly id: number; readonly tid: number; readonly uid: number }
  | {
      readonly t: 'ancestors';
      readonly id: number;
      readonly tid: number;
      readonly dev: number;
      readonly ino: string;
    };

/** The prober to the reactor. */
export type FromProber =
  | { readonly t: 'actor'; readonly id: number; readonly actor: Actor }
  | { readonly t: 'ancestors'; readonly id: number; readonly pids: readonly number[] }
  /** In place: from now on nobody works in the tree below. */
  | { readonly t: 'alone' };

/** The main thread to the prober, and its answer. */
export interface StandstillQuestion {
  readonly id: number;
  readonly waits: readonly LockWait[];
}
export interface StandstillAnswer {
  readonly id: number;
  readonly verdicts: readonly Verdict[];
}

/** The watcher's thread to the reactor. */
export type FromWatcher =
  /** What one read of fanotify gave, without our own. Answered by `notify`. */
  | { readonly t: 'events'; readonly bytes: Uint8Array<ArrayBuffer> }
  /** The notifications are written. */
  | { readonly t: 'notified' };

/** The reactor to the watcher's thread. */
export type ToWatcher =
  /** `repeat`: not the answer to `events`, and to have none. */
  { readonly t: 'notify' | 'repeat'; readonly messages: Uint8Array<ArrayBuffer> } | { readonly t: 'stop' };

export interface WatchData {
  /** The fanotify group. */
  readonly group: number;
  readonly port: MessagePort;
  /** Wakes the watcher's thread. */
  readonly wakeFd: number;
}

/** What remote clients are served with. */
export interface ServeData {
  readonly listenFd: number;
  /** Content of `user.gate` of the root, over there. */
  readonly about: string;
  readonly version: string;
  readonly volume: string;
  /** Of the root's folder. */
  readonly name: string;
  /** Of the root. */
  readonly owner: { readonly uid: number; readonly gid: number };
  readonly ttlMs: number;
}

/** What the reactor's thread is started with. */
export interface ReactorData {
  readonly fuseFd: number;
  readonly wakeFd: number;
  readonly rootFd: number;
  readonly privileged: boolean;
  readonly passthrough: boolean;
  readonly maxStackDepth: number;
  readonly descriptorsMax: number;
  readonly mountDev: number;
  /** What the person wants; undefined: see validity.ts. */
  readonly attrValidMs: number | undefined;
  /** Changes beside the view are followed; null: they are not. */
  readonly watch: WatchData | null;
  readonly waitMs: number | null;
  readonly lockIgnored: boolean;
  readonly scanners: readonly string[];
  readonly nonblockWaiters: readonly string[];
  readonly requestPrefix: string;
  readonly staleWrites: StalePolicy;
  readonly keepBytes: number;
  /** Content of the root's `user.gate` attribute. */
  readonly about: string;
  /** One owner for everybody in this view. */
  readonly owner: string | undefined;
  /** The socket for remote clients; null: there is none. */
  readonly serve: ServeData | null;
  /** To the main thread. */
  readonly main: MessagePort;
  readonly prober: MessagePort;
}
