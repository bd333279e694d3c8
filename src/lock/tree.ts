import { CONFLICTS } from './conflict.ts';
import { type Bucket, FACETS, MIXED, Node, WAITING } from './node.ts';
import { parentOf } from './paths.ts';
import { SortedQueue } from './sorted.ts';
import type { Entry, Owner } from './state.ts';

export interface Wanted {
  readonly held?: boolean;
  readonly waitingAfter?: number;
  readonly waitingBefore?: number;
}

/** The index of one volume: a node for each path that has entries at it or below it, and nothing else. */
export class Tree {
  readonly #nodes = new Map<string, Node>();
  readonly #root = new Node('', null);
  readonly #work: { visited: number };

  constructor(work: { visited: number }) {
    this.#work = work;
    this.#nodes.set('', this.#root);
  }

  get size(): number {
    return this.#nodes.size;
  }

  get hasWaiters(): boolean {
    return this.#root.facets >> WAITING !== 0;
  }

  /** The node of a path, made when it is not there. Who adds nothing to it must `prune` it. */
  open(path: string): Node {
    let node = this.#nodes.get(path);
    if (node === undefined) {
      node = new Node(path, this.open(parentOf(path)));
      this.#nodes.set(path, node);
    }
    return node;
  }

  waitersAt(path: string): number {
    return this.#nodes.get(path)?.waiters ?? 0;
  }

  /** Forgets a node, and the directories above it, that have nothing in them. */
  prune(from: Node): void {
    for (let node = from; node.parent !== null && node.facets === 0; node = node.parent) {
      if (this.#nodes.get(node.path) !== node) return;
      this.#nodes.delete(node.path);
    }
  }

  addHeld(entry: Entry): void {
    entry.node.bucket(entry.isTree).addHeld(entry);
    this.#enter(entry.node, entry.class);
    const owner = entry.lock.owner;
    for (let node: Node | null = entry.node; node !== null; node = node.parent) {
      if (node.sole === owner || node.sole === MIXED) return;
      node.sole = node.sole === null ? owner : MIXED;
    }
  }

  removeHeld(entry: Entry): void {
    entry.node.bucket(entry.isTree).removeHeld(entry);
    this.#leave(entry.node, entry.class);
  }

  addWaiting(entry: Entry): void {
    const bucket = entry.node.bucket(entry.isTree);
    bucket.queues ??= [null, null, null, null];
    (bucket.queues[entry.class] ??= new SortedQueue()).add(entry);
    entry.node.waiters++;
    this.#enter(entry.node, WAITING + entry.class);
    this.#lower(entry.node, entry.effectiveTicket);
  }

  removeWaiting(entry: Entry): void {
    const queues = entry.node.bucket(entry.isTree).queues!;
    queues[entry.class]!.remove(entry);
    if (queues[entry.class]!.size === 0) queues[entry.class] = null;
    entry.node.waiters--;
    this.#leave(entry.node, WAITING + entry.class);
  }

  /** Gives a waiting entry another effective ticket. */
  reorder(entry: Entry, ticket: number): void {
    const queue = entry.node.bucket(entry.isTree).queues![entry.class]!;
    queue.remove(entry);
    entry.effectiveTicket = ticket;
    queue.add(entry);
    this.#lower(entry.node, ticket);
  }

  #lower(from: Node, ticket: number): void {
    for (let node: Node | null = from; node !== null; node = node.parent) {
      if (node.lowestWaiting <= ticket) return;
      node.lowestWaiting = ticket;
    }
  }

  #enter(from: Node, facet: number): void {
    const bit = 1 << facet;
    for (let node = from; (node.facets & bit) === 0; node = node.parent) {
      node.facets |= bit;
      if (node.parent === null) return;
      node.parent.children ??= [null, null, null, null, null, null, null, null];
      const siblings = (node.parent.children[facet] ??= []);
      node.setPlace(facet, siblings.length);
      siblings.push(node);
    }
  }

  #leave(from: Node, facet: number): void {
    const bit = 1 << facet;
    for (let node = from; node.lacks(facet); node = node.parent) {
      node.facets &= ~bit;
      if ((node.facets & 0x0f) === 0) node.sole = null;
      if (node.facets >> WAITING === 0) node.lowestWaiting = Number.POSITIVE_INFINITY;
      if (node.parent === null) return;
      const siblings = node.parent.children![facet]!;
      const last = siblings.pop()!;
      if (last !== node) {
        siblings[node.placeIn(facet)] = last;
        last.setPlace(facet, node.placeIn(facet));
      }
      if (node.facets === 0) this.#nodes.delete(node.path);
    }
  }

  /**
   * The latest waiter that stands before an entry and conflicts with it (any one, for those below a tree), or
   * undefined.
   */
  earlierWaiter(asked: Entry): Entry | undefined {
    if (!this.hasWaiters) return undefined;
    let best: Entry | undefined;
    const mask = CONFLICTS[asked.class]!;
    const consider = (bucket: Bucket | null) => {
      if (bucket === null || bucket.queues === null) return;
      for (let cls = 0; cls < 4; cls++) {
        const queue = ((mask >> cls) & 1) === 1 ? bucket.queues[cls] : null;
        if (!queue) continue;
        const found = queue.lastBefore(asked.effectiveTicket, (entry) => {
          this.#work.visited++;
          return entry.lock.owner !== asked.lock.owner;
        });
        if (found !== undefined && (best === undefined || found.effectiveTicket > best.effectiveTicket))
          best = found;
      }
    };
    consider(asked.node);
    for (let node: Node | null = asked.node; node !== null; node = node.parent) consider(node.tree);
    if (best !== undefined || !asked.isTree) return best;
    this.#earlierBelow(asked.node, asked, mask, consider, () => best !== undefined);
    return best;
  }

  #earlierBelow(
    top: Node,
    asked: Entry,
    mask: number,
    consider: (bucket: Bucket | null) => void,
    done: () => boolean,
  ): void {
    if (top.lowestWaiting >= asked.effectiveTicket || top.children === null) return;
    let lowest = top.lowestHere();
    for (let cls = 0; cls < 4; cls++) {
      const wanted = ((mask >> cls) & 1) === 1;
      for (const node of top.children[WAITING + cls] ?? []) {
        this.#work.visited++;
        if (wanted && node.lowestWaiting < asked.effectiveTicket) {
          consider(node);
          consider(node.tree);
          if (done()) return;
          this.#earlierBelow(node, asked, mask, consider, done);
          if (done()) return;
          // A leaf is looked at whole, so what it has is known.
          if (node.children === null) node.lowestWaiting = node.lowestHere();
        }
        lowest = Math.min(lowest, node.lowestWaiting);
      }
    }
    top.lowestWaiting = lowest;
  }

  /** The queues of one class that cover all of a region, each from `before` backwards, latest first. */
  *standingOn(
    node: Node,
    isTree: boolean,
    cls: number,
    before: number,
  ): Generator<Iterable<Entry>, void, void> {
    const own = isTree ? null : node.queues?.[cls];
    if (own) yield own.before(before);
    for (let at: Node | null = node; at !== null; at = at.parent) {
      const queue = at.tree?.queues?.[cls];
      if (queue) yield queue.before(before);
    }
  }

  /** A held entry of somebody else that conflicts, or undefined. */
  conflictingHold(asked: Entry): Entry | undefined {
    const owner = asked.lock.owner;
    const mask = CONFLICTS[asked.class]!;
    let found = this.#foreign(asked.node, mask, owner);
    for (let node: Node | null = asked.node; node !== null && found === undefined; node = node.parent)
      found = this.#foreign(node.tree, mask, owner);
    if (found === undefined && asked.isTree) found = this.#foreignBelow(asked.node, mask, owner);
    return found;
  }

  #foreign(bucket: Bucket | null, mask: number, owner: Owner): Entry | undefined {
    if (bucket === null) return undefined;
    for (let cls = 0; cls < 4; cls++) {
      if (((mask >> cls) & 1) === 0) continue;
      for (const entry of bucket.held(cls)) {
        this.#work.visited++;
        if (entry.lock.owner !== owner) return entry;
      }
    }
    return undefined;
  }

  #foreignBelow(top: Node, mask: number, owner: Owner): Entry | undefined {
    if (top.sole === owner || top.children === null) return undefined;
    for (let cls = 0; cls < 4; cls++) {
      const list = ((mask >> cls) & 1) === 1 ? top.children[cls] : null;
      for (const node of list ?? []) {
        this.#work.visited++;
        if (node.sole === owner) continue;
        const found =
          this.#foreign(node, mask, owner) ??
          this.#foreign(node.tree, mask, owner) ??
          this.#foreignBelow(node, mask, owner);
        if (found !== undefined) return found;
      }
    }
    return undefined;
  }

  /** True when something is held below a node, the node itself left out. */
  hasHeldBelow(node: Node): boolean {
    for (let cls = 0; cls < 4; cls++) if (node.hasBelow(cls)) return true;
    return false;
  }

  /**
   * Every entry, held or waiting as asked, that overlaps a region and whose class is in the mask; waiters only
   * those with an effective ticket between the two given (both left out), latest first in each queue.
   */
  *overlapping(path: string, isTree: boolean, mask: number, what: Wanted): Generator<Entry, void, void> {
    const exact = this.#nodes.get(path);
    if (exact !== undefined) yield* this.#inBucket(exact, mask, what);
    for (let at: string | null = path; at !== null; at = at === '' ? null : parentOf(at)) {
      const node = this.#nodes.get(at);
      if (node !== undefined) yield* this.#inBucket(node.tree, mask, what);
    }
    if (isTree && exact !== undefined) yield* this.#below(exact, mask, what);
  }

  *#below(top: Node, mask: number, what: Wanted): Generator<Entry, void, void> {
    if (top.children === null) return;
    const wanted = (what.held ? mask : 0) | (what.waitingBefore !== undefined ? mask << WAITING : 0);
    for (let facet = 0; facet < FACETS; facet++) {
      if (((wanted >> facet) & 1) === 0) continue;
      for (const node of top.children[facet] ?? []) {
        // A child is in one list for each of its facets: take it with the first.
        if ((node.facets & wanted & ((1 << facet) - 1)) !== 0) continue;
        yield* this.#inBucket(node, mask, what);
        yield* this.#inBucket(node.tree, mask, what);
        yield* this.#below(node, mask, what);
      }
    }
  }

  *#inBucket(bucket: Bucket | null, mask: number, what: Wanted): Generator<Entry, void, void> {
    if (bucket === null) return;
    for (let cls = 0; cls < 4; cls++) {
      if (((mask >> cls) & 1) === 0) continue;
      if (what.held)
        for (const entry of bucket.held(cls)) {
          this.#work.visited++;
          yield entry;
        }
      const queue = what.waitingBefore === undefined ? null : bucket.queues?.[cls];
      if (!queue) continue;
      for (const entry of queue.before(what.waitingBefore!)) {
        this.#work.visited++;
        if (entry.effectiveTicket <= (what.waitingAfter ?? 0)) break;
        yield entry;
      }
    }
  }
}
