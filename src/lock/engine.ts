import { CONFLICTS } from './conflict.ts';
import { findCycle } from './deadlock.ts';
import { Heap, type HeapItem } from './heap.ts';
import { forgetIds, learnIds, withoutRequest, withRequest } from './joined.ts';
import { addOwn, carriedTicket, carryTickets, coverage, coveredSince, removeOwn } from './owners.ts';
import { type Entry, Lock, type LockTimer, type Owner } from './state.ts';
import type { Tables } from './tables.ts';
import type { AcquireRequest, Counters, Effect, EndReason, Hold, ReleaseReason, Target } from './types.ts';

interface AgendaItem extends HeapItem {
  readonly lock: Lock;
}

/** When a hold may be broken for those who wait; never is Infinity. */
function capAtMs(lock: Lock): number {
  const hold = lock.hold!;
  return hold.holdCapMs === null ? Number.POSITIVE_INFINITY : hold.coveredSinceMs + hold.holdCapMs;
}

/**
 * The queue: who waits for what, and who goes next.
 *
 * Each waiter watches one *witness*, a lock that stands in its way: the nearest waiter before it, else a hold. As
 * long as the witness stands there, the waiter cannot go, so nothing needs to look at it. When the witness leaves
 * or changes, its watchers are put on the agenda; `settle` looks at each, in order of tickets, and either grants
 * it or finds it another witness. A queue of 10,000 writers is a chain in which each release touches one.
 */
export class Engine {
  readonly tables: Tables;
  readonly counters: Counters;
  /** Wait limits and leases; looked at by `tick` only. */
  readonly timers = new Heap<LockTimer>();
  /** Caps of holds that somebody watches. */
  readonly caps = new Heap<LockTimer>();
  readonly #agenda = new Heap<AgendaItem>();
  readonly #suspects = new Set<Owner>();
  effects: Effect[] = [];

  constructor(tables: Tables, counters: Counters) {
    this.tables = tables;
    this.counters = counters;
  }

  get hasAgenda(): boolean {
    return this.#agenda.size > 0;
  }

  // ---- waiters -----------------------------------------------------------------------------------------

  /** Puts a request into the queues. */
  enqueue(lock: Lock): void {
    this.tables.enter(lock);
    this.tables.waiting.add(lock);
    lock.owner.waiting.add(lock);
    lock.session.requests.set(lock.wait!.request.requestId, lock);
    for (const entry of lock.entries) lock.tree.addWaiting(entry);
    this.setTimer(lock, lock.wait!.deadlineMs);
  }

  /** Takes a request out of the queues; whoever watched it gets another look. */
  dequeue(lock: Lock): void {
    lock.ended = true;
    this.#leaveQueues(lock);
    lock.session.requests.delete(lock.wait!.request.requestId);
    this.setTimer(lock, null);
    this.tables.leave(lock);
    this.wakeWatchers(lock);
    // One that stood behind this one of its own owner now waits for itself.
    if (lock.owner.waiting.size > 0) this.suspect(lock.owner);
  }

  refuse(lock: Lock, reason: EndReason, message: string, cycle?: readonly string[]): void {
    const { request } = lock.wait!;
    this.dequeue(lock);
    this.effects.push({
      type: 'refused',
      request,
      ticket: lock.ticket,
      reason,
      message,
      ...(cycle && { cycle }),
    });
  }

  #leaveQueues(lock: Lock): void {
    for (const entry of lock.entries) lock.tree.removeWaiting(entry);
    this.tables.waiting.delete(lock);
    lock.owner.waiting.delete(lock);
    this.#unwatch(lock);
  }

  replaceWaitingTargets(lock: Lock, targets: readonly Target[]): void {
    const old = lock.entries;
    lock.entries = targets.map((target) => this.tables.entry(lock, target));
    carryTickets(lock);
    for (const entry of lock.entries) lock.tree.addWaiting(entry);
    for (const entry of old) lock.tree.removeWaiting(entry);
    this.wakeWatchers(lock);
    this.suspect(lock.owner);
    this.wake(lock);
  }

  // ---- holds -------------------------------------------------------------------------------------------

  /** Makes a hold of a request, or adds it to one that its owner has. */
  grant(lock: Lock, nowMs: number, waited: boolean, covered: 'none' | 'several' | Lock): void {
    const { request } = lock.wait!;
    const inQueue = this.tables.waiting.has(lock);
    if (covered instanceof Lock) {
      if (inQueue) this.dequeue(lock);
      this.#join(covered, request, nowMs, waited);
      return;
    }
    const plain: Hold = {
      lockId: this.counters.newLockId(),
      requestId: request.requestId,
      // The one copy of each name, not the request's own.
      session: lock.session.name,
      volume: request.volume,
      owner: lock.owner.name,
      kind: request.kind,
      targets: request.targets,
      ticket: lock.ticket,
      token: this.counters.nextToken(),
      count: 1,
      grantedAtMs: nowMs,
      coveredSinceMs: coveredSince(lock, nowMs),
      leaseMs: request.leaseMs,
      leaseExpiresAtMs: request.leaseMs === null ? null : nowMs + request.leaseMs,
      holdCapMs: request.holdCapMs,
      detached: false,
    };
    const hold = request.who === undefined ? plain : { ...plain, who: request.who };
    if (!inQueue) this.tables.enter(lock);
    this.insertHold(lock, hold);
    if (inQueue) this.#leaveQueues(lock);
    lock.wait = null;
    this.effects.push({ type: 'granted', hold, requestId: request.requestId, waited, again: false });
    this.#watchCap(lock);
    this.coverageChanged(lock.owner);
  }

  /** Enters a hold into the index; also one that was granted elsewhere, or before a restart. */
  insertHold(lock: Lock, hold: Hold): void {
    lock.hold = hold;
    this.tables.locks.set(hold.lockId, lock);
    learnIds(lock);
    for (const entry of lock.entries) this.addHeld(entry);
    this.setTimer(lock, hold.leaseExpiresAtMs);
  }

  addHeld(entry: Entry): void {
    entry.lock.tree.addHeld(entry);
    addOwn(entry);
  }

  removeHeld(entry: Entry): void {
    entry.lock.tree.removeHeld(entry);
    removeOwn(entry);
  }

  #join(into: Lock, request: AcquireRequest, nowMs: number, waited: boolean): void {
    const hold = into.hold!;
    const { requestId, leaseMs: asked } = request;
    const expires = asked === null ? null : nowMs + asked;
    const leaseExpiresAtMs =
      expires === null || hold.leaseExpiresAtMs === null ? null : Math.max(expires, hold.leaseExpiresAtMs);
    const leaseMs = asked === null || hold.leaseMs === null ? null : Math.max(asked, hold.leaseMs);
    into.hold = { ...withRequest(hold, requestId), leaseMs, leaseExpiresAtMs };
    into.toldMs = nowMs;
    this.setTimer(into, leaseExpiresAtMs);
    into.session.learn(requestId, into);
    this.effects.push({ type: 'granted', hold: into.hold, requestId, waited, again: true });
  }

  /**
   * Gives one count back: that of the request named, else of the oldest. Who releases has had an answer, and the oldest
   * was answered first; so a later one that is repeated, for want of its answer, is still known.
   */
  giveBack(lock: Lock, requestId = lock.hold!.requestId): void {
    if (lock.hold!.count === 1) {
      this.end(lock, 'released');
      return;
    }
    forgetIds(lock);
    lock.hold = withoutRequest(lock.hold!, requestId);
    learnIds(lock);
    this.effects.push({ type: 'released', hold: lock.hold, reason: 'released', gone: false });
  }

  /** Ends a hold whatever its count. */
  end(lock: Lock, reason: ReleaseReason): void {
    lock.ended = true;
    for (const entry of lock.entries) this.removeHeld(entry);
    forgetIds(lock);
    this.tables.locks.delete(lock.hold!.lockId);
    this.setTimer(lock, null);
    this.#unwatchCap(lock);
    this.tables.leave(lock);
    this.wakeWatchers(lock);
    lock.hold = { ...lock.hold!, count: 0 };
    this.effects.push({ type: 'released', hold: lock.hold, reason, gone: true });
    this.coverageChanged(lock.owner);
  }

  /** What an owner holds has changed: its waiters may carry other tickets now, or be covered. */
  coverageChanged(owner: Owner): void {
    if (owner.waiting.size === 0) return;
    for (const waiter of owner.waiting) {
      for (const entry of waiter.entries) {
        const ticket = carriedTicket(entry);
        if (ticket === entry.effectiveTicket) continue;
        if (ticket > entry.effectiveTicket) this.wakeWatchers(waiter);
        waiter.tree.reorder(entry, ticket);
      }
      this.wake(waiter);
    }
    this.suspect(owner);
  }

  // ---- witnesses ---------------------------------------------------------------------------------------

  wake(lock: Lock): void {
    const wait = lock.wait!;
    if (wait.onAgenda) return;
    wait.onAgenda = true;
    this.#agenda.push({ at: lock.ticket, tie: 0, index: -1, lock });
  }

  wakeWatchers(lock: Lock): void {
    for (const watcher of lock.watchers ?? []) {
      watcher.wait!.witness = null;
      this.wake(watcher);
    }
    lock.watchers = null;
    this.#unwatchCap(lock);
  }

  watch(lock: Lock, witness: Lock): void {
    const wait = lock.wait!;
    if (wait.witness !== witness) {
      this.#unwatch(lock);
      wait.witness = witness;
      witness.watchers ??= [];
      wait.watchedAt = witness.watchers.length;
      witness.watchers.push(lock);
    }
    if (witness.hold !== null) this.#watchCap(witness);
  }

  #unwatch(lock: Lock): void {
    const { witness, watchedAt } = lock.wait!;
    if (witness === null) return;
    const watchers = witness.watchers!;
    const last = watchers.pop()!;
    if (last !== lock) {
      watchers[watchedAt] = last;
      last.wait!.watchedAt = watchedAt;
    }
    lock.wait!.witness = null;
    if (watchers.length === 0) {
      witness.watchers = null;
      this.#unwatchCap(witness);
    }
  }

  #watchCap(lock: Lock): void {
    if (lock.capTimer !== null || lock.watchers === null) return;
    const at = capAtMs(lock);
    if (at === Number.POSITIVE_INFINITY) return;
    lock.capTimer = { at, tie: lock.ticket, index: -1, lock };
    this.caps.push(lock.capTimer);
  }

  #unwatchCap(lock: Lock): void {
    if (lock.capTimer === null) return;
    this.caps.remove(lock.capTimer);
    lock.capTimer = null;
  }

  setTimer(lock: Lock, at: number | null): void {
    if (lock.timer !== null) {
      if (lock.timer.at === at) return;
      this.timers.remove(lock.timer);
      lock.timer = null;
    }
    if (at === null) return;
    lock.timer = { at, tie: lock.ticket, index: -1, lock };
    this.timers.push(lock.timer);
  }

  /** Something that stands in a request's way, waiters before holds; null when nothing does. */
  findBlocker(lock: Lock): Lock | null {
    return this.#earlierWaiter(lock) ?? this.#conflictingHold(lock);
  }

  #earlierWaiter(lock: Lock): Lock | null {
    let latest: Entry | undefined;
    for (const entry of lock.entries) {
      const found = lock.tree.earlierWaiter(entry);
      if (found !== undefined && (latest === undefined || found.lock.ticket > latest.lock.ticket))
        latest = found;
    }
    return latest?.lock ?? null;
  }

  #conflictingHold(lock: Lock): Lock | null {
    for (const entry of lock.entries) {
      const found = lock.tree.conflictingHold(entry);
      if (found !== undefined) return found.lock;
    }
    return null;
  }

  // ---- settling ----------------------------------------------------------------------------------------

  /** These owners' waits may have come to close a cycle. */
  suspect(owner: Owner): void {
    this.#suspects.add(owner);
  }

  /** Grants all that can be granted, in order of tickets, then breaks what is past its cap, then cycles. */
  settle(nowMs: number): void {
    do {
      for (let item = this.#agenda.pop(); item !== undefined; item = this.#agenda.pop()) {
        const { lock } = item;
        if (lock.wait === null) continue;
        lock.wait.onAgenda = false;
        if (!lock.ended) this.#examine(lock, nowMs);
      }
    } while (this.#breakCapped(nowMs) || this.#refuseCycle());
  }

  #examine(lock: Lock, nowMs: number): void {
    this.tables.work.examined++;
    const covered = coverage(lock);
    const blocker = covered === 'none' ? this.findBlocker(lock) : null;
    if (blocker === null) this.grant(lock, nowMs, true, covered);
    else this.watch(lock, blocker);
  }

  /** Looks at the holds whose cap has passed and who watches them, until one waiter is let in. */
  #breakCapped(nowMs: number): boolean {
    const watchers: Lock[] = [];
    for (let due = this.caps.peek(); due !== undefined && due.at <= nowMs; due = this.caps.peek()) {
      this.#unwatchCap(due.lock);
      watchers.push(...(due.lock.watchers ?? []));
    }
    watchers.sort((a, b) => a.ticket - b.ticket);
    for (let i = 0; i < watchers.length; i++) {
      if (!this.#breakFor(watchers[i]!, nowMs)) continue;
      for (const later of watchers.slice(i + 1)) this.wake(later);
      return true;
    }
    return false;
  }

  /** Breaks every blocker of a waiter, when all are past their caps; else lets it watch one that is not. */
  #breakFor(waiter: Lock, nowMs: number): boolean {
    const ahead = this.#earlierWaiter(waiter);
    if (ahead !== null) {
      this.watch(waiter, ahead);
      return false;
    }
    const blockers = this.holdsAgainst(waiter);
    let last: Lock | undefined;
    for (const blocker of blockers)
      if (last === undefined || capAtMs(blocker) > capAtMs(last)) last = blocker;
    if (last !== undefined && capAtMs(last) > nowMs) {
      this.watch(waiter, last);
      return false;
    }
    const ordered = [...blockers].sort((a, b) => a.ticket - b.ticket);
    for (const blocker of ordered) this.end(blocker, 'cap');
    return ordered.length > 0;
  }

  /** All holds that conflict with a request. */
  holdsAgainst(lock: Lock): Set<Lock> {
    const blockers = new Set<Lock>();
    for (const asked of lock.entries) {
      const held = lock.tree.overlapping(asked.target.path, asked.isTree, CONFLICTS[asked.class]!, {
        held: true,
      });
      for (const entry of held) if (entry.lock.owner !== lock.owner) blockers.add(entry.lock);
    }
    return blockers;
  }

  #refuseCycle(): boolean {
    for (const owner of this.#suspects) {
      const cycle = findCycle(owner);
      if (cycle === null) {
        this.#suspects.delete(owner);
        continue;
      }
      this.refuse(cycle.newest, 'deadlock', deadlockMessage(cycle.owners), cycle.owners);
      return true;
    }
    return false;
  }
}

export function deadlockMessage(owners: readonly string[]): string {
  const shown = owners.length > 8 ? [...owners.slice(0, 8), '…'] : owners;
  return `Waiting would never end: ${[...shown, owners[0]].join(' waits for ')}.`;
}
