import { ERRORS, type ErrorCode } from '../base/errors.ts';
import type { Target } from '../lock/types.ts';
import * as sys from '../sys/index.ts';
import type { Actor, Caller } from './actors.ts';
import type { Grant, Pending } from './locks.ts';
import type { Dentry, Node } from './node.ts';
import { scratch } from './scratch.ts';
import type { View } from './view.ts';

/** How long a waiter whose name vanished waits for it: editors and git remove, then create. */
const NAME_BACK_MS = 100;
const NAME_LOOK_MS = 10;
/** open(2) flag in FUSE_OPEN of an exec (FMODE_EXEC, include/linux/fs.h). */
export const FMODE_EXEC = 0x20;
/** Told to whom EDEADLK is answered because of processes that wait for each other. */
export const STANDSTILL = 'Waiting would never end: who holds it waits for the process that asks.';

/** What an open was granted. `grant` null: it takes no lock. */
export interface Opened {
  readonly actor: Actor;
  readonly grant: Grant | null;
  /** The file below, opened for `accessOf(flags)`, or -1: nothing needed it yet. */
  readonly fd: number;
}

/**
 * One open on its way to its lock: find the actor, ask, wait, look whether the name still leads to this inode.
 * Ends by exactly one call of `done`, unless it is cancelled first.
 */
export class Opening {
  readonly caller: Caller;
  readonly node: Node;
  readonly #view: View;
  readonly #flags: number;
  readonly #done: (error: number, opened: Opened | null) => void;
  readonly #path: string | null;
  readonly #targets: readonly Target[];
  #actor: Actor | null = null;
  #pending: Pending | null = null;
  #kept: Grant | null = null;
  /** The name was resolved again just before: it is not asked for again. */
  #secondArrival: boolean;
  #joined = false;
  #fd = -1;
  #timer: { cancel(): void } | null = null;
  #over = false;

  constructor(
    view: View,
    caller: Caller,
    node: Node,
    flags: number,
    resolved: boolean,
    done: (error: number, opened: Opened | null) => void,
  ) {
    this.#view = view;
    this.caller = caller;
    this.node = node;
    this.#flags = flags;
    this.#secondArrival = resolved;
    this.#done = done;
    const plan = view.planner.ofOpen(node, opensForWriting(flags) ? 'write' : 'read');
    this.#path = plan?.path ?? null;
    this.#targets = plan?.targets ?? [];
  }

  start(): void {
    if (this.#path === null) {
      this.#view.withActor(this.caller, (actor) => this.#finish(0, { actor, grant: null, fd: -1 }), true);
      return;
    }
    const kept = this.#view.kept.take(this.caller.tid, this.#path);
    if (kept !== null) {
      // It is asked for again while the grant is kept: that may have gone with the inode that stood here before, if its
      // name was changed while the grant was on its way. Where it still stands it is granted at once.
      this.#secondArrival = true;
      this.#kept = kept;
    }
    this.#view.withActor(this.caller, (actor) => {
      if (this.#over) return;
      this.#actor = actor;
      this.#ask(actor.owner);
    });
  }

  /** Gives up: leaves the queue and answers nothing. */
  cancel(): void {
    if (this.#over) return;
    this.#over = true;
    this.#pending?.cancel();
    this.#timer?.cancel();
    this.#kept?.release();
  }

  #ask(owner: string): void {
    const waitMs = this.#view.waitMsOf(this.#actor!, this.#flags);
    this.#pending = this.#view.request(this.caller, owner, this.#actor!, 'handle', this.#targets, waitMs, {
      granted: (grant) => this.#granted(this.#actor!, grant),
      queued: () => this.#queued(),
      join: (owner) => this.#join(owner),
      refused: (code, message) => this.#refused(code, message),
    });
  }

  /** Before it waits: a process that has the inode open already, or whose ancestor has, joins that lock. */
  #queued(): void {
    if (this.#joined || this.node.handles.size === 0) return;
    this.#joined = true;
    this.#view.joinable(this.caller, this.node, (owner) => {
      if (this.#over || owner === null || owner === this.#actor!.owner || !this.#pending!.waits) return;
      this.#pending!.cancel();
      this.#ask(owner);
    });
  }

  /**
   * The holder waits for this very process, and can do nothing before it: as one they go on. But what the holder still has to
   * read is not cut off under it, and nobody can be one with two.
   */
  #join(owner: string): void {
    const cutsOff = (this.#flags & sys.O_TRUNC) !== 0 && !this.#view.writes(owner, this.node);
    const refused = cutsOff || this.#pending!.owner !== this.#actor!.owner || !this.#view.holds(owner);
    this.#pending!.cancel();
    if (refused) return this.#refused('deadlock', STANDSTILL);
    this.#ask(owner);
  }

  #granted(actor: Actor, grant: Grant): void {
    this.#kept?.release();
    this.#kept = null;
    if (this.#over) {
      grant.release();
      return;
    }
    this.#verify(actor, grant, this.#view.clock.nowMs() + NAME_BACK_MS);
  }

  /** Every open checks after its grant that its name still leads to this inode. */
  #verify(actor: Actor, grant: Grant, untilMs: number): void {
    const dentry = this.node.dentry;
    const stat = scratch;
    const path = dentry === undefined ? null : this.#view.pathIn(dentry.parent, dentry.name);
    if (this.#secondArrival || (path === this.#path && this.#reached(dentry!, stat))) {
      if (!this.#secondArrival) this.#view.looked(this.node, stat);
      if (stat.nlink > 0 && !this.#secondArrival) this.node.nlink = stat.nlink;
      this.#finish(0, { actor, grant, fd: this.#fd });
      return;
    }
    const there = this.#view.exists(this.#path!);
    if (there) {
      this.#view.kept.keep(this.caller.tid, this.#path!, grant);
      this.#finish(-sys.ESTALE, null);
    } else if (this.#view.clock.nowMs() < untilMs) {
      this.#timer = this.#view.clock.after(NAME_LOOK_MS, () => {
        if (this.#over) grant.release();
        else this.#verify(actor, grant, untilMs);
      });
      this.#kept = grant;
    } else {
      // Whoever may make the file (O_CREAT, of which an open does not tell) comes back to do so; others find that it is gone.
      this.#view.kept.keep(this.caller.tid, this.#path!, grant);
      this.#finish(-sys.ESTALE, null);
    }
  }

  /** Without passthrough the file is opened anyway, which answers the question as well. */
  #reached(dentry: Dentry, stat: sys.StatBuf): boolean {
    const { tree, options } = this.#view;
    if (!options.passthrough) {
      this.#fd = tree.openByName(this.node, accessOf(this.#flags), stat);
      if (this.#fd >= 0) return true;
    }
    return tree.leadsTo(dentry.parent, dentry.name, this.node, stat);
  }

  #refused(code: ErrorCode, message: string): void {
    this.#kept?.release();
    this.#view.refused(this.#actor, this.#targets, code, message);
    this.#finish(-errnoOf(code), null);
  }

  #finish(error: number, opened: Opened | null): void {
    if (this.#over) {
      opened?.grant?.release();
      if (this.#fd >= 0) sys.close(this.#fd);
      return;
    }
    this.#over = true;
    this.#done(error, opened);
  }
}

export function opensForWriting(flags: number): boolean {
  return (flags & sys.O_ACCMODE) !== sys.O_RDONLY || (flags & sys.O_TRUNC) !== 0;
}

/** Of an open's flags, those with which the file below is opened for it. */
export function accessOf(flags: number): number {
  const access = flags & sys.O_ACCMODE;
  const cuts = (flags & sys.O_TRUNC) !== 0 && access === sys.O_RDONLY;
  return (cuts ? sys.O_RDWR : access) | (flags & sys.O_NOATIME);
}

export function errnoOf(code: ErrorCode): number {
  return sys.errnoNumber(ERRORS[code].errno);
}

export function covers(held: readonly Target[], wanted: readonly Target[]): boolean {
  return wanted.every((w) =>
    held.some((h) => h.path === w.path && (h.mode === w.mode || (h.mode === 'write' && w.mode === 'read'))),
  );
}
