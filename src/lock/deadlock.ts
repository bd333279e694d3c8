import { CONFLICTS } from './conflict.ts';
import { hasForerunner } from './owners.ts';
import type { Entry, Lock, Owner } from './state.ts';

/**
 * The wait-for graph has owners for nodes and waits for edges. A request waits for *all* that is in its way, so
 * every cycle is a deadlock. The graph is never stored: its edges follow from the index.
 *
 * Only edges that add something are followed. When P stands in a waiter's way, covers its whole region and
 * conflicts with all that the waiter conflicts with, then whoever stands before P is in P's way too (or is P's
 * owner): who waits in a queue of 10,000 leads to its neighbour, not to all before it.
 */
function* blockersOfEntry(asked: Entry): Generator<Entry, void, void> {
  const mask = CONFLICTS[asked.class]!;
  const wall = nearestWall(asked, mask);
  const region = [asked.target.path, asked.isTree, mask] as const;
  const waiters = asked.lock.tree.overlapping(...region, {
    waitingBefore: asked.effectiveTicket,
    waitingAfter: wall?.effectiveTicket ?? 0,
  });
  if (wall !== undefined) yield wall;
  yield* waiters;
  if (wall === undefined) yield* asked.lock.tree.overlapping(...region, { held: true });
}

function nearestWall(asked: Entry, mask: number): Entry | undefined {
  let wall: Entry | undefined;
  for (let cls = 0; cls < 4; cls++) {
    if (((mask >> cls) & 1) === 0 || (CONFLICTS[cls]! & mask) !== mask) continue;
    // A point is covered by whatever stands on it; a tree only by a tree at it or above.
    const around = asked.lock.tree.standingOn(asked.node, asked.isTree, cls, asked.effectiveTicket);
    for (const queue of around)
      for (const entry of queue) {
        if (wall !== undefined && entry.effectiveTicket <= wall.effectiveTicket) break;
        if (entry.lock.owner === asked.lock.owner || hasForerunner(entry.lock)) continue;
        wall = entry;
        break;
      }
  }
  return wall;
}

interface Edge {
  readonly waiter: Lock;
  readonly to: Owner;
}

function* edgesFrom(owner: Owner): Generator<Edge | null, void, void> {
  for (const waiter of owner.waiting) {
    if (hasForerunner(waiter)) continue;
    for (const asked of waiter.entries)
      for (const entry of blockersOfEntry(asked))
        yield entry.lock.owner === owner ? null : { waiter, to: entry.lock.owner };
  }
}

/** All owners that wait for one directly. */
function* waitersFor(owner: Owner): Generator<Owner, void, void> {
  const behind = function* (entry: Entry): Generator<Owner, void, void> {
    const found = entry.lock.tree.overlapping(entry.target.path, entry.isTree, CONFLICTS[entry.class]!, {
      waitingBefore: Number.POSITIVE_INFINITY,
      waitingAfter: entry.waiting ? entry.effectiveTicket : 0,
    });
    for (const other of found) yield other.lock.owner;
  };
  for (const entry of owner.entries) {
    yield owner;
    yield* behind(entry);
  }
  for (const waiter of owner.waiting) for (const entry of waiter.entries) yield* behind(entry);
}

/** Steps through everything from which `start` can be reached; ends early when there is little of it. */
function* backwards(start: Owner): Generator<void, Set<Owner>, void> {
  const seen = new Set([start]);
  for (const owner of seen)
    for (const other of waitersFor(owner)) {
      seen.add(other);
      yield;
    }
  return seen;
}

/**
 * Steps through everything that `start` waits for; returns the edges walked, by the owner that they leave, once
 * `start` itself is reached and everything else is walked too, or null when it is not reached.
 */
type Walk = Generator<void, Map<Owner, Edge[]> | null, void>;

function* forwards(start: Owner): Walk {
  const edges = new Map<Owner, Edge[]>([[start, []]]);
  let closed = false;
  for (const [owner, list] of edges)
    for (const edge of edgesFrom(owner)) {
      yield;
      if (edge === null) continue;
      list.push(edge);
      if (edge.to === start) closed = true;
      if (!edges.has(edge.to)) edges.set(edge.to, []);
    }
  return closed ? edges : null;
}

export interface Cycle {
  /** The newest request among those whose waiting closes it. */
  readonly newest: Lock;
  /** Names of owners, each waiting for the next, the last for the first. */
  readonly owners: readonly string[];
}

/** Finds the waits that lead from an owner back to itself. Walks from both ends, as far as the shorter way. */
export function findCycle(start: Owner): Cycle | null {
  if (start.waiting.size === 0) return null;
  const onward = forwards(start);
  const back = backwards(start);
  for (;;) {
    const step = onward.next();
    if (step.done) return step.value === null ? null : describe(start, step.value);
    const behind = back.next();
    if (behind.done) return reachesItself(start, behind.value, onward);
  }
}

/** Everybody who waits for `start` is known: only when that is somebody can there be a cycle. */
function reachesItself(start: Owner, upstream: Set<Owner>, onward: Walk): Cycle | null {
  let meets = false;
  for (const edge of edgesFrom(start)) meets ||= edge !== null && upstream.has(edge.to);
  if (!meets) return null;
  for (;;) {
    const step = onward.next();
    if (step.done) return step.value === null ? null : describe(start, step.value);
  }
}

function describe(start: Owner, edges: Map<Owner, Edge[]>): Cycle {
  const into = new Map<Owner, Owner[]>();
  for (const [from, list] of edges)
    for (const { to } of list) {
      const froms = into.get(to);
      if (froms === undefined) into.set(to, [from]);
      else froms.push(from);
    }
  const component = new Set([start]);
  for (const owner of component) for (const from of into.get(owner) ?? []) component.add(from);
  let newest: Lock | undefined;
  for (const owner of component)
    for (const edge of edges.get(owner)!)
      if (component.has(edge.to) && (newest === undefined || edge.waiter.ticket > newest.ticket))
        newest = edge.waiter;
  return { newest: newest!, owners: shortestWay(start, edges) };
}

function shortestWay(start: Owner, edges: Map<Owner, Edge[]>): string[] {
  const cameFrom = new Map<Owner, Owner>();
  const queue = [start];
  for (const owner of queue)
    for (const edge of edges.get(owner)!) {
      if (edge.to === start) return walkBack(start, owner, cameFrom);
      if (cameFrom.has(edge.to)) continue;
      cameFrom.set(edge.to, owner);
      queue.push(edge.to);
    }
  return [start.name];
}

function walkBack(start: Owner, last: Owner, cameFrom: Map<Owner, Owner>): string[] {
  const names: string[] = [];
  for (let owner = last; owner !== start; owner = cameFrom.get(owner)!) names.push(owner.name);
  return [start.name, ...names.reverse()];
}
