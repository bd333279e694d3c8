/** Holds and waits as people see them: owners without the HTTP prefix, and who is in whose way. */
import type { Hold, Target, Waiter } from '../lock/types.ts';
import type { HttpLocks } from './http-locks.ts';
import { shownOwner, shownRequest } from './owners.ts';
import type { BrokerState } from './state.ts';
import { type Blocker, DELEGATE_OWNER, type HoldInfo, type PathStatus, type WaitInfo } from './wire.ts';

/** Blockers that are named for one waiter. */
const BLOCKERS_SHOWN = 8;
/** Blockers looked at for one answer: finding those of each of 10,000 waiters on one key would take seconds. */
const BLOCKERS_SEEN = 20_000;

export function holdInfo(hold: Hold): HoldInfo {
  const { requestId: _requestId, joined: _joined, leaseMs: _leaseMs, ...rest } = hold;
  return { ...rest, ...shownOwner(hold.owner) };
}

/** The target of a blocker that a waiter's targets run into, as far as paths tell. */
function metTarget(targets: readonly Target[], wanted: readonly Target[]): Target {
  const touches = (one: Target) =>
    wanted.some(
      ({ path }) => path === one.path || path.startsWith(`${one.path}/`) || one.path.startsWith(`${path}/`),
    );
  return targets.find(touches) ?? targets[0]!;
}

function blockersOf(state: BrokerState, { request }: Waiter, budget: { left: number }): Blocker[] {
  if (budget.left <= 0) return [];
  const status = state.parts.core.blockersOf(request.requestId, request.session);
  if (!status) return [];
  const away = (session: string) => (state.parts.core.isAway(session) ? ({ away: true } as const) : {});
  budget.left -= status.holds.length + status.waiters.length;
  const holds = status.holds.slice(0, BLOCKERS_SHOWN).map((hold): Blocker => {
    const { path, mode } = metTarget(hold.targets, request.targets);
    const { owner } = shownOwner(hold.owner);
    return {
      owner,
      state: 'holds',
      path,
      mode,
      sinceMs: hold.grantedAtMs,
      who: hold.who,
      ...away(hold.session),
    };
  });
  const waiters = status.waiters.slice(0, BLOCKERS_SHOWN - holds.length).map((waiter): Blocker => {
    const { path, mode } = metTarget(waiter.request.targets, request.targets);
    const { owner } = shownOwner(waiter.request.owner);
    const { who, session } = waiter.request;
    return { owner, state: 'waits', path, mode, sinceMs: waiter.arrivedAtMs, who, ...away(session) };
  });
  return [...holds, ...waiters];
}

function waitInfo(state: BrokerState, waiter: Waiter, budget: { left: number }): WaitInfo {
  const { request, ticket, arrivedAtMs, deadlineMs } = waiter;
  const { session, volume, targets, kind, who } = request;
  return {
    requestId: shownRequest(request),
    volume,
    targets,
    ...shownOwner(request.owner),
    session,
    kind,
    ticket,
    arrivedAtMs,
    deadlineMs,
    blockers: blockersOf(state, waiter, budget),
    who,
  };
}

/** What is held and waited for on a path, on directories above it as trees, and below it when it is asked as one. */
export function describeStatus(
  state: BrokerState,
  volume: string,
  path: string,
  tree: boolean,
  delegated: readonly Hold[],
): PathStatus {
  const { holds, waiters } = state.parts.core.status(volume, path, tree ? 'tree' : 'file');
  const budget = { left: BLOCKERS_SEEN };
  const all = holds.filter((hold) => hold.owner !== DELEGATE_OWNER);
  // A hold may have come over between the delegate's report and now.
  for (const hold of delegated) if (state.parts.core.hold(hold.lockId) === null) all.push(hold);
  return { holds: all.map(holdInfo), queue: waiters.map((waiter) => waitInfo(state, waiter, budget)) };
}

/** Every wait there is, in order of tickets. */
export function describeWaits(state: BrokerState): WaitInfo[] {
  const budget = { left: BLOCKERS_SEEN };
  return state.parts.core.waits().map((waiter) => waitInfo(state, waiter, budget));
}

/** A wait in the ancestor's shape, with more fields. */
export function httpQueueEntry(wait: WaitInfo, locks: HttpLocks, shownPath: (path: string) => string) {
  const first = wait.targets[0]!;
  return {
    req_id: wait.requestId,
    path: shownPath(first.path),
    mode: first.mode,
    owner: wait.owner,
    via: wait.via,
    requested_at: locks.seconds(wait.arrivedAtMs),
    volume: wait.volume,
    scope: first.scope,
    targets: wait.targets.map((target) => ({ ...target, path: shownPath(target.path) })),
    ticket: wait.ticket,
    deadline: locks.seconds(wait.deadlineMs),
    blockers: wait.blockers.map(({ sinceMs, ...blocker }) => ({ ...blocker, since: locks.seconds(sinceMs) })),
    session: wait.session,
    who: wait.who,
  };
}
