import { classCovers, contains, overlaps } from './conflict.ts';
import type { Entry, Lock, Owner } from './state.ts';

/** Requests that may join one hold: they are all stored with it. The next gets a hold of its own. */
export const JOINED_MAX = 255;
/** From how many entries an owner gets a map by node. */
const MAP_FROM = 16;

export function addOwn(entry: Entry): void {
  const owner = entry.lock.owner;
  entry.ownAt = owner.entries.length;
  owner.entries.push(entry);
  if (owner.byNode !== null) mapEntry(owner.byNode, entry);
  else if (owner.entries.length > MAP_FROM) {
    owner.byNode = new Map();
    for (const one of owner.entries) mapEntry(owner.byNode, one);
  }
}

function mapEntry(byNode: NonNullable<Owner['byNode']>, entry: Entry): void {
  const there = byNode.get(entry.node);
  if (there === undefined) byNode.set(entry.node, entry);
  else if (Array.isArray(there)) there.push(entry);
  else byNode.set(entry.node, [there, entry]);
}

export function removeOwn(entry: Entry): void {
  const owner = entry.lock.owner;
  const last = owner.entries.pop()!;
  if (last !== entry) {
    owner.entries[entry.ownAt] = last;
    last.ownAt = entry.ownAt;
  }
  entry.ownAt = -1;
  if (owner.byNode === null) return;
  const there = owner.byNode.get(entry.node)!;
  if (Array.isArray(there) && there.length > 1) there.splice(there.indexOf(entry), 1);
  else owner.byNode.delete(entry.node);
  if (owner.entries.length === 0) owner.byNode = null;
}

/** Held entries of an entry's own owner, among them all that overlap it. */
function* nearbyOwn(asked: Entry): Generator<Entry, void, void> {
  const owner = asked.lock.owner;
  if (owner.byNode === null || (asked.isTree && asked.lock.tree.hasHeldBelow(asked.node))) {
    yield* owner.entries;
    return;
  }
  for (let node = asked.node; ; node = node.parent) {
    const there = owner.byNode.get(node) ?? [];
    for (const entry of Array.isArray(there) ? there : [there])
      if (entry.isTree || node === asked.node) yield entry;
    if (node.parent === null) return;
  }
}

/** The ticket an entry carries: its request's, or the earliest of its owner's holds that it overlaps. */
export function carriedTicket(asked: Entry): number {
  let ticket = asked.lock.ticket;
  if (asked.lock.owner.entries.length === 0) return ticket;
  for (const own of nearbyOwn(asked))
    if (own.lock.ticket < ticket && own.lock.tree === asked.lock.tree && overlaps(own.target, asked.target))
      ticket = own.lock.ticket;
  return ticket;
}

function covers(own: Entry, asked: Entry): boolean {
  return (
    own.lock.tree === asked.lock.tree &&
    contains(own.target, asked.target) &&
    classCovers(own.class, asked.class)
  );
}

function lockCovers(lock: Lock, asked: readonly Entry[]): boolean {
  return asked.every((one) => lock.entries.some((own) => covers(own, one)));
}

/** What covers a request: nothing, its owner's holds together, or one hold alone (the earliest) that it may join. */
export function coverage(request: Lock): 'none' | 'several' | Lock {
  if (request.owner.entries.length === 0) return 'none';
  let alone: Lock | undefined;
  let first = true;
  for (const asked of request.entries) {
    let covered = false;
    for (const own of nearbyOwn(asked)) {
      if (!covers(own, asked)) continue;
      covered = true;
      if (!first) break;
      const lock = own.lock;
      const mayJoin =
        lock.session === request.session &&
        lock.kind === request.kind &&
        (lock.hold!.joined?.length ?? 0) < JOINED_MAX;
      if (mayJoin && (alone === undefined || lock.ticket < alone.ticket) && lockCovers(lock, request.entries))
        alone = lock;
    }
    if (!covered) return 'none';
    first = false;
  }
  return alone ?? 'several';
}

/** Start of the owner's unbroken presence on what a request asks for: `nowMs` when it is new there. */
export function coveredSince(request: Lock, nowMs: number): number {
  let since = nowMs;
  if (request.owner.entries.length === 0) return since;
  for (const asked of request.entries)
    for (const own of nearbyOwn(asked)) {
      const start = own.lock.hold!.coveredSinceMs;
      if (start < since && own.lock.tree === asked.lock.tree && contains(own.target, asked.target))
        since = start;
    }
  return since;
}

/** True when an earlier waiter of the same owner covers this one: its grant will be this one's grant too. */
export function hasForerunner(waiter: Lock): boolean {
  for (const other of waiter.owner.waiting)
    if (other.ticket < waiter.ticket && lockCovers(other, waiter.entries)) return true;
  return false;
}
