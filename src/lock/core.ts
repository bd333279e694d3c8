/**
 * The lock core: who may have what now, who waits, and who goes next. A plain synchronous state machine,
 * `(state, command, now) -> effects`: no clock, no I/O, no chance. The broker and the view both run it; docs of
 * the rules are in `docs/`, of the words in `types.ts`.
 *
 * How a request flows. `apply` gives it a ticket and enters its targets into the volume's `Tree` (tree.ts), an
 * index of held and waiting entries by path. If its owner has it covered (owners.ts) or nothing stands in its way,
 * it becomes a hold; else it watches one thing that does (engine.ts) and is looked at again when that changes.
 * Before it may wait, deadlock.ts asks whether its waiting would close a cycle. Renames are in moves.ts.
 *
 * What the shell around it has to do: draw tickets, tokens and ids that never come again (`Counters`), store
 * effects before it answers, send `tick` at `nextDeadlineMs()`, `load` what it stored after a restart.
 *
 * What is NOT promised:
 *  - A hold is a right, not a fence: a holder that lost it may not know yet. Compare fencing tokens.
 *  - After `move`, `exchange`, `add_target` and `adopt` two owners' conflicting holds may stand on one path: inodes went
 *    where they went. Nothing is broken for that; nobody new gets in beside them.
 *  - Leases and wait limits end at the next `tick`, not by themselves: a heartbeat that comes before it saves the lease.
 *  - Request ids are remembered as long as the request waits or holds, not longer.
 *  - Times may come from any clock that only goes forward; `load` takes them as they were stored.
 */
import { GateError } from '../base/errors.ts';
import { LIMITS } from '../base/limits.ts';
import { findCycle } from './deadlock.ts';
import { deadlockMessage, Engine } from './engine.ts';
import { addTarget, detach, exchange, move } from './moves.ts';
import { carryTickets, coverage } from './owners.ts';
import { isBelow } from './paths.ts';
import { Queries } from './queries.ts';
import { Lock, Wait } from './state.ts';
import type { AcquireRequest, Command, Counters, Effect, Hold, Target, Waiter } from './types.ts';
import { checkMs, checkPath, checkRequest, checkTarget, checkTargets, type LockLimits } from './validate.ts';

export interface LockCoreOptions {
  readonly counters: Counters;
  readonly limits?: Partial<LockLimits>;
}

type CommandOf<T extends Command['type']> = Extract<Command, { type: T }>;

export class LockCore extends Queries {
  readonly #engine: Engine;
  readonly #limits: LockLimits;

  constructor({ counters, limits }: LockCoreOptions) {
    super();
    this.#engine = new Engine(this.tables, counters);
    this.#limits = { ...LIMITS, ...limits };
  }

  /**
   * Does one command at a time that never goes back, and gives what it caused, in order. Throws a GateError
   * (`invalid_request`, `limit`, `not_found`, `owner_mismatch`), and then nothing has changed.
   */
  apply(command: Command, nowMs: number): Effect[] {
    const engine = this.#engine;
    engine.effects = [];
    this.#do(command, nowMs);
    engine.settle(nowMs);
    return engine.effects;
  }

  /** When the next `tick` has something to do; null: not until another command changes that. */
  nextDeadlineMs(): number | null {
    if (this.#engine.hasAgenda) return 0;
    const timer = this.#engine.timers.peek()?.at ?? Number.POSITIVE_INFINITY;
    const cap = this.#engine.caps.peek()?.at ?? Number.POSITIVE_INFINITY;
    const next = Math.min(timer, cap);
    return next === Number.POSITIVE_INFINITY ? null : next;
  }

  /**
   * Enters what was stored into a core that has done nothing yet; may be called again for more, the waiters last. What
   * can go on does so at the next command: send a `tick`.
   */
  load(holds: Iterable<Hold>, waiters: Iterable<Waiter>): void {
    const engine = this.#engine;
    for (const hold of holds) this.#insert(hold);
    for (const waiter of [...waiters].sort((a, b) => a.ticket - b.ticket)) {
      const { request, ticket, arrivedAtMs, deadlineMs } = waiter;
      const lock = this.#lock(request, ticket);
      lock.wait = new Wait(request, arrivedAtMs, deadlineMs);
      this.#place(lock, request.targets);
      carryTickets(lock);
      engine.enqueue(lock);
      engine.wake(lock);
      engine.suspect(lock.owner);
    }
  }

  #do(command: Command, nowMs: number): void {
    switch (command.type) {
      case 'acquire':
        this.#acquire(command.request, nowMs);
        break;
      case 'adopt':
        this.#adopt(command.hold, nowMs);
        break;
      case 'release':
        this.#release(command);
        break;
      case 'cancel':
        this.#cancel(command);
        break;
      case 'heartbeat':
        this.#heartbeat(command, nowMs);
        break;
      case 'end_session':
        this.#endSession(command);
        break;
      case 'away':
        this.#away(command);
        break;
      case 'break':
        this.#engine.end(this.#held(command.lockId), 'forced');
        break;
      case 'retarget':
        this.#retarget(command);
        break;
      case 'tick':
        this.#tick(nowMs);
        break;
      default:
        this.#rename(command);
        break;
    }
  }

  // ---- acquire -----------------------------------------------------------------------------------------

  #acquire(request: AcquireRequest, nowMs: number): void {
    const known = this.tables.findSession(request.session)?.requests.get(request.requestId);
    if (known !== undefined) {
      this.#repeat(known, request.requestId, nowMs);
      return;
    }
    checkRequest(request, this.#limits);
    const lock = this.#lock(request, this.#engine.counters.nextTicket());
    lock.wait = new Wait(request, nowMs, request.waitMs === null ? null : nowMs + request.waitMs);
    this.#place(lock, request.targets);
    if (!this.#decide(lock, nowMs)) this.#drop(lock);
  }

  /** Grants or queues a new request; false when it came to nothing or joined a hold. */
  #decide(lock: Lock, nowMs: number): boolean {
    const engine = this.#engine;
    const covered = coverage(lock);
    if (covered instanceof Lock) {
      engine.grant(lock, nowMs, false, covered);
      return false;
    }
    if (lock.session.locks >= this.#limits.locksPerSession)
      return this.#refuseNew(
        lock,
        'limit',
        `session: it has ${this.#limits.locksPerSession} locks and waiting requests already`,
      );
    if (covered === 'several') {
      engine.grant(lock, nowMs, false, covered);
      return true;
    }
    const contended = lock.tree.hasWaiters;
    if (contended) carryTickets(lock);
    const blocker = engine.findBlocker(lock);
    // With an earlier ticket than its own it may step before those who wait: that too can close a cycle.
    const passes =
      contended &&
      lock.owner.waiting.size > 0 &&
      lock.entries.some((one) => one.effectiveTicket < lock.ticket);
    if (blocker === null && !passes) {
      engine.grant(lock, nowMs, false, 'none');
      return true;
    }
    if (blocker !== null) {
      if (lock.wait!.request.waitMs === 0)
        return this.#refuseNew(lock, 'timeout', describeBlocker(lock, blocker));
      const full = lock.entries.find((one) => one.node.waiters >= this.#limits.waitersPerKey);
      if (full !== undefined)
        return this.#refuseNew(
          lock,
          'limit',
          `targets: ${this.#limits.waitersPerKey} requests wait for '${full.target.path}' already`,
        );
    }
    return this.#queue(lock, blocker, nowMs);
  }

  #queue(lock: Lock, blocker: Lock | null, nowMs: number): boolean {
    const engine = this.#engine;
    carryTickets(lock);
    engine.enqueue(lock);
    const cycle = lock.owner.locks > 1 ? findCycle(lock.owner) : null;
    if (cycle !== null) {
      engine.refuse(lock, 'deadlock', deadlockMessage(cycle.owners), cycle.owners);
      return true;
    }
    if (blocker === null) {
      engine.grant(lock, nowMs, false, 'none');
      return true;
    }
    engine.watch(lock, blocker);
    engine.effects.push({ type: 'queued', waiter: this.waiterOf(lock), blockers: this.blockerNames(lock) });
    return true;
  }

  #repeat(lock: Lock, requestId: string, nowMs: number): void {
    const effects = this.#engine.effects;
    if (lock.hold === null)
      effects.push({ type: 'queued', waiter: this.waiterOf(lock), blockers: this.blockerNames(lock) });
    else {
      lock.toldMs = nowMs;
      effects.push({ type: 'granted', hold: lock.hold, requestId, waited: false, again: true });
    }
  }

  #refuseNew(lock: Lock, reason: 'limit' | 'timeout', message: string): false {
    const { request } = lock.wait!;
    this.#engine.effects.push({ type: 'refused', request, ticket: lock.ticket, reason, message });
    return false;
  }

  #lock({ owner, session, volume, kind }: AcquireRequest | Hold, ticket: number): Lock {
    const { tables } = this;
    return new Lock(ticket, tables.owner(owner), tables.session(session), tables.tree(volume), kind);
  }

  #place(lock: Lock, targets: readonly Target[]): void {
    lock.entries = targets.map((target) => this.tables.entry(lock, target));
  }

  #drop(lock: Lock): void {
    for (const entry of lock.entries) lock.tree.prune(entry.node);
    this.tables.forget(lock);
  }

  #adopt(hold: Hold, nowMs: number): void {
    if (this.tables.locks.has(hold.lockId)) return;
    checkRequest({ ...hold, waitMs: null }, this.#limits);
    const engine = this.#engine;
    const { requestId } = hold;
    const known = this.tables.findSession(hold.session)?.requests.get(requestId);
    const waited = known !== undefined && known.hold === null;
    if (waited) engine.dequeue(known);
    const adopted = { ...hold, ticket: engine.counters.nextTicket() };
    const lock = this.#insert(adopted);
    lock.toldMs = nowMs;
    engine.effects.push({ type: 'granted', hold: adopted, requestId, waited, again: false });
    engine.coverageChanged(lock.owner);
  }

  /** Enters a hold whatever it conflicts with. */
  #insert(hold: Hold): Lock {
    const lock = this.#lock(hold, hold.ticket);
    lock.entries = hold.detached ? [] : hold.targets.map((target) => this.tables.entry(lock, target));
    this.tables.enter(lock);
    this.#engine.insertHold(lock, hold);
    return lock;
  }

  // ---- the other commands ------------------------------------------------------------------------------

  #held(lockId: string): Lock {
    const lock = this.tables.locks.get(lockId);
    if (lock === undefined)
      throw new GateError('not_found', `lockId: there is no lock '${lockId}'`, { lockId });
    return lock;
  }

  #ofOwner(lockId: string, owner: string): Lock {
    const lock = this.#held(lockId);
    if (lock.owner.name !== owner)
      throw new GateError('owner_mismatch', `owner: lock '${lockId}' belongs to '${lock.owner.name}'`, {
        lockId,
      });
    return lock;
  }

  #release({ lockId, owner, session }: CommandOf<'release'>): void {
    const lock = this.#ofOwner(lockId, owner);
    if (session !== undefined && lock.session.name !== session)
      throw new GateError('owner_mismatch', `session: lock '${lockId}' belongs to another session`, {
        lockId,
      });
    this.#engine.giveBack(lock);
  }

  #cancel({ requestId, session }: CommandOf<'cancel'>): void {
    const lock = this.tables.findSession(session)?.requests.get(requestId);
    if (lock === undefined) return;
    if (lock.hold === null) this.#engine.refuse(lock, 'cancelled', 'The waiter gave up.');
    else this.#engine.giveBack(lock, requestId);
  }

  #heartbeat(command: CommandOf<'heartbeat'>, nowMs: number): void {
    const lock = this.#ofOwner(command.lockId, command.owner);
    if (command.leaseMs !== undefined) checkMs(command.leaseMs, 'leaseMs', 1);
    const leaseMs = command.leaseMs === undefined ? lock.hold!.leaseMs : command.leaseMs;
    const leaseExpiresAtMs = leaseMs === null ? null : nowMs + leaseMs;
    lock.hold = { ...lock.hold!, leaseMs, leaseExpiresAtMs };
    this.#engine.setTimer(lock, leaseExpiresAtMs);
    this.#engine.effects.push({ type: 'hold_changed', hold: lock.hold, why: 'renewed' });
  }

  #endSession({ session, reason }: CommandOf<'end_session'>): void {
    const locks = [...new Set(this.tables.findSession(session)?.requests.values())].sort(
      (a, b) => a.ticket - b.ticket,
    );
    const why = reason === 'released' ? 'cancelled' : 'session_lost';
    for (const lock of locks) if (lock.hold === null) this.#engine.refuse(lock, why, 'Its session ended.');
    for (const lock of locks) if (!lock.ended) this.#engine.end(lock, reason);
  }

  #away({ sessions, away }: CommandOf<'away'>): void {
    for (const name of sessions) {
      const session = this.tables.findSession(name);
      if (session !== undefined) session.away = away;
    }
  }

  #retarget({ requestId, session, targets }: CommandOf<'retarget'>): void {
    const lock = this.tables.findSession(session)?.requests.get(requestId);
    if (lock === undefined || lock.hold !== null)
      throw new GateError('not_found', `requestId: no request '${requestId}' waits`, { requestId });
    checkTargets(targets, this.#limits);
    const had = new Set(lock.entries.map((entry) => entry.target.path));
    for (const { path } of targets)
      if (!had.has(path) && lock.tree.waitersAt(path) >= this.#limits.waitersPerKey)
        throw new GateError(
          'limit',
          `targets: ${this.#limits.waitersPerKey} requests wait for '${path}' already`,
          { path },
        );
    lock.wait!.request = { ...lock.wait!.request, targets };
    this.#engine.replaceWaitingTargets(lock, targets);
    this.#engine.effects.push({ type: 'waiter_changed', waiter: this.waiterOf(lock) });
  }

  #rename(command: CommandOf<'move' | 'exchange' | 'detach' | 'add_target'>): void {
    const engine = this.#engine;
    if (command.type === 'add_target') {
      checkTarget(command.target, 'target');
      const lock = this.#held(command.lockId);
      if (lock.hold!.targets.length >= this.#limits.targetsPerRequest && !lock.hold!.detached)
        throw new GateError('limit', `target: the lock has ${this.#limits.targetsPerRequest} already`);
      addTarget(engine, lock, command.target);
      return;
    }
    const { volume, tree, by } = command;
    if (command.type === 'detach') {
      checkPath(command.path, 'path');
      detach(engine, volume, command.path, tree, by);
      return;
    }
    const [from, to] = command.type === 'move' ? [command.from, command.to] : [command.a, command.b];
    checkPath(from, command.type === 'move' ? 'from' : 'a');
    checkPath(to, command.type === 'move' ? 'to' : 'b');
    if (tree && (isBelow(from, to) || isBelow(to, from)))
      throw new GateError('invalid_request', `${command.type}: '${from}' and '${to}' lie one in the other`);
    if (command.type === 'move') move(engine, volume, from, to, tree, by);
    else exchange(engine, volume, from, to, tree, by);
  }

  /** One end at a time, in order of time: what an earlier one lets in may not be ended by a later one. */
  #tick(nowMs: number): void {
    const engine = this.#engine;
    engine.settle(nowMs);
    for (let due = engine.timers.peek(); due !== undefined && due.at <= nowMs; due = engine.timers.peek()) {
      const lock = due.lock;
      if (lock.hold === null) engine.refuse(lock, 'timeout', describeTimeout(lock));
      else engine.end(lock, 'lease_expired');
      engine.settle(nowMs);
    }
  }
}

function describeBlocker(lock: Lock, blocker: Lock): string {
  const verb = blocker.hold === null ? 'waits for it first' : 'holds it';
  return `'${lock.entries[0]!.target.path}' is taken: '${blocker.owner.name}' ${verb}.`;
}

function describeTimeout(lock: Lock): string {
  const message = `'${lock.entries[0]!.target.path}' was not free within ${lock.wait!.request.waitMs} ms`;
  const { witness } = lock.wait!;
  return witness === null ? `${message}.` : `${message}: ${describeBlocker(lock, witness)}`;
}
