/**
 * How a change of names or attributes waits for its lock with no kernel lock held.
 *
 * The kernel holds directory and inode locks while it asks for a rename, unlink, create and the like. Parking such a
 * request would freeze the directory for everybody, the lock's holder included. So at its first arrival:
 * queue its ticket, mark the parent's attributes stale in the kernel, answer ESTALE. The kernel drops its
 * locks and runs the call once more (retry_estale, linux/namei.h), and the first thing it asks, from the same thread, is GETATTR of
 * the parent: that is parked until the grant. Then the operation comes again and is carried out.
 *
 * The kernel retries once only: the second arrival is decided at once, done or refused; one that could not be parked waits
 * for the broker's answer, but not for its turn. A reservation whose thread does
 * not come for it within a second is dropped, unless it is seen to be on its way (kept.ts).
 */

import type { FuseApi, Request } from '../fuse/types.ts';
import * as E from '../sys/errno.ts';
import type { Caller } from '../view/actors.ts';
import { awaitThread } from '../view/kept.ts';
import type { Grant } from '../view/locks.ts';
import type { Node } from '../view/node.ts';
import { covers, errnoOf } from '../view/opening.ts';
import { Reservation } from '../view/reserve.ts';
import type { PathOp, Plan } from '../view/targets.ts';
import type { View } from '../view/view.ts';

/**
 * How long a second arrival that was never parked waits for the broker's answer: the thread is invisible, or its path
 * names no directory of ours (/proc/self/fd/N). A known conflict ends this at once.
 */
const UNPARKED_MS = 50;

/** Carries the operation out. It owns the grant and must release it or keep it. */
export type Run = (grant: Grant | null, plan: Plan, secondArrival: boolean) => void;

class Replay {
  readonly op: PathOp;
  readonly caller: Caller;
  reservation!: Reservation;
  parked: Request | null = null;
  /** Somebody is in the way. */
  queued = false;
  timer: { cancel(): void } | null = null;
  /** Called when the reservation is settled or in the queue, by an arrival that cannot be parked. */
  onAnswer: (() => void) | null = null;

  constructor(op: PathOp, caller: Caller) {
    this.op = op;
    this.caller = caller;
  }
}

export class Replays {
  readonly #view: View;
  readonly #api: FuseApi;
  /** Answers a GETATTR. */
  readonly #getattr: (req: Request, node: Node) => void;
  readonly #byThread = new Map<number, Replay>();

  constructor(view: View, api: FuseApi, getattr: (req: Request, node: Node) => void) {
    this.#view = view;
    this.#api = api;
    this.#getattr = getattr;
  }

  get size(): number {
    return this.#byThread.size;
  }

  /**
   * A path operation arrived: carries it out at once, or sends it round to wait for its turn. `replayable`, asked only when it
   * would have to wait: false when the caller may have come by a descriptor, which the kernel does not try again.
   */
  arrive(req: Request, op: PathOp, run: Run, replayable: () => boolean = () => true): void {
    const caller = callerOf(req);
    const before = this.#byThread.get(req.pid);
    if (before !== undefined && sameOp(before.op, op) && (req.pid !== 0 || before.caller.uid === req.uid)) {
      this.#again(req, before, run);
      return;
    }
    const plan = this.#view.planner.of(op);
    // The name may lead to another inode by now: it is the same call all the same.
    const again = before !== undefined && req.pid !== 0 && sameName(before, op, plan);
    if (again && covers(before.reservation.plan.targets, plan.targets)) return this.#again(req, before, run);
    if (before !== undefined) this.#drop(before);
    if (plan.targets.length === 0) return run(null, plan, false);
    // An open by this thread found its file gone, and comes back to make it anew: the kernel has tried twice now.
    const kept =
      op.op === 'create' && req.pid !== 0 ? this.#view.kept.take(req.pid, plan.targets[0]!.path) : null;
    if (kept !== null && covers(kept.targets, plan.targets)) return run(kept, plan, true);
    if (kept !== null) {
      kept.release();
      return this.#again(req, this.#reserve(req, caller, op, plan), run);
    }
    const grant = this.#view.tryNow(caller, kindOf(op, plan), plan.targets);
    if (grant !== null) run(grant, plan, false);
    else if (again) this.#api.replyError(req, E.EBUSY);
    else if (!replayable()) run(null, plan, false);
    else this.#begin(req, caller, op, plan);
  }

  /** A GETATTR arrived. True: it is parked, and will be answered when its thread's operation has its lock. */
  park(req: Request, node: Node): boolean {
    const replay = this.#byThread.get(req.pid);
    if (replay === undefined || req.pid === 0 || replay.parked !== null || replay.reservation.settled)
      return false;
    if (!replay.reservation.plan.parents.includes(node)) return false;
    replay.parked = req;
    replay.timer?.cancel();
    return true;
  }

  /** The parked GETATTR of this request was interrupted: its caller leaves the queue. False: it is not parked here. */
  interrupt(unique: number, stop: (tid: number) => boolean): 'stopped' | 'goes on' | 'unknown' {
    for (const replay of this.#byThread.values()) {
      if (replay.parked?.unique !== unique) continue;
      if (!stop(replay.caller.tid)) return 'goes on';
      const parked = replay.parked;
      this.#drop(replay);
      this.#api.replyError(parked, E.EINTR);
      return 'stopped';
    }
    return 'unknown';
  }

  /**
   * An OPEN came where a CREATE was expected: the name exists by now. Its grant is kept for that open. Where anything else was
   * expected the thread has given that up: nothing may stay reserved for who waits for something else.
   */
  opened(tid: number, parent: Node, name: string): void {
    const replay = this.#byThread.get(tid);
    if (replay === undefined) return;
    if (replay.op.op !== 'create' || replay.op.parent !== parent || replay.op.name !== name) {
      if (tid !== 0) this.#drop(replay);
      return;
    }
    this.#byThread.delete(tid);
    this.#free(replay);
    const grant = replay.reservation.take();
    const path = this.#view.pathIn(parent, name);
    if (grant !== null && path !== null) this.#view.kept.keep(tid, path, grant);
    else grant?.release();
  }

  /** Nobody comes back for any of them. */
  end(): void {
    for (const replay of [...this.#byThread.values()]) this.#drop(replay);
  }

  #begin(req: Request, caller: Caller, op: PathOp, plan: Plan): void {
    this.#reserve(req, caller, op, plan);
    for (const parent of plan.parents) this.#api.notifyInvalInode(parent.id, -1, 0);
    this.#api.replyError(req, E.ESTALE);
  }

  #reserve(req: Request, caller: Caller, op: PathOp, plan: Plan): Replay {
    const replay = new Replay(op, caller);
    this.#byThread.set(req.pid, replay);
    for (const parent of plan.parents) parent.replays++;
    this.#await(replay);
    replay.reservation = new Reservation(this.#view, caller, plan, kindOf(op, plan), {
      settled: () => this.#settled(replay),
      queued: () => {
        replay.queued = true;
        replay.onAnswer?.();
      },
    });
    return replay;
  }

  /** For the park, and after the grant for the operation itself. */
  #await(replay: Replay): void {
    const { tid } = replay.caller;
    awaitThread(
      this.#view.clock,
      () => tid !== 0 && this.#view.isOnItsWay(tid),
      replay,
      () => this.#drop(replay),
    );
  }

  #settled(replay: Replay): void {
    replay.onAnswer?.();
    if (this.#byThread.get(replay.caller.tid) !== replay) return;
    if (replay.parked === null) return;
    this.#await(replay);
    const parked = replay.parked;
    replay.parked = null;
    const node = this.#view.tree.node(parked.nodeid);
    if (node === undefined) this.#api.replyError(parked, E.ESTALE);
    else this.#getattr(parked, node);
  }

  #again(req: Request, replay: Replay, run: Run): void {
    if (!replay.reservation.settled && !replay.queued) {
      replay.timer?.cancel();
      const timer = this.#view.clock.after(UNPARKED_MS, () => replay.onAnswer?.());
      replay.onAnswer = () => {
        replay.onAnswer = null;
        timer.cancel();
        this.#decide(req, replay, run);
      };
      return;
    }
    this.#decide(req, replay, run);
  }

  /** The second arrival is decided at once: a second ESTALE would reach the caller. */
  #decide(req: Request, replay: Replay, run: Run): void {
    if (this.#byThread.get(req.pid) === replay) this.#byThread.delete(req.pid);
    this.#free(replay);
    const refusal = replay.reservation.refusal;
    const grant = replay.reservation.take();
    if (grant === null) this.#api.replyError(req, refusal === null ? E.EBUSY : errnoOf(refusal.code));
    else if (this.#view.hasAuthority()) run(grant, replay.reservation.plan, true);
    else {
      grant.release();
      this.#api.replyError(req, E.ESTALE);
    }
  }

  #drop(replay: Replay): void {
    if (this.#byThread.get(replay.caller.tid) === replay) this.#byThread.delete(replay.caller.tid);
    this.#free(replay);
    replay.reservation.drop();
  }

  #free(replay: Replay): void {
    replay.timer?.cancel();
    replay.timer = null;
    const parents = replay.reservation.plan.parents;
    for (const parent of parents) {
      parent.replays--;
      this.#view.tree.release(parent);
    }
  }
}

/** `handle` for what will belong to an open file: such a hold follows its inode. */
function kindOf(op: PathOp, plan: Plan): 'handle' | 'name' {
  return op.op === 'create' || plan.handsOver ? 'handle' : 'name';
}

/** True when the call that began `before` may be this one, by the name that it is about. */
function sameName(before: Replay, op: PathOp, plan: Plan): boolean {
  const path = plan.targets[0]?.path;
  return before.op.op === op.op && path !== undefined && before.reservation.plan.targets[0]?.path === path;
}

function sameOp(a: PathOp, b: PathOp): boolean {
  if (a.op !== b.op) return false;
  if ('node' in a && 'node' in b && a.node !== b.node) return false;
  if ('parent' in a && 'parent' in b && (a.parent !== b.parent || a.name !== b.name)) return false;
  return (
    !(a.op === 'rename' && b.op === 'rename') || (a.newParent === b.newParent && a.newName === b.newName)
  );
}

export function callerOf(req: Request): Caller {
  return { tid: req.pid, uid: req.uid, gid: req.gid };
}
