/**
 * Locks decided here: a broker round trip for every open would cost more than the open. While a view is the only
 * one with business in its volume the broker delegates the volume to it. This port then grants with the same lock
 * core, at once, and never queues:
 *
 * - A request that conflicts with a hold here gives its paths back to the broker with all that is held on them
 *   (`returned`), and goes there itself: every wait, cycle and cap is the broker's.
 * - When somebody else wants a path the broker recalls it. In one turn it is taken out and returned; what is given back
 *   later follows on the same stream.
 * - A path that is out stays out until the broker offers it again (`give`).
 *
 * Nothing is granted here once the session's authority may have ended (`hasAuthority`).
 */
import type { Command, Hold, Kind, Target } from '../lock/index.ts';
import { LockCore, overlaps, type Region, RegionSet, regionOf } from '../lock/index.ts';
import type { ViewClock } from './actors.ts';
import type { LockAnswers, LockPort, LockRequest } from './locks.ts';

/** What a delegate says to the broker, besides asking for locks. */
export interface DelegationPort extends LockPort {
  returned(epoch: string, regions: readonly Region[], holds: readonly Hold[]): void;
  taken(epoch: string, give: string, region: Region, yes: boolean): void;
  reported(report: number, holds: readonly Hold[]): void;
  activity(entries: readonly DelegateActivity[]): void;
}

export interface DelegateActivity {
  readonly type: 'granted' | 'released';
  readonly targets: readonly Target[];
  readonly owner: string;
  readonly lockId: string;
  readonly token: number;
  readonly who?: Hold['who'];
}

export interface Delegation {
  readonly volume: string;
  readonly session: string;
  readonly epoch: string;
  readonly tokens: { readonly from: number; readonly to: number };
  readonly out: readonly Region[];
}

/** A region that the broker gives back, with tokens for what is granted from then on. */
export interface Offer {
  readonly epoch: string;
  readonly give: string;
  readonly region: Region;
  readonly tokens: Delegation['tokens'];
}

/** A request that the broker decides. */
interface Pending {
  readonly kind: Kind;
  readonly targets: readonly Target[];
  /** Asked for so often: each time has an id of its own. */
  times: number;
  /** The names were changed through this view since it was asked for: its grant may go with what stood there before. */
  stale: boolean;
  /** Granted before the names changed. */
  kept: { readonly lockId: string; readonly owner: string } | null;
}

function idOf(requestId: string, { times }: Pending): string {
  return times === 0 ? requestId : `${requestId}~${times}`;
}

/** More than the broker has under way at once, ever: `LIMITS.delegationRegions`. */
const OFFERS_REMEMBERED = 50_000;

/** Activity is told in batches of at most so many entries, at most so often; what is more is left out of the history. */
const ACTIVITY_EVERY_MS = 200;
const ACTIVITY_ENTRIES_MAX = 500;

export class DelegatedLocks implements LockPort {
  readonly #upstream: DelegationPort;
  readonly #clock: ViewClock;
  readonly #hasAuthority: () => boolean;
  #delegation: Delegation | null = null;
  #core: LockCore | null = null;
  readonly #out = new RegionSet();
  /** Requests that are on their way to the broker: what they touch cannot be taken back meanwhile. */
  readonly #pending = new Map<string, Pending>();
  /** Offers that were answered, the latest. */
  readonly #answered = new Set<string>();
  #nextToken = 0;
  /** First token that is not ours. */
  #tokensEnd = 0;
  #nextLock = 0;
  #nextTicket = 0;
  #activity: DelegateActivity[] = [];
  #telling = false;

  constructor(upstream: DelegationPort, clock: ViewClock, hasAuthority: () => boolean) {
    this.#upstream = upstream;
    this.#clock = clock;
    this.#hasAuthority = hasAuthority;
  }

  /** The broker delegated the volume. */
  begin(delegation: Delegation): void {
    this.#delegation = delegation;
    this.#nextToken = delegation.tokens.from;
    this.#tokensEnd = delegation.tokens.to;
    this.#out.clear();
    for (const region of delegation.out) this.#out.add(region, true);
    // What was asked for before goes its way at the broker.
    for (const { targets } of this.#pending.values())
      for (const target of targets) this.#out.add(regionOf(target), true);
    this.#core = new LockCore({
      counters: {
        nextTicket: () => ++this.#nextTicket,
        nextToken: () => this.#nextToken++,
        newLockId: () => `${delegation.epoch}.${(this.#nextLock++).toString(36)}`,
      },
    });
  }

  /** The session is lost, and all that was held with it. */
  end(): void {
    this.#delegation = null;
    this.#core = null;
    this.#out.clear();
    this.#pending.clear();
    this.#activity = [];
  }

  get active(): boolean {
    return this.#core !== null;
  }

  tryNow(request: LockRequest): { lockId: string; token: number } | null {
    const hold = this.#grant(request);
    return hold === null ? null : { lockId: hold.lockId, token: hold.token };
  }

  acquire(request: LockRequest, answers: LockAnswers): void {
    const hold = this.#grant(request);
    if (hold !== null) {
      answers.granted(hold.lockId, hold.token);
      return;
    }
    if (this.#core !== null) this.#giveBack(request.targets);
    const { requestId, kind, targets } = request;
    const pending: Pending = { kind, targets, times: 0, stale: false, kept: null };
    this.#pending.set(requestId, pending);
    this.#forward(request, pending, answers);
  }

  #forward(request: LockRequest, pending: Pending, answers: LockAnswers): void {
    const { requestId, owner } = request;
    this.#upstream.acquire(
      { ...request, requestId: idOf(requestId, pending) },
      {
        granted: (lockId, token) => {
          this.#letGo(pending);
          if (pending.stale) {
            // Asked for again after the change, it stands where the name is. Until then nothing is given up.
            pending.stale = false;
            pending.times++;
            pending.kept = { lockId, owner };
            this.#forward(request, pending, answers);
            return;
          }
          this.#pending.delete(requestId);
          // A view that slept through its session's time hears of the grant before it hears of the loss.
          if (this.#hasAuthority()) return answers.granted(lockId, token);
          // Should it live after all, the lock must not stay with nobody.
          this.#upstream.release(lockId, owner);
          answers.refused('session_lost', 'The session with the broker may be over.');
        },
        queued: (blockers) => answers.queued?.(blockers),
        join: (owner) => answers.join?.(owner),
        refused: (code, message) => {
          this.#letGo(pending);
          this.#pending.delete(requestId);
          answers.refused(code, message);
        },
      },
    );
  }

  #letGo(pending: Pending): void {
    const { kept } = pending;
    pending.kept = null;
    if (kept !== null) this.#upstream.release(kept.lockId, kept.owner);
  }

  cancel(requestId: string): void {
    const pending = this.#pending.get(requestId);
    this.#pending.delete(requestId);
    this.#upstream.cancel(pending === undefined ? requestId : idOf(requestId, pending));
    if (pending !== undefined) this.#letGo(pending);
  }

  release(lockId: string, owner: string): void {
    const hold = this.#core?.hold(lockId) ?? null;
    if (hold === null) {
      this.#upstream.release(lockId, owner);
      return;
    }
    this.#apply({ type: 'release', lockId, owner });
    this.#note('released', hold);
  }

  move(from: string, to: string, tree: boolean): void {
    const command: Command = { type: 'move', volume: this.#volume, from, to, tree };
    if (this.#alsoUpstream(command, [from, to], tree)) this.#upstream.move(from, to, tree);
  }

  exchange(a: string, b: string, tree: boolean): void {
    const command: Command = { type: 'exchange', volume: this.#volume, a, b, tree };
    if (this.#alsoUpstream(command, [a, b], tree)) this.#upstream.exchange(a, b, tree);
  }

  detach(path: string, tree: boolean): void {
    const command: Command = { type: 'detach', volume: this.#volume, path, tree };
    if (this.#alsoUpstream(command, [path], tree)) this.#upstream.detach(path, tree);
  }

  addTarget(lockId: string, target: Target): void {
    const hold = this.#core?.hold(lockId) ?? null;
    if (hold === null) {
      this.#upstream.addTarget(lockId, target);
      return;
    }
    this.#apply({ type: 'add_target', lockId, target });
    // The broker decides about the new name already, so it must know of the whole hold.
    if (this.#out.overlaps(regionOf(target))) this.#giveBack([...hold.targets, target]);
  }

  /** Somebody else wants this region. */
  recall(epoch: string, region: Region): void {
    if (this.#delegation?.epoch !== epoch) return;
    this.#takeOut([region]);
  }

  /** The broker offers a region that has been quiet. */
  give({ epoch, give, region, tokens }: Offer): void {
    // Offers are repeated until the answer is there. One that comes late must not be answered otherwise, or twice.
    if (this.#delegation?.epoch !== epoch || this.#answered.has(give)) return;
    this.#answered.add(give);
    if (this.#answered.size > OFFERS_REMEMBERED) this.#answered.delete(first(this.#answered));
    // The broker has granted there meanwhile, with tokens above those we had.
    if (tokens.from > this.#nextToken) {
      this.#nextToken = tokens.from;
      this.#tokensEnd = tokens.to;
    }
    for (const { targets } of this.#pending.values())
      if (targets.some((target) => overlaps(target, region)))
        return this.#upstream.taken(epoch, give, region, false);
    this.#out.delete(region);
    this.#upstream.taken(epoch, give, region, true);
  }

  report(report: number, region: Region): void {
    const holds = this.#core?.status(this.#volume, region.path, region.scope).holds ?? [];
    this.#upstream.reported(report, this.#aged(holds));
  }

  /** Clocks differ: what leaves here tells times as ages. */
  #aged(holds: Iterable<Hold>): Hold[] {
    const nowMs = this.#clock.nowMs();
    return Array.from(holds, (hold) => ({
      ...hold,
      grantedAtMs: nowMs - hold.grantedAtMs,
      coveredSinceMs: nowMs - hold.coveredSinceMs,
    }));
  }

  get #volume(): string {
    return this.#delegation?.volume ?? '';
  }

  /** Grants here and now, or null: not ours to decide, or somebody is in the way. */
  #grant(request: LockRequest): Hold | null {
    const delegation = this.#delegation;
    if (delegation === null || this.#nextToken >= this.#tokensEnd || !this.#hasAuthority()) return null;
    for (const target of request.targets) if (this.#out.overlaps(target)) return null;
    const { requestId, owner, kind, targets, who } = request;
    const { volume, session } = delegation;
    const effects = this.#apply({
      type: 'acquire',
      request: {
        requestId,
        session,
        volume,
        owner,
        kind,
        targets,
        waitMs: 0,
        leaseMs: null,
        holdCapMs: null,
        who,
      },
    });
    for (const effect of effects)
      if (effect.type === 'granted') {
        this.#note('granted', effect.hold);
        return effect.hold;
      }
    return null;
  }

  #giveBack(targets: readonly Target[]): void {
    const regions = targets.map(regionOf).filter((region) => this.#out.covering(region) === undefined);
    if (regions.length > 0) this.#takeOut(regions);
  }

  /** Hands regions over with their holds, whole: a hold with targets elsewhere takes those regions along. */
  #takeOut(wanted: readonly Region[]): void {
    const core = this.#core!;
    const regions: Region[] = [];
    const holds = new Map<string, Hold>();
    const todo = [...wanted];
    for (let region = todo.pop(); region !== undefined; region = todo.pop()) {
      regions.push(region);
      this.#out.add(region, true);
      for (const hold of core.status(this.#volume, region.path, region.scope).holds) {
        if (holds.has(hold.lockId)) continue;
        holds.set(hold.lockId, hold);
        for (const target of hold.targets)
          if (this.#out.covering(target) === undefined) todo.push(regionOf(target));
      }
    }
    for (const lockId of holds.keys()) this.#apply({ type: 'break', lockId });
    this.#upstream.returned(this.#delegation!.epoch, regions, this.#aged(holds.values()));
  }

  #apply(command: Command): ReturnType<LockCore['apply']> {
    return this.#core!.apply(command, this.#clock.nowMs());
  }

  /** Applies a change of names here. True when the broker may have holds on these names, too. */
  #alsoUpstream(command: Command, paths: readonly string[], tree: boolean): boolean {
    for (const pending of this.#pending.values())
      if (pending.kind === 'handle' && changes(paths, tree, pending.targets)) pending.stale = true;
    if (this.#core === null) return true;
    this.#apply(command);
    return paths.some((path) => this.#out.overlaps({ path, scope: tree ? 'tree' : 'file' }));
  }

  #note(type: DelegateActivity['type'], hold: Hold): void {
    if (hold.targets[0]!.mode !== 'write' || this.#activity.length >= ACTIVITY_ENTRIES_MAX) return;
    const { targets, owner, lockId, token, who } = hold;
    this.#activity.push({ type, targets, owner, lockId, token, who });
    if (this.#telling) return;
    this.#telling = true;
    this.#clock.after(ACTIVITY_EVERY_MS, () => {
      this.#telling = false;
      const entries = this.#activity;
      this.#activity = [];
      if (entries.length > 0) this.#upstream.activity(entries);
    });
  }
}

function changes(paths: readonly string[], tree: boolean, targets: readonly Target[]): boolean {
  const scope = tree ? 'tree' : 'file';
  return targets.some((target) => paths.some((path) => overlaps({ path, scope }, target)));
}

function first<T>(from: ReadonlySet<T>): T {
  return from.values().next().value!;
}
