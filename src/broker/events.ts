/**
 * Events: one line of history for all that happens to a lock, a session or a volume. They are stored with what
 * they tell of, and sent to subscribers after the commit. A subscriber that does not read loses events, and learns how
 * many (`gap`); it never holds up the broker.
 */
import type { Effect, Target, Who } from '../lock/types.ts';
import type { Store } from '../store/types.ts';
import { shownOwner, shownRequest } from './owners.ts';
import { below } from './paths.ts';
import { type Activity, DELEGATE_OWNER, type GateEvent } from './wire.ts';

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
  readonly targets: readonly Target[];
  readonly who?: Who;
}

function aboutTargets(subject: Subject): Partial<EventBody> {
  const { targets } = subject;
  const first = targets[0];
  const { owner, via } = shownOwner(subject.owner);
  return {
    volume: subject.volume,
    path: first?.path,
    mode: first?.mode,
    scope: first?.scope === 'tree' ? 'tree' : undefined,
    paths: targets.length > 1 ? targets.map((target) => target.path) : undefined,
    owner,
    via: via === 'http' ? via : undefined,
    session: subject.session,
    who: briefWho(subject.who),
  };
}

/** The event that tells of a delegate's own grant or release, after the fact. */
export function activityOf(volume: string, session: string, entry: Activity): EventBody {
  const { type, lockId, token } = entry;
  const about = aboutTargets({ ...entry, volume, session });
  return type === 'granted'
    ? { type, ...about, lockId, token }
    : { type, ...about, lockId, reason: 'released' };
}

/** The event that tells of an effect; undefined for renewed leases, which are no news. What is usual is left out. */
export function eventOf(effect: Effect, waitedMs: number | undefined): EventBody | undefined {
  // Regions on their way from and to a delegate are nobody's locks.
  if ('hold' in effect && effect.hold.owner === DELEGATE_OWNER) return undefined;
  switch (effect.type) {
    case 'queued': {
      const { request } = effect.waiter;
      return { type: 'queued', ...aboutTargets(request), requestId: shownRequest(request) };
    }
    case 'granted': {
      const { lockId, token, count } = effect.hold;
      const about = aboutTargets(effect.hold);
      const requestId =
        waitedMs === undefined ? undefined : shownRequest({ ...effect.hold, requestId: effect.requestId });
      return {
        type: 'granted',
        ...about,
        requestId,
        lockId,
        token,
        count: count > 1 ? count : undefined,
        waitedMs,
      };
    }
    case 'refused': {
      const { request, reason, message } = effect;
      return {
        type: 'refused',
        ...aboutTargets(request),
        requestId: shownRequest(request),
        reason,
        message,
        waitedMs,
      };
    }
    case 'released': {
      const { lockId, count } = effect.hold;
      const about = aboutTargets(effect.hold);
      return {
        type: 'released',
        ...about,
        lockId,
        count: count > 0 ? count : undefined,
        reason: effect.reason,
      };
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
