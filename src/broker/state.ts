/**
 * The shell around the lock core. It gives the core time and numbers, and makes what the core decided durable
 * before anybody hears of it:
 *
 *     commands of one turn ──▶ core ──▶ effects ──▶ rows and events of one batch ──▶ commit ──▶ answers
 *
 * `apply` may be called any number of times in a turn of the event loop. Its effects are handed on at once (`onEffect`)
 * to whoever will answer, but answers must go out from `afterCommit` callbacks only.
 *
 * When a commit fails the core is ahead of the disk and nothing may be said any more: `onFatal`, and the broker ends. But when
 * the disk is full nothing was written: the batch is kept and tried again, requests for locks are refused meanwhile, and sessions are
 * renewed all the same (ws.ts), because nobody shall lose what he holds.
 */

import type { Timer } from '../base/clock.ts';
import { GateError } from '../base/errors.ts';
import type { LockCore } from '../lock/core.ts';
import type { AcquireRequest, Command, Effect, Target } from '../lock/types.ts';
import { type Batch, NoRoom, type Store } from '../store/types.ts';
import type { DurableCounters } from './counters.ts';
import { type EventBody, type EventHub, eventOf } from './events.ts';
import type { Metrics } from './metrics.ts';
import type { Settings } from './settings.ts';
import type { BrokerTime } from './time.ts';
import { Unclean } from './unclean.ts';
import type { GateEvent } from './wire.ts';

export interface StateParts {
  readonly settings: Settings;
  readonly store: Store;
  readonly core: LockCore;
  readonly counters: DurableCounters;
  readonly time: BrokerTime;
  readonly hub: EventHub;
  readonly metrics: Metrics;
}

/** Key of a waiter's row. Session ids have no blanks. */
export function waiterKey(session: string, requestId: string): string {
  return `${session} ${requestId}`;
}

/** Stands before the core: brings back what was delegated (delegation.ts). */
export interface Gate {
  /** True: the request is kept back, and will be put in later. */
  arrives(request: AcquireRequest): boolean;
  /** A waiting request is about to get other targets. */
  retargets(session: string, requestId: string, targets: readonly Target[]): void;
  forget(session: string, requestId: string): void;
}

/** Between two tries to store what there was no room for. */
const ROOM_LOOK_MS = 250;

export class BrokerState {
  readonly parts: StateParts;
  readonly unclean: Unclean;
  gate: Gate | undefined;
  onEffect: (effect: Effect) => void = () => {};
  onFatal: (error: Error) => void = () => {};
  /** Called before each commit, to put rows that are gathered over a turn. */
  beforeCommit: (batch: Batch) => void = () => {};
  readonly #arrivedAtMs = new Map<string, number>();
  #batch: Batch;
  #events: GateEvent[] = [];
  #afterCommit: (() => void)[] = [];
  #lockCount = 0;
  #nextSeq: number;
  #turn: Promise<void> | undefined;
  /** This turn's batch must reach the disk, whatever the durability. */
  #synced = false;
  /** Counts the batches: what happens now will be durable with this one. */
  turn = 0;
  #scheduled = false;
  /** A turn ended while the store was still busy with the one before. */
  #deferred = false;
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #ended = false;
  /** The disk is full. */
  noRoom: NoRoom | undefined;

  constructor(parts: StateParts, nextSeq: number) {
    this.parts = parts;
    this.#nextSeq = nextSeq;
    this.#batch = parts.store.batch();
    this.unclean = new Unclean({
      rows: parts.store.rows('unclean'),
      pathsMax: parts.settings.limits.uncleanPaths,
      newId: () => parts.counters.newLockId(),
      nowMs: () => this.nowMs(),
      change: (write) => this.change(write),
    });
  }

  get waiterCount(): number {
    return this.#arrivedAtMs.size;
  }

  nowMs(): number {
    return this.parts.time.nowMs();
  }

  /** A stored waiter that the core was loaded with. */
  loadedWaiter(session: string, requestId: string, arrivedAtMs: number): void {
    this.#arrivedAtMs.set(waiterKey(session, requestId), arrivedAtMs);
  }

  /** Carries a command out. Throws the core's GateErrors; nothing has changed then. */
  apply(command: Command): readonly Effect[] {
    if (this.#ended) throw new GateError('unavailable', 'The broker is stopping.');
    if (command.type === 'acquire') {
      const { requestId, session } = command.request;
      // One that is asked for again waits or holds already: who is told of a refusal would never give it back.
      if (this.noRoom && this.parts.core.request(requestId, session) === null) throw this.noRoom;
      if (this.gate?.arrives(command.request)) return [];
    } else if (command.type === 'retarget') {
      this.gate?.retargets(command.session, command.requestId, command.targets);
    } else if (command.type === 'cancel') this.gate?.forget(command.session, command.requestId);
    const nowMs = this.nowMs();
    let effects: readonly Effect[];
    try {
      effects = this.parts.core.apply(command, nowMs);
    } catch (error) {
      if (!(error instanceof GateError)) this.#fatal(error as Error);
      throw error;
    }
    if (effects.length > 0) this.#schedule();
    for (const effect of effects) this.#record(effect, nowMs);
    for (const effect of effects) this.onEffect(effect);
    return effects;
  }

  /** Puts a row of another concern (sessions, volumes) into this turn's batch. */
  change(write: (batch: Batch) => void): void {
    write(this.#batch);
    this.#schedule();
  }

  /** A block of fencing tokens, above all that were drawn so far. What is told of it must wait for this turn's commit. */
  reserveTokens(count: number): number {
    this.#synced = true;
    this.#schedule();
    return this.parts.counters.reserveTokens(count, this.#batch);
  }

  event(body: EventBody): void {
    const event: GateEvent = {
      seq: this.#nextSeq++,
      time: this.parts.time.unixSeconds(this.nowMs()),
      ...body,
    };
    this.#batch.event(event);
    this.#events.push(event);
    this.#schedule();
  }

  /** Runs once all that happened in this turn is durable. */
  afterCommit(run: () => void): void {
    this.#afterCommit.push(run);
    this.#schedule();
  }

  /** Commits what is gathered, then accepts no more. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#timer?.cancel();
    await this.#turn;
    if (this.#batch.empty) return;
    await this.parts.store.commit(this.#batch);
  }

  #record(effect: Effect, nowMs: number): void {
    const { metrics } = this.parts;
    let waitedMs: number | undefined;
    switch (effect.type) {
      case 'queued': {
        const { request, arrivedAtMs } = effect.waiter;
        const key = waiterKey(request.session, request.requestId);
        if (this.#arrivedAtMs.has(key)) return;
        this.#arrivedAtMs.set(key, arrivedAtMs);
        this.#batch.put('waiter', key, effect.waiter, true);
        break;
      }
      case 'granted': {
        const { hold } = effect;
        waitedMs = this.#dropWaiter(hold.session, effect.requestId, nowMs);
        this.#batch.put('hold', hold.lockId, hold, this.parts.counters.isNewer(hold.lockId, this.#lockCount));
        metrics.granted(effect, waitedMs);
        break;
      }
      case 'refused':
        waitedMs = this.#dropWaiter(effect.request.session, effect.request.requestId, nowMs);
        metrics.refused(effect.reason);
        break;
      case 'released':
        if (effect.gone) this.#batch.delete('hold', effect.hold.lockId);
        else this.#batch.put('hold', effect.hold.lockId, effect.hold);
        if (effect.gone && effect.reason !== 'released') this.unclean.ended(effect.hold, effect.reason);
        metrics.released(effect);
        break;
      case 'hold_changed':
        this.#batch.put('hold', effect.hold.lockId, effect.hold);
        break;
      case 'waiter_changed': {
        const { session, requestId } = effect.waiter.request;
        this.#batch.put('waiter', waiterKey(session, requestId), effect.waiter);
        break;
      }
    }
    const body = eventOf(effect, waitedMs);
    if (body) this.event(body);
  }

  /** Forgets a waiter and its row; how long it waited, or undefined when it did not. */
  #dropWaiter(session: string, requestId: string, nowMs: number): number | undefined {
    if (this.#arrivedAtMs.size === 0) return undefined;
    const key = waiterKey(session, requestId);
    const arrivedAtMs = this.#arrivedAtMs.get(key);
    if (arrivedAtMs === undefined) return undefined;
    this.#arrivedAtMs.delete(key);
    this.#batch.delete('waiter', key);
    return Math.max(0, nowMs - arrivedAtMs);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.parts.settings.clock.soon(() => this.#endTurn());
  }

  #endTurn(): void {
    if (this.#ended) return;
    if (this.#turn) {
      this.#deferred = true;
      return;
    }
    this.#scheduled = false;
    const batch = this.#batch;
    const events = this.#events;
    const after = this.#afterCommit;
    const synced = this.#synced;
    try {
      this.beforeCommit(batch);
      this.#batch = this.parts.store.batch();
      this.#events = [];
      this.#afterCommit = [];
      this.#synced = false;
      this.turn++;
      this.#lockCount = this.parts.counters.lockCount();
      const startMs = this.parts.settings.clock.nowMs();
      this.#commit(
        () => (batch.empty ? undefined : this.parts.store.commit(batch, { synced })),
        () => this.#committed(batch.empty ? undefined : startMs, events, after),
      );
    } catch (error) {
      this.#fatal(error as Error);
    }
  }

  /** Writes, again and again while the disk is full, then goes on. */
  #commit(write: () => Promise<void> | undefined, then: () => void): void {
    const failed = (error: unknown) => {
      if (!(error instanceof NoRoom)) return this.#fatal(error as Error);
      if (!this.noRoom) this.parts.settings.log.error(error.message);
      this.noRoom = error;
      this.#turn = new Promise((resolve) => {
        this.parts.settings.clock.after(ROOM_LOOK_MS, () => {
          resolve();
          if (!this.#ended) this.#commit(write, then);
        });
      });
    };
    let done: Promise<void> | undefined;
    try {
      done = write();
    } catch (error) {
      return failed(error);
    }
    const written = () => {
      if (this.noRoom) this.parts.settings.log.info('there is room on the disk again');
      this.noRoom = undefined;
      then();
    };
    if (done === undefined) return written();
    this.#turn = done.then(written, failed);
  }

  #committed(startMs: number | undefined, events: GateEvent[], after: (() => void)[]): void {
    const { counters, hub, metrics, settings } = this.parts;
    this.#turn = undefined;
    if (startMs !== undefined) metrics.committed(settings.clock.nowMs() - startMs);
    for (const run of after) run();
    hub.publish(events);
    if (counters.low)
      this.#commit(
        () => counters.refill(),
        () => this.#resume(),
      );
    else this.#resume();
  }

  /** The turn is over: starts the one that waited for it. */
  #resume(): void {
    this.#turn = undefined;
    if (this.#ended) return;
    this.schedule();
    if (!this.#deferred) return;
    this.#deferred = false;
    this.parts.settings.clock.soon(() => this.#endTurn());
  }

  /** Sets the timer for the core's next deadline. */
  schedule(): void {
    const nextMs = this.parts.core.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    if (nextMs === this.#timerAtMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = nextMs;
    if (nextMs === Number.POSITIVE_INFINITY) return;
    // One more: timers may fire a fraction early, and broker time is rounded down.
    this.#timer = this.parts.settings.clock.after(Math.max(0, nextMs - this.nowMs()) + 1, () => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      if (this.#ended) return;
      this.apply({ type: 'tick' });
      this.#schedule();
    });
  }

  #fatal(error: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timer?.cancel();
    this.onFatal(error);
  }
}
