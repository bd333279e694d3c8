/**
 * Events: one line of history for all that happens to a lock, a session or a volume. They are stored with what
 * they tell of, and sent to subscribers after the commit. A subscriber that does not read loses events, and learns how
 * many (`gap`); it never holds up the broker.
 */
import type { Effect, Target, Who } from '../lock/types.ts';
import type { Store } from '../store/types.ts';
import { shownOwner } from './owners.ts';
import { below } from './paths.ts';
import type { GateEvent } from './wire.ts';

export type EventBody = Omit<GateEvent, 'seq' | 'time'>;

/** Command lines may carry secrets: history keeps the program's name only. */
export function briefWho(who: Who | undefined): Who | undefined {
  if (who?.command === undefined) return who;
  const program = who.command.trimStart().split(/\s/, 1)[0]!;
  return { ...who, command: program.slice(program.lastIndexOf('/') + 1) };
}

interface Subject {
  readonly session: string;
  readonly volume: string;
  readonly owner: string;
  readonly requestId: string;
  readonly targets: readonly Target[];
  readonly who?: Who;
}

function aboutTargets(subject: Subject): Partial<EventBody> {
  const first = subject.targets[0];
  const { owner, via } = shownOwner(subject.owner);
  return {
    volume: subject.volume,
    path: first?.path,
    mode: first?.mode,
    scope: first?.scope === 'tree' ? 'tree' : undefined,
    paths: subject.targets.length > 1 ? subject.targets.map((target) => target.path) : undefined,
    owner,
    via,
    session: subject.session,
    requestId: subject.requestId,
    who: briefWho(subject.who),
  };
}

/** The event that tells of an effect; undefined for renewed leases, which are no news. */
export function eventOf(effect: Effect, waitedMs: number | undefined): EventBody | undefined {
  switch (effect.type) {
    case 'queued':
      return { type: 'queued', ...aboutTargets(effect.waiter.request) };
    case 'granted': {
      const { lockId, token, count } = effect.hold;
      return {
        type: 'granted',
        ...aboutTargets(effect.hold),
        requestId: effect.requestId,
        lockId,
        token,
        count,
        waitedMs,
      };
    }
    case 'refused':
      return {
        type: 'refused',
        ...aboutTargets(effect.request),
        reason: effect.reason,
        message: effect.message,
        waitedMs,
      };
    case 'released': {
      const { lockId, token, count } = effect.hold;
      return { type: 'released', ...aboutTargets(effect.hold), lockId, token, count, reason: effect.reason };
    }
    case 'hold_changed':
      if (effect.why === 'renewed') return undefined;
      return { type: effect.why, ...aboutTargets(effect.hold), lockId: effect.hold.lockId };
    case 'waiter_changed':
      return { type: 'retargeted', ...aboutTargets(effect.waiter.request) };
  }
}

export interface Subscriber {
  /** undefined: every volume. */
  readonly volume: string | undefined;
  /** Has read enough of what it was sent to be sent more. */
  ready(): boolean;
  send(events: readonly GateEvent[]): void;
  /** So many events were left out before those that come now. */
  gap(missed: number): void;
}

export class EventHub {
  readonly #missed = new Map<Subscriber, number>();
  /** Events that subscribers missed, in total. */
  dropped = 0;

  get size(): number {
    return this.#missed.size;
  }

  /** Returns what ends the subscription. */
  add(subscriber: Subscriber): () => void {
    this.#missed.set(subscriber, 0);
    return () => this.#missed.delete(subscriber);
  }

  publish(events: readonly GateEvent[]): void {
    if (this.#missed.size === 0 || events.length === 0) return;
    for (const [subscriber, missed] of this.#missed) {
      const { volume } = subscriber;
      const wanted =
        volume === undefined
          ? events
          : events.filter((event) => event.volume === volume || event.volume === undefined);
      if (wanted.length === 0) continue;
      if (!subscriber.ready()) {
        this.#missed.set(subscriber, missed + wanted.length);
        this.dropped += wanted.length;
        continue;
      }
      if (missed > 0) {
        this.#missed.set(subscriber, 0);
        subscriber.gap(missed);
      }
      subscriber.send(wanted);
    }
  }
}

function needleOf(volume: string | undefined, path: string | undefined): string | undefined {
  if (path) return JSON.stringify(path).slice(0, -1);
  return volume === undefined ? undefined : JSON.stringify(volume);
}

/** The latest events of a path and of what lies below it, newest first. Not those of a directory above it. */
export function historyOf(
  store: Store,
  volume: string | undefined,
  path: string | undefined,
  limit: number,
): GateEvent[] {
  const found: GateEvent[] = [];
  const concerns = (other: string) => below(`/${other}`, path === '' ? '/' : `/${path}`) !== undefined;
  for (const stored of store.events(needleOf(volume, path))) {
    const event = stored as GateEvent;
    if (volume !== undefined && event.volume !== volume) continue;
    if (path !== undefined && !(event.paths ?? (event.path === undefined ? [] : [event.path])).some(concerns))
      continue;
    found.push(event);
    if (found.length >= limit) break;
  }
  return found;
}
