/**
 * The lock core once more, in the dumbest way: arrays, and after every command everything is looked at again. It
 * shares nothing with the real one but the words of types.ts. Slow, and meant to be read beside the design.
 */
import { GateError } from '../base/errors.ts';
import type { AcquireRequest, Command, Counters, Effect, Hold, Target, Waiter } from './types.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type Wanting = Pick<AcquireRequest, 'owner' | 'volume' | 'kind' | 'targets'>;
export type ModelHold = Mutable<Hold> & { ids: string[] };

const below = (path: string, dir: string) => path !== dir && (dir === '' || path.startsWith(`${dir}/`));
const inside = (path: string, place: string, tree: boolean) => path === place || (tree && below(path, place));
const overlap = (a: Target, b: Target) =>
  inside(a.path, b.path, b.scope === 'tree') || inside(b.path, a.path, a.scope === 'tree');
const within = (a: Target, b: Target) =>
  a.path === b.path ? b.scope === 'tree' || a.scope === 'file' : b.scope === 'tree' && below(a.path, b.path);

function conflict(a: Wanting, t: Target, b: Wanting, s: Target): boolean {
  if (a.owner === b.owner || a.volume !== b.volume || !overlap(t, s)) return false;
  if (t.mode === 'read' && s.mode === 'read') return false;
  if (t.mode === 'replace' && s.mode === 'read' && b.kind === 'handle') return false;
  if (s.mode === 'replace' && t.mode === 'read' && a.kind === 'handle') return false;
  return true;
}

export function holdsConflict(a: Wanting, b: Wanting): boolean {
  return a.targets.some((t) => b.targets.some((s) => conflict(a, t, b, s)));
}

function modeCovers(a: Wanting, t: Target, b: Wanting, s: Target): boolean {
  if (t.mode === 'write') return true;
  if (t.mode === 'replace') return s.mode === 'replace';
  return s.mode === 'read' && !(a.kind === 'handle' && b.kind === 'name');
}

const covers = (a: Wanting, b: Wanting, s: Target) =>
  a.owner === b.owner &&
  a.volume === b.volume &&
  a.targets.some((t) => within(s, t) && modeCovers(a, t, b, s));

type ModelWaiter = Waiter;

export class Model {
  holds: ModelHold[] = [];
  waiters: ModelWaiter[] = [];
  #effects: Effect[] = [];
  readonly #counters: Counters;
  readonly #waitersPerKey: number;
  readonly #locksPerSession: number;

  constructor(counters: Counters, limits: { waitersPerKey: number; locksPerSession: number }) {
    this.#counters = counters;
    this.#waitersPerKey = limits.waitersPerKey;
    this.#locksPerSession = limits.locksPerSession;
  }

  apply(command: Command, now: number): Effect[] {
    this.#effects = [];
    if (command.type === 'tick') this.#tick(now);
    else {
      this.#do(command, now);
      this.#settle(now);
    }
    return this.#effects;
  }

  // ---- the rule ----------------------------------------------------------------------------------------

  #live(): ModelHold[] {
    return this.holds.filter((hold) => !hold.detached);
  }

  #ticketOf(waiter: ModelWaiter, target: Target): number {
    const mine = this.#live().filter(
      (hold) =>
        hold.owner === waiter.request.owner &&
        hold.volume === waiter.request.volume &&
        hold.targets.some((held) => overlap(held, target)),
    );
    return Math.min(waiter.ticket, ...mine.map((hold) => hold.ticket));
  }

  #holdsBefore(waiter: ModelWaiter): ModelHold[] {
    return this.#live().filter((hold) => holdsConflict(hold, waiter.request));
  }

  #waitersBefore(waiter: ModelWaiter): ModelWaiter[] {
    const { request } = waiter;
    return this.waiters.filter((other) =>
      request.targets.some((t) =>
        other.request.targets.some(
          (s) =>
            conflict(request, t, other.request, s) && this.#ticketOf(other, s) < this.#ticketOf(waiter, t),
        ),
      ),
    );
  }

  #covered(waiter: ModelWaiter): boolean {
    const { request } = waiter;
    return request.targets.every((t) => this.#live().some((hold) => covers(hold, request, t)));
  }

  #mayGo(waiter: ModelWaiter): boolean {
    if (this.#covered(waiter)) return true;
    return this.#holdsBefore(waiter).length === 0 && this.#waitersBefore(waiter).length === 0;
  }

  /** The earliest hold that covers a request all by itself and may count it. */
  #joinable(request: AcquireRequest): ModelHold | undefined {
    return this.#live()
      .filter((hold) => hold.session === request.session && hold.kind === request.kind)
      .filter((hold) => request.targets.every((t) => covers(hold, request, t)))
      .sort((a, b) => a.ticket - b.ticket)[0];
  }

  // ---- grants and ends ---------------------------------------------------------------------------------

  #grant(waiter: ModelWaiter, now: number, waited: boolean): void {
    this.waiters = this.waiters.filter((other) => other !== waiter);
    const { request } = waiter;
    const { requestId } = request;
    const joinable = this.#joinable(request);
    if (joinable !== undefined) {
      const lease = request.leaseMs;
      joinable.count++;
      joinable.ids.push(requestId);
      const open = lease === null || joinable.leaseMs === null;
      joinable.leaseExpiresAtMs = open ? null : Math.max(now + lease, joinable.leaseExpiresAtMs!);
      joinable.leaseMs = open ? null : Math.max(lease, joinable.leaseMs!);
      this.#effects.push({ type: 'granted', hold: snapshot(joinable), requestId, waited, again: true });
      return;
    }
    const starts = this.#live()
      .filter((hold) => hold.owner === request.owner && hold.volume === request.volume)
      .filter((hold) => request.targets.some((t) => hold.targets.some((held) => within(t, held))))
      .map((hold) => hold.coveredSinceMs);
    const { session, volume, owner, kind, targets, leaseMs, holdCapMs } = request;
    const hold: ModelHold = {
      ...{ requestId, session, volume, owner, kind, targets, leaseMs, holdCapMs },
      lockId: this.#counters.newLockId(),
      ticket: waiter.ticket,
      token: this.#counters.nextToken(),
      count: 1,
      grantedAtMs: now,
      coveredSinceMs: Math.min(now, ...starts),
      leaseExpiresAtMs: leaseMs === null ? null : now + leaseMs,
      detached: false,
      ids: [requestId],
    };
    this.holds.push(hold);
    this.#effects.push({ type: 'granted', hold: snapshot(hold), requestId, waited, again: false });
  }

  #end(hold: ModelHold, reason: Extract<Effect, { type: 'released' }>['reason']): void {
    this.holds = this.holds.filter((other) => other !== hold);
    hold.count = 0;
    this.#effects.push({ type: 'released', hold: snapshot(hold), reason, gone: true });
  }

  #giveBack(hold: ModelHold, id?: string): void {
    if (hold.count === 1) {
      this.#end(hold, 'released');
      return;
    }
    hold.count--;
    // The id of whose grant it was goes, else the oldest.
    if (hold.ids.length > 1) hold.ids.splice(id === undefined ? 0 : hold.ids.indexOf(id), 1);
    this.#effects.push({ type: 'released', hold: snapshot(hold), reason: 'released', gone: false });
  }

  #refuse(waiter: ModelWaiter, reason: Extract<Effect, { type: 'refused' }>['reason']): void {
    this.waiters = this.waiters.filter((other) => other !== waiter);
    this.#effects.push({
      ...{ type: 'refused', request: waiter.request, ticket: waiter.ticket, reason },
      message: '',
    });
  }

  #settle(now: number): void {
    for (;;) {
      const queue = [...this.waiters].sort((a, b) => a.ticket - b.ticket);
      const next = queue.find((waiter) => this.#mayGo(waiter));
      if (next !== undefined) {
        this.#grant(next, now, true);
        continue;
      }
      const capped = (hold: ModelHold) =>
        hold.holdCapMs !== null && hold.coveredSinceMs + hold.holdCapMs <= now;
      const first = queue.find(
        (waiter) => this.#waitersBefore(waiter).length === 0 && this.#holdsBefore(waiter).every(capped),
      );
      if (first !== undefined) {
        for (const hold of this.#holdsBefore(first).sort((a, b) => a.ticket - b.ticket))
          this.#end(hold, 'cap');
        continue;
      }
      const newest = this.#newestInCycle();
      if (newest === undefined) return;
      this.#refuse(newest, 'deadlock');
    }
  }

  // ---- deadlock ----------------------------------------------------------------------------------------

  #waitsOf(waiter: ModelWaiter): string[] {
    const forerunner = this.waiters.some(
      (other) =>
        other.ticket < waiter.ticket &&
        waiter.request.targets.every((t) => covers(other.request, waiter.request, t)),
    );
    if (forerunner) return [];
    const waiters = this.#waitersBefore(waiter).map((other) => other.request.owner);
    return [...this.#holdsBefore(waiter).map((hold) => hold.owner), ...waiters];
  }

  #reachable(from: string): Set<string> {
    const seen = new Set<string>();
    const visit = (owner: string): void => {
      for (const waiter of this.waiters)
        if (waiter.request.owner === owner)
          for (const next of this.#waitsOf(waiter))
            if (!seen.has(next)) {
              seen.add(next);
              visit(next);
            }
    };
    visit(from);
    return seen;
  }

  #newestInCycle(): ModelWaiter | undefined {
    return [...this.waiters]
      .sort((a, b) => b.ticket - a.ticket)
      .find((waiter) =>
        this.#waitsOf(waiter).some((next) => this.#reachable(next).has(waiter.request.owner)),
      );
  }

  // ---- commands ----------------------------------------------------------------------------------------

  #do(command: Exclude<Command, { type: 'tick' }>, now: number): void {
    switch (command.type) {
      case 'acquire':
        this.#acquire(command.request, now);
        return;
      case 'adopt': {
        const { hold } = command;
        if (this.holds.some((one) => one.lockId === hold.lockId)) return;
        const waiter = this.#waiting(hold.session, hold.requestId);
        this.waiters = this.waiters.filter((one) => one !== waiter);
        const adopted = { ...hold, ticket: this.#counters.nextTicket(), ids: [hold.requestId] };
        this.holds.push(adopted);
        this.#effects.push({
          ...{ type: 'granted', hold: snapshot(adopted), requestId: hold.requestId, again: false },
          waited: waiter !== undefined,
        });
        return;
      }
      case 'release': {
        const hold = this.#find(command.lockId, command.owner);
        if (command.session !== undefined && hold.session !== command.session)
          throw refusal('owner_mismatch');
        this.#giveBack(hold);
        return;
      }
      case 'break':
        this.#end(this.#find(command.lockId), 'forced');
        return;
      case 'heartbeat': {
        const hold = this.#find(command.lockId, command.owner);
        if (command.leaseMs !== undefined) hold.leaseMs = command.leaseMs;
        hold.leaseExpiresAtMs = hold.leaseMs === null ? null : now + hold.leaseMs;
        this.#effects.push({ type: 'hold_changed', hold: snapshot(hold), why: 'renewed' });
        return;
      }
      case 'cancel': {
        const waiter = this.#waiting(command.session, command.requestId);
        if (waiter !== undefined) {
          this.#refuse(waiter, 'cancelled');
          return;
        }
        const hold = this.#holding(command.session, command.requestId);
        if (hold !== undefined) this.#giveBack(hold, command.requestId);
        return;
      }
      case 'end_session': {
        const why = command.reason === 'released' ? 'cancelled' : 'session_lost';
        const waiters = this.waiters.filter((waiter) => waiter.request.session === command.session);
        for (const waiter of waiters.sort((a, b) => a.ticket - b.ticket)) this.#refuse(waiter, why);
        const holds = this.holds.filter((hold) => hold.session === command.session);
        for (const hold of holds.sort((a, b) => a.ticket - b.ticket)) this.#end(hold, command.reason);
        return;
      }
      case 'retarget': {
        const waiter = this.#waiting(command.session, command.requestId);
        if (waiter === undefined) throw refusal('not_found');
        const had = waiter.request.targets.map((t) => t.path);
        if (command.targets.some((t) => !had.includes(t.path) && this.#full(waiter.request, t)))
          throw refusal('limit');
        const changed = { ...waiter, request: { ...waiter.request, targets: command.targets } };
        this.waiters = this.waiters.map((other) => (other === waiter ? changed : other));
        this.#effects.push({ type: 'waiter_changed', waiter: changed });
        return;
      }
      case 'add_target': {
        const hold = this.#find(command.lockId);
        const same = (t: Target) => JSON.stringify(t) === JSON.stringify(command.target);
        if (!hold.detached && hold.targets.some(same)) return;
        const why = hold.detached ? 'attached' : 'linked';
        hold.targets = hold.detached ? [command.target] : [...hold.targets, command.target];
        hold.detached = false;
        this.#effects.push({ type: 'hold_changed', hold: snapshot(hold), why });
        return;
      }
      case 'detach':
        this.#relocate(command.volume, (path) => (inside(path, command.path, command.tree) ? null : path));
        return;
      case 'move':
        if (command.tree && (below(command.from, command.to) || below(command.to, command.from)))
          throw refusal('invalid_request');
        if (command.from === command.to) return;
        this.#relocate(command.volume, (path) => {
          if (inside(path, command.to, command.tree)) return null;
          return shift(path, command.from, command.to, command.tree);
        });
        return;
      case 'exchange':
        if (command.tree && (below(command.a, command.b) || below(command.b, command.a)))
          throw refusal('invalid_request');
        this.#relocate(command.volume, (path) => {
          const there = shift(path, command.a, command.b, command.tree);
          return there !== path ? there : shift(path, command.b, command.a, command.tree);
        });
    }
  }

  #acquire(request: AcquireRequest, now: number): void {
    const { requestId } = request;
    const waiting = this.#waiting(request.session, requestId);
    if (waiting !== undefined) {
      this.#effects.push({ type: 'queued', waiter: waiting, blockers: [] });
      return;
    }
    const holding = this.#holding(request.session, requestId);
    if (holding !== undefined) {
      this.#effects.push({ type: 'granted', hold: snapshot(holding), requestId, waited: false, again: true });
      return;
    }
    const deadlineMs = request.waitMs === null ? null : now + request.waitMs;
    const waiter = { request, ticket: this.#counters.nextTicket(), arrivedAtMs: now, deadlineMs };
    if (this.#joinable(request) !== undefined) {
      this.#grant(waiter, now, false);
      return;
    }
    const mine = (one: { session: string }) => one.session === request.session;
    const locks = this.holds.filter(mine).length + this.waiters.filter((other) => mine(other.request)).length;
    if (locks >= this.#locksPerSession) {
      this.#refuse(waiter, 'limit');
      return;
    }
    if (this.#covered(waiter)) {
      this.#grant(waiter, now, false);
      return;
    }
    const go = this.#mayGo(waiter);
    if (!go && request.waitMs === 0) {
      this.#refuse(waiter, 'timeout');
      return;
    }
    if (!go && request.targets.some((t) => this.#full(request, t))) {
      this.#refuse(waiter, 'limit');
      return;
    }
    this.waiters.push(waiter);
    if (this.#reachable(request.owner).has(request.owner)) {
      this.#refuse(waiter, 'deadlock');
      return;
    }
    if (go) this.#grant(waiter, now, false);
    else this.#effects.push({ type: 'queued', waiter, blockers: [] });
  }

  #full(request: AcquireRequest, target: Target): boolean {
    const there = this.waiters.filter((other) => other.request.volume === request.volume);
    const entries = there.flatMap((other) => other.request.targets.filter((t) => t.path === target.path));
    return entries.length >= this.#waitersPerKey;
  }

  #relocate(volume: string, to: (path: string) => string | null): void {
    const changed: [ModelHold, Hold][] = [];
    for (const hold of this.#live().sort((a, b) => a.ticket - b.ticket)) {
      if (hold.kind !== 'handle' || hold.volume !== volume) continue;
      const targets: Target[] = [];
      for (const target of hold.targets) {
        const path = to(target.path);
        if (path !== null) targets.push({ ...target, path });
      }
      if (targets.length === hold.targets.length && targets.every((t, i) => t.path === hold.targets[i]!.path))
        continue;
      const before = hold.targets;
      const moved = targets.some((t) => !before.some((b) => b.path === t.path && to(b.path) === b.path));
      if (targets.length === 0) hold.detached = true;
      else hold.targets = targets;
      this.#effects.push({ type: 'hold_changed', hold: snapshot(hold), why: moved ? 'moved' : 'detached' });
      changed.push([hold, snapshot(hold)]);
    }
  }

  #tick(now: number): void {
    this.#settle(now);
    for (;;) {
      const ends = [
        ...this.waiters.map((w) => ({
          at: w.deadlineMs,
          ticket: w.ticket,
          run: () => this.#refuse(w, 'timeout'),
        })),
        ...this.holds.map((h) => ({
          ...{ at: h.leaseExpiresAtMs, ticket: h.ticket },
          run: () => this.#end(h, 'lease_expired'),
        })),
      ];
      const due = ends.filter((end) => end.at !== null && end.at <= now);
      due.sort((a, b) => a.at! - b.at! || a.ticket - b.ticket);
      if (due.length === 0) return;
      due[0]!.run();
      this.#settle(now);
    }
  }

  #find(lockId: string, owner?: string): ModelHold {
    const hold = this.holds.find((one) => one.lockId === lockId);
    if (hold === undefined) throw refusal('not_found');
    if (owner !== undefined && hold.owner !== owner) throw refusal('owner_mismatch');
    return hold;
  }

  #waiting(session: string, id: string): ModelWaiter | undefined {
    return this.waiters.find((one) => one.request.session === session && one.request.requestId === id);
  }

  #holding(session: string, id: string): ModelHold | undefined {
    return this.holds.find((hold) => hold.session === session && hold.ids.includes(id));
  }
}

function shift(path: string, from: string, to: string, tree: boolean): string {
  if (path === from) return to;
  if (!tree || !below(path, from)) return path;
  return `${to}${path.slice(from.length)}`;
}

export function snapshot({ ids: [requestId, ...joined], ...hold }: ModelHold): Hold {
  return { ...hold, requestId: requestId!, ...(joined.length > 0 && { joined }) };
}

function refusal(code: 'not_found' | 'owner_mismatch' | 'invalid_request' | 'limit'): GateError {
  return new GateError(code, '');
}
