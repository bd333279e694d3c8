/** A broker's start: from the stored rows to a state that goes on where the last one stopped. */

import { GateError } from '../base/errors.ts';
import { LockCore } from '../lock/core.ts';
import type { Hold, Waiter } from '../lock/types.ts';
import type { Store } from '../store/types.ts';
import { DurableCounters } from './counters.ts';
import { EventHub } from './events.ts';
import { Metrics } from './metrics.ts';
import type { Settings } from './settings.ts';
import { BrokerState } from './state.ts';
import { BrokerTime, isOriginKey, originKey } from './time.ts';
import { HTTP_SESSION } from './wire.ts';

function checkRow(ok: boolean, what: string, key: string): void {
  if (!ok)
    throw new GateError(
      'internal',
      `The database is damaged: the ${what} ${key} is not one. Gate leaves it as it is.`,
    );
}

/** What the start has to know of all stored rows together. */
class Seen {
  latestMs = 0;
  holds = 0;
  readonly sessions = new Set<string>();
  readonly leased: Hold[] = [];
}

/** The stored holds without a lease, one by one: a million of them are better not gathered. The others go to `seen`. */
function* unleasedHolds(store: Store, seen: Seen): Generator<Hold, void, void> {
  for (const [key, hold] of store.rows('hold')) {
    checkRow(
      hold.lockId === key && Array.isArray(hold.targets) && Number.isSafeInteger(hold.token),
      'lock',
      key,
    );
    seen.holds++;
    seen.latestMs = Math.max(seen.latestMs, hold.grantedAtMs);
    seen.sessions.add(hold.session);
    if (hold.leaseExpiresAtMs === null) yield hold;
    else seen.leased.push(hold);
  }
}

/**
 * Nobody was there to renew a lease with while no broker ran, and the wall clock may have been set meanwhile: so each has its whole
 * length again, which is never less than what its holder counts on.
 */
function renewed(hold: Hold, nowMs: number): Hold {
  return { ...hold, leaseExpiresAtMs: nowMs + (hold.leaseMs ?? 0) };
}

function readWaiters(store: Store): Waiter[] {
  const waiters: Waiter[] = [];
  for (const [key, waiter] of store.rows('waiter')) {
    checkRow(
      Number.isSafeInteger(waiter.ticket) && Array.isArray(waiter.request?.targets),
      'waiting request',
      key,
    );
    waiters.push(waiter);
  }
  return waiters.sort((a, b) => a.ticket - b.ticket);
}

/**
 * Loads the core. Leases begin anew. HTTP requests that waited died with
 * their connections. Locks whose session is unknown (they cannot be, unless somebody edited the database) are given up.
 */
export async function loadState(
  settings: Settings,
  store: Store,
  gauges: { readonly sessions: () => number },
): Promise<BrokerState> {
  const { clock, boot } = settings;
  const counters = new DurableCounters(store, clock.wallMs(), settings.limits.counterBlock);
  const core = new LockCore({ counters, limits: settings.limits });
  const seen = new Seen();
  core.load(unleasedHolds(store, seen), []);
  const waiters = readWaiters(store);
  for (const { arrivedAtMs } of waiters) seen.latestMs = Math.max(seen.latestMs, arrivedAtMs);
  const origins = new Map([...store.rows('meta')].filter(([key]) => isOriginKey(key)));
  const busy = seen.holds > 0 || waiters.length > 0;
  const time = new BrokerTime(clock, boot, { origins, latestMs: seen.latestMs, busy });
  const nowMs = time.nowMs();
  core.load(
    seen.leased.map((hold) => renewed(hold, nowMs)),
    waiters,
  );

  const hub = new EventHub();
  const metrics: Metrics = new Metrics({
    sessions: gauges.sessions,
    waiters: () => state.waiterCount,
    events: () => hub.dropped,
    subscribers: () => hub.size,
  });
  metrics.holds = seen.holds;
  let lastSeq = 0;
  for (const event of store.events()) {
    lastSeq = event.seq;
    break;
  }
  const known = new Set<string>([HTTP_SESSION]);
  for (const [id] of store.rows('session')) known.add(id);
  // All was read: a database that turns out to be damaged is left as it is.
  await counters.refill();
  const state: BrokerState = new BrokerState(
    { settings, store, core, counters, time, hub, metrics },
    lastSeq + 1,
  );
  state.change((batch) => {
    for (const key of origins.keys()) batch.delete('meta', key);
    batch.put('meta', originKey(boot), time.originMs);
  });
  for (const { request, arrivedAtMs } of waiters)
    state.loadedWaiter(request.session, request.requestId, arrivedAtMs);

  // Before anything is decided anew.
  const away = [...known].filter((session) => session !== HTTP_SESSION);
  state.apply({ type: 'away', sessions: away, away: true });
  for (const { request } of waiters)
    if (request.session === HTTP_SESSION)
      state.apply({ type: 'cancel', requestId: request.requestId, session: HTTP_SESSION });
  const orphans = new Set<string>();
  for (const session of seen.sessions) if (!known.has(session)) orphans.add(session);
  for (const { request } of waiters) if (!known.has(request.session)) orphans.add(request.session);
  for (const session of orphans) state.apply({ type: 'end_session', session, reason: 'session_lost' });
  state.apply({ type: 'tick' });
  return state;
}
