import { classCovers, contains, overlaps } from './conflict.ts';
import { JOINED_MAX } from './joined.ts';
import type { Node } from './node.ts';
import type { Entry, Lock } from './state.ts';

/** Up to so many holds of an owner are looked through one by one. */
const FEW = 4;

export function addOwn(entry: Entry): void {
  const { entries } = entry.lock.owner;
  entry.ownAt = entries.length;
  entries.push(entry);
}

export function removeOwn(entry: Entry): void {
  const { entries } = entry.lock.owner;
  const last = entries.pop()!;
  if (last !== entry) {
    entries[entry.ownAt] = last;
    last.ownAt = entry.ownAt;
  }
  entry.ownAt = -1;
}

/** Held entries of an entry's own owner, among them all whose region has some of its own path in it. */
function* ownAround(asked: Entry): Generator<Entry, void, void> {
  const { owner } = asked.lock;
  if (owner.entries.length <= FEW) {
    yield* owner.entries;
    return;
  }
  yield* asked.node.heldBy(owner);
  for (let node: Node | null = asked.node; node !== null; node = node.parent)
    if (node.tree !== null) yield* node.tree.heldBy(owner);
}

/** The same, and those below it. */
function ownOverlapping(asked: Entry): Iterable<Entry> {
  const below = asked.isTree && asked.lock.tree.hasHeldBelow(asked.node);
  return below ? asked.lock.owner.entries : ownAround(asked);
}

/** The ticket an entry carries: its request's, or the earliest of its owner's holds that it overlaps. */
export function carriedTicket(asked: Entry): number {
  let ticket = asked.lock.ticket;
  if (asked.lock.owner.entries.length === 0) return ticket;
  for (const own of ownOverlapping(asked))
    if (own.lock.ticket < ticket && own.lock.tree === asked.lock.tree && overlaps(own.target, asked.target))
      ticket = own.lock.ticket;
  return ticket;
}

/** Gives the entries of a request that is about to wait the tickets that count. */
export function carryTickets(lock: Lock): void {
  for (const entry of lock.entries) entry.effectiveTicket = carriedTicket(entry);
}

function covers(own: Entry, asked: Entry): boolean {
  return (
    own.lock.tree === asked.lock.tree &&
    own.lock.hold?.spread !== true &&
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
    for (const own of ownAround(asked)) {
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
    for (const own of ownAround(asked)) {
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
