/**
 * Delegation: the fast path. While one session (a mount) is the only one with business in a volume, it decides the volume's
 * locks itself (view/delegate.ts), and the broker hears of them afterwards. Nobody can tell the difference but by the clock:
 *
 * - Another session's request for a delegated region is put into the core at once, with its ticket, behind a hold of the
 *   owner `DELEGATE_OWNER` (a *transfer*), which is stored like any other. Then the region is recalled.
 * - The delegate answers with what it has granted there. Those holds are adopted, the transfer's hold is released, and the
 *   core decides as always. The region is *out*: the broker's, until it was quiet for a while.
 * - A quiet region is offered back (`give`) behind a transfer of its own, so that nobody is let in while the answer is under way.
 *
 * A recall is repeated until it is answered; unanswered for a TTL the session is not renewed any more, and ends a TTL later, and with it
 * the delegation: until then the delegate may grant, by its own clock. After a
 * restart of the broker the transfers are there again; which regions were out is not, but a recall of one is harmless.
 */
import type { Timer } from '../base/clock.ts';
import { GateError } from '../base/errors.ts';
import { type Region, RegionSet, regionOf } from '../lock/regions.ts';
import type { AcquireRequest, EndReason, Hold, Target } from '../lock/types.ts';
import type { Session, Sessions } from './sessions.ts';
import type { BrokerState } from './state.ts';
import { shown as uncleanShown } from './unclean.ts';
import { DELEGATE_OWNER, type Delegated, type UncleanPath } from './wire.ts';

/** Looks at quiet regions and unanswered recalls in a quiet time or a TTL, whichever is shorter. */
const LOOK_SHARE = 6;
const LOOK_MS_MIN = 50;
/** How long a status waits for a delegate to say what it has granted. */
const REPORT_MS = 1000;

/** Waiters that are told of those in their way once a recall is answered, and how many of those. */
const WAITERS_TOLD = 64;
const BLOCKERS_TOLD = 8;

interface Transfer {
  readonly region: Region;
  readonly lockId: string;
  readonly sinceMs: number;
  kind: 'recall' | 'give';
  /** Of a `give`: tokens for what the delegate grants from then on, above those that were granted here. */
  readonly tokens?: Delegated['tokens'];
}

interface Out {
  /** null: it was busy at the last look. */
  quietSinceMs: number | null;
}

interface Delegation {
  readonly volume: string;
  readonly session: Session;
  readonly epoch: string;
  readonly out: RegionSet<Out>;
  readonly transfers: Map<string, Transfer>;
}

/** What must not wait in the core (a request with `waitMs` 0, a break), kept until the regions it needs are here. */
interface Try {
  readonly session: string;
  readonly requestId: string;
  readonly run: () => void;
  /** Absent: a break. */
  readonly request?: AcquireRequest;
  readonly volume: string;
  readonly keys: Set<string>;
}

export class Delegations {
  readonly #state: BrokerState;
  readonly #sessions: Sessions;
  readonly #byVolume = new Map<string, Delegation>();
  readonly #reports = new Map<number, (holds: readonly Hold[]) => void>();
  #tries: Try[] = [];
  #nextReport = 1;
  #timer: Timer | undefined;

  constructor(state: BrokerState, sessions: Sessions) {
    this.#state = state;
    this.#sessions = sessions;
    for (const session of sessions.list())
      for (const { volume, epoch } of session.delegated) this.#revive(session, volume, epoch);
    state.gate = this;
    state.unclean.onAdded = (row) => this.#tellUnclean(row.volume, [uncleanShown(row)]);
    sessions.onResume = (session) => this.#resend(session);
    sessions.onEnd = (session) => this.#ended(session);
    this.#lookLater();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #revive(session: Session, volume: string, epoch: string): void {
    const delegation = this.#begin(session, volume, epoch);
    for (const hold of this.#state.parts.core.holdsOf(session.id)) {
      if (hold.owner !== DELEGATE_OWNER || hold.volume !== volume) continue;
      const region = regionOf(hold.targets[0]!);
      const sinceMs = this.#state.nowMs();
      delegation.transfers.set(keyOf(region), { region, lockId: hold.lockId, sinceMs, kind: 'recall' });
    }
  }

  #begin(session: Session, volume: string, epoch: string): Delegation {
    const delegation = { volume, session, epoch, out: new RegionSet<Out>(), transfers: new Map() };
    this.#byVolume.set(volume, delegation);
    return delegation;
  }

  // ------------------------------------------------------------ what a delegate says

  /**
   * Delegates a volume. A session that has it already, and did not hear the answer, gets the same epoch with new tokens.
   * Throws `conflict` when another session has it.
   */
  delegate(session: Session, volume: string): Delegated {
    let delegation = this.#byVolume.get(volume);
    if (delegation !== undefined && delegation.session !== session)
      throw new GateError('conflict', 'Another view decides the locks of this volume.');
    const { counters, core } = this.#state.parts;
    if (delegation === undefined) {
      delegation = this.#begin(session, volume, counters.newLockId());
      session.delegated.push({ volume, epoch: delegation.epoch });
      this.#sessions.touch(session);
    }
    // Also when it is repeated: a restarted broker does not know which regions were out.
    const { holds, waiters } = core.status(volume, '', 'tree');
    for (const { owner, targets } of [...holds, ...waiters.map(({ request }) => request)])
      if (owner !== DELEGATE_OWNER)
        for (const target of targets) delegation.out.add(regionOf(target), { quietSinceMs: null });
    const out = [...delegation.out].map(({ region }) => region);
    const unclean = this.#state.unclean.of(volume);
    return { epoch: delegation.epoch, tokens: this.#newTokens(), out, unclean };
  }

  #newTokens(): Delegated['tokens'] {
    const count = this.#state.parts.settings.limits.delegateTokens;
    const from = this.#state.reserveTokens(count);
    return { from, to: from + count };
  }

  /** Regions came back, with what is held there. Times of holds are ages. */
  returned(
    session: Session,
    volume: string,
    epoch: string,
    regions: readonly Region[],
    holds: readonly Hold[],
  ): void {
    const delegation = this.#of(session, volume, epoch);
    const nowMs = this.#state.nowMs();
    for (const region of regions) delegation.out.add(region, { quietSinceMs: nowMs });
    for (const hold of holds) this.#adopt(delegation, hold, nowMs);
    for (const transfer of [...delegation.transfers.values()])
      if (transfer.kind === 'recall' && delegation.out.covering(transfer.region))
        this.#finish(delegation, transfer);
    if (delegation.out.size > this.#state.parts.settings.limits.delegationRegions)
      this.#recall(delegation, { path: '', scope: 'tree' });
  }

  /** The delegate took an offered region, or did not. */
  taken(session: Session, volume: string, epoch: string, give: string, region: Region, yes: boolean): void {
    const delegation = this.#of(session, volume, epoch);
    const transfer = delegation.transfers.get(keyOf(region));
    if (transfer?.kind !== 'give' || transfer.lockId !== give) return;
    if (yes) {
      delegation.out.delete(region);
      const { waiters } = this.#state.parts.core.status(volume, region.path, region.scope);
      if (waiters.length > 0) {
        transfer.kind = 'recall';
        this.#push(delegation, transfer);
        return;
      }
    } else delegation.out.add(region, { quietSinceMs: this.#state.nowMs() });
    this.#finish(delegation, transfer);
  }

  reported(report: number, holds: readonly Hold[]): void {
    this.#reports.get(report)?.(holds);
    this.#reports.delete(report);
  }

  /** What the delegate holds in a region, as far as it says so in time. */
  async holdsIn(volume: string, region: Region): Promise<readonly Hold[]> {
    const delegation = this.#byVolume.get(volume);
    const outlet = delegation?.session.outlet;
    if (delegation === undefined || outlet === undefined || delegation.out.covering(region)) return [];
    const report = this.#nextReport++;
    const holds = await new Promise<readonly Hold[]>((resolve) => {
      const timer = this.#state.parts.settings.clock.after(REPORT_MS, () => this.reported(report, []));
      this.#reports.set(report, (got) => {
        timer.cancel();
        resolve(got);
      });
      outlet.push({ push: 'report', volume, report, region });
    });
    const nowMs = this.#state.nowMs();
    return holds.map((hold) => this.#whole(delegation, hold, nowMs));
  }

  // ------------------------------------------------------------ what the core is asked

  /**
   * Called before a request goes into the core: what it needs of a delegated volume is recalled first. True: it must not
   * wait, so it is kept back and goes in when everything is here.
   */
  arrives(request: AcquireRequest): boolean {
    const delegation = this.#byVolume.get(request.volume);
    if (delegation === undefined || request.session === delegation.session.id) return false;
    const keys = new Set<string>();
    for (const target of request.targets) {
      const region = regionOf(target);
      const key = keyOf(region);
      if (delegation.transfers.has(key)) keys.add(key);
      else if (delegation.out.covering(region) === undefined) {
        this.#recall(delegation, region);
        keys.add(key);
      }
    }
    if (request.waitMs !== 0 || keys.size === 0) return false;
    const { session, requestId, volume } = request;
    this.#tries.push({ session, requestId, request, volume, keys, run: () => this.#try(request) });
    return true;
  }

  retargets(session: string, requestId: string, targets: readonly Target[]): void {
    const waiting = this.#state.parts.core.request(requestId, session);
    if (waiting !== null && 'request' in waiting) this.arrives({ ...waiting.request, targets });
  }

  /** Ends a hold by force, also one that only a delegate knows of. Throws `not_found`. */
  async breakHold(lockId: string): Promise<void> {
    if (this.#state.parts.core.hold(lockId) === null) await this.#bring(lockId);
    this.#state.apply({ type: 'break', lockId });
  }

  /** Resolves when a delegate's hold is here, if it still is one. */
  async #bring(lockId: string): Promise<void> {
    const delegation = [...this.#byVolume.values()].find(({ epoch }) => lockId.startsWith(`${epoch}.`));
    if (delegation === undefined) return;
    const { volume } = delegation;
    const held = await this.holdsIn(volume, { path: '', scope: 'tree' });
    const target = held.find((hold) => hold.lockId === lockId)?.targets[0];
    if (target === undefined || this.#byVolume.get(volume) !== delegation) return;
    const region = regionOf(target);
    // A returned hold comes with all its regions: one will do.
    if (delegation.out.covering(region) !== undefined) return;
    this.#recall(delegation, region);
    await new Promise<void>((run) =>
      this.#tries.push({ session: '', requestId: lockId, volume, keys: new Set([keyOf(region)]), run }),
    );
  }

  /** The client of a request that was kept back gave up. */
  forget(session: string, requestId?: string): void {
    if (this.#tries.length === 0) return;
    const gone = this.#tries.filter(
      (one) => one.session === session && (requestId === undefined || one.requestId === requestId),
    );
    if (gone.length === 0) return;
    this.#tries = this.#tries.filter((one) => !gone.includes(one));
    // It is not in the core, which would answer. Without an answer its client would ask again after a reconnect.
    for (const { request } of gone) if (request) this.#refuse(request, 'cancelled', 'The waiter gave up.');
  }

  // ------------------------------------------------------------ transfers

  #recall(delegation: Delegation, region: Region): void {
    if (!delegation.transfers.has(keyOf(region))) this.#start(delegation, region, 'recall');
  }

  #start(delegation: Delegation, region: Region, kind: Transfer['kind'], tokens?: Delegated['tokens']): void {
    const { counters } = this.#state.parts;
    const nowMs = this.#state.nowMs();
    const lockId = counters.newLockId();
    const transfer: Transfer = { region, lockId, sinceMs: nowMs, kind, tokens };
    delegation.transfers.set(keyOf(region), transfer);
    const hold: Hold = {
      lockId,
      requestId: lockId,
      session: delegation.session.id,
      volume: delegation.volume,
      owner: DELEGATE_OWNER,
      kind: 'name',
      targets: [{ ...region, mode: 'write' }],
      ticket: 0,
      token: counters.nextToken(),
      count: 1,
      grantedAtMs: nowMs,
      coveredSinceMs: nowMs,
      leaseMs: null,
      leaseExpiresAtMs: null,
      holdCapMs: null,
      detached: false,
    };
    this.#state.apply({ type: 'adopt', hold });
    this.#push(delegation, transfer);
  }

  #push({ session, volume, epoch }: Delegation, { kind, lockId, region, tokens }: Transfer): void {
    if (kind === 'recall') session.outlet?.push({ push: kind, volume, epoch, region });
    else session.outlet?.push({ push: kind, volume, epoch, region, give: lockId, tokens: tokens! });
  }

  #finish(delegation: Delegation, transfer: Transfer): void {
    const key = keyOf(transfer.region);
    delegation.transfers.delete(key);
    this.#state.apply({ type: 'release', lockId: transfer.lockId, owner: DELEGATE_OWNER });
    this.#tellWaiters(delegation.volume, transfer.region);
    this.#runTries(delegation.volume, key);
  }

  /** Those who wait on, now that it is known behind whom. Until here they were behind the delegate (sessions.ts, `deliver`). */
  #tellWaiters(volume: string, region: Region): void {
    const { core } = this.#state.parts;
    for (const waiter of core.status(volume, region.path, region.scope).waiters.slice(0, WAITERS_TOLD)) {
      const inTheWay = core.blockersOf(waiter.request.requestId, waiter.request.session);
      if (inTheWay === null) continue;
      const holders = inTheWay.holds.map((hold) => hold.owner);
      const before = inTheWay.waiters.map(({ request }) => request.owner);
      const blockers = [...new Set([...holders, ...before])].slice(0, BLOCKERS_TOLD);
      this.#state.onEffect({ type: 'queued', waiter, blockers });
    }
  }

  #runTries(volume: string, key?: string): void {
    const ready: Try[] = [];
    this.#tries = this.#tries.filter((one) => {
      if (one.volume !== volume) return true;
      if (key === undefined) one.keys.clear();
      else one.keys.delete(key);
      if (one.keys.size > 0) return true;
      ready.push(one);
      return false;
    });
    for (const { run } of ready) run();
  }

  #try(request: AcquireRequest): void {
    try {
      this.#state.apply({ type: 'acquire', request });
    } catch (error) {
      if (!(error instanceof GateError)) throw error;
      this.#refuse(request, 'limit', error.message);
    }
  }

  #refuse(request: AcquireRequest, reason: EndReason, message: string): void {
    this.#state.onEffect({ type: 'refused', request, ticket: null, reason, message });
  }

  #adopt(delegation: Delegation, hold: Hold, nowMs: number): void {
    this.#state.apply({ type: 'adopt', hold: this.#whole(delegation, hold, nowMs) });
  }

  /** A hold as a delegate tells of it, in the broker's terms. */
  #whole({ session, volume }: Delegation, hold: Hold, nowMs: number): Hold {
    const { lockId, requestId, owner, kind, targets, token, count, detached, who } = hold;
    const grantedAtMs = nowMs - Math.max(0, hold.grantedAtMs);
    const coveredSinceMs = nowMs - Math.max(0, hold.coveredSinceMs);
    const { maxHoldWriteMs, maxHoldReadMs } = this.#state.parts.settings;
    const holdCapMs = targets.some((target) => target.mode !== 'read') ? maxHoldWriteMs : maxHoldReadMs;
    const times = { grantedAtMs, coveredSinceMs, leaseMs: null, leaseExpiresAtMs: null, holdCapMs };
    return {
      lockId,
      requestId,
      session: session.id,
      volume,
      owner,
      kind,
      targets,
      ticket: 0,
      token,
      count,
      ...times,
      detached,
      who,
    };
  }

  #of(session: Session, volume: string, epoch: string): Delegation {
    const delegation = this.#byVolume.get(volume);
    if (delegation?.session !== session || delegation.epoch !== epoch)
      throw new GateError('not_found', `epoch: this session has no delegation ${epoch} of ${volume}`);
    return delegation;
  }

  // ------------------------------------------------------------ sessions and time

  /** What a delegate may not have heard: its connection is a new one. */
  #resend(session: Session): void {
    for (const delegation of this.#byVolume.values())
      if (delegation.session === session) {
        this.#tellUnclean(delegation.volume, this.#state.unclean.of(delegation.volume));
        for (const transfer of delegation.transfers.values()) this.#push(delegation, transfer);
      }
  }

  /** The delegate grants there without asking, so it must know before a region is offered to it. */
  #tellUnclean(volume: string, paths: readonly UncleanPath[]): void {
    if (paths.length === 0) return;
    this.#byVolume.get(volume)?.session.outlet?.push({ push: 'unclean', volume, paths });
  }

  #ended(session: Session): void {
    this.forget(session.id);
    for (const delegation of [...this.#byVolume.values()]) {
      if (delegation.session !== session) continue;
      this.#byVolume.delete(delegation.volume);
      this.#runTries(delegation.volume);
    }
  }

  #lookLater(): void {
    const { clock, delegationQuietMs, sessionTtlMs, log } = this.#state.parts.settings;
    const everyMs = Math.max(LOOK_MS_MIN, Math.min(delegationQuietMs, sessionTtlMs) / LOOK_SHARE);
    this.#timer = clock.after(everyMs, () => {
      try {
        for (const delegation of [...this.#byVolume.values()]) this.#look(delegation);
      } catch (error) {
        log.debug('no look at delegations', { error: String(error) });
        return;
      }
      this.#lookLater();
    });
  }

  #look(delegation: Delegation): void {
    const { session, transfers, out, volume } = delegation;
    if (session.outlet === undefined) return;
    const { core, settings } = this.#state.parts;
    const nowMs = this.#state.nowMs();
    for (const transfer of transfers.values()) {
      if (nowMs - transfer.sinceMs > settings.sessionTtlMs)
        return this.#sessions.doom(
          session,
          `It did not answer a ${transfer.kind} for ${settings.sessionTtlMs} ms.`,
        );
      this.#push(delegation, transfer);
    }
    let tokens: Delegated['tokens'] | undefined;
    for (const { region, value } of [...out]) {
      if (transfers.has(keyOf(region))) continue;
      const { holds, waiters } = core.status(volume, region.path, region.scope);
      if (holds.length > 0 || waiters.length > 0) value.quietSinceMs = null;
      else if (value.quietSinceMs === null) value.quietSinceMs = nowMs;
      else if (nowMs - value.quietSinceMs >= settings.delegationQuietMs)
        this.#start(delegation, region, 'give', (tokens ??= this.#newTokens()));
    }
  }
}

function keyOf({ path, scope }: Region): string {
  return `${scope}:${path}`;
}
