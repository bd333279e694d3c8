import { NAME_READ, REPLACE, WRITE } from './conflict.ts';
import type { SortedQueue } from './sorted.ts';
import type { Entry, Owner } from './state.ts';

/**
 * A *facet* is one sort of entry: 0 to 3 the held ones of each class, 4 to 7 the waiting ones. For each facet a
 * node lists the children with such an entry somewhere below, so that a tree target finds what is in its way
 * without looking at what is not.
 */
export const WAITING = 4;
export const FACETS = 8;

/** From how many holds of a class a bucket keeps them by owner too. */
const BY_OWNER_FROM = 8;
const NONE: readonly Entry[] = [];

/** Held entries; without a list as long as there is but one, for there are a million of these. */
type Held = Entry | Entry[] | null;

function listOf(held: Held | undefined): readonly Entry[] {
  if (Array.isArray(held)) return held;
  return held ? [held] : NONE;
}

function withAdded(held: Held | undefined, entry: Entry): Entry | Entry[] {
  if (!held) return entry;
  if (!Array.isArray(held)) return [held, entry];
  held.push(entry);
  return held;
}

/** The entries of one scope at one path: held ones in four lists, waiting ones in four queues. */
export class Bucket {
  /** By class; as fields, for there are many. */
  #writes: Held = null;
  #replaces: Held = null;
  #nameReads: Held = null;
  #handleReads: Held = null;
  /** All the held ones, while there are too many to look through. */
  #byOwner: Map<Owner, Entry | Entry[]> | null = null;
  queues: (SortedQueue<Entry> | null)[] | null = null;

  held(cls: number): readonly Entry[] {
    return listOf(this.#get(cls));
  }

  *heldBy(owner: Owner): Generator<Entry, void, void> {
    if (this.#byOwner !== null) yield* listOf(this.#byOwner.get(owner));
    else
      for (let cls = 0; cls < 4; cls++)
        for (const one of this.held(cls)) if (one.lock.owner === owner) yield one;
  }

  addHeld(entry: Entry): void {
    const held = withAdded(this.#get(entry.class), entry);
    this.#set(entry.class, held);
    const count = Array.isArray(held) ? held.length : 1;
    entry.heldAt = count - 1;
    if (this.#byOwner !== null) this.#map(entry);
    else if (count >= BY_OWNER_FROM) {
      this.#byOwner = new Map();
      for (let cls = 0; cls < 4; cls++) for (const one of this.held(cls)) this.#map(one);
    }
  }

  removeHeld(entry: Entry): void {
    const held = this.#get(entry.class);
    if (Array.isArray(held) && held.length > 1) {
      const last = held.pop()!;
      if (last !== entry) {
        held[entry.heldAt] = last;
        last.heldAt = entry.heldAt;
      }
    } else this.#set(entry.class, null);
    entry.heldAt = -1;
    this.#unmap(entry);
  }

  isEmpty(facet: number): boolean {
    if (facet < WAITING) return this.#get(facet) === null;
    return (this.queues?.[facet - WAITING]?.size ?? 0) === 0;
  }

  /** Lowest effective ticket of its waiters. */
  lowest(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const queue of this.queues ?? [])
      lowest = Math.min(lowest, queue?.first()?.effectiveTicket ?? lowest);
    return lowest;
  }

  #get(cls: number): Held {
    if (cls === WRITE) return this.#writes;
    if (cls === REPLACE) return this.#replaces;
    return cls === NAME_READ ? this.#nameReads : this.#handleReads;
  }

  #set(cls: number, held: Held): void {
    if (cls === WRITE) this.#writes = held;
    else if (cls === REPLACE) this.#replaces = held;
    else if (cls === NAME_READ) this.#nameReads = held;
    else this.#handleReads = held;
  }

  #map(entry: Entry): void {
    const { owner } = entry.lock;
    this.#byOwner!.set(owner, withAdded(this.#byOwner!.get(owner), entry));
  }

  #unmap(entry: Entry): void {
    const byOwner = this.#byOwner;
    if (byOwner === null) return;
    const { owner } = entry.lock;
    const there = byOwner.get(owner)!;
    if (Array.isArray(there) && there.length > 1) there.splice(there.indexOf(entry), 1);
    else byOwner.delete(owner);
    if (byOwner.size === 0) this.#byOwner = null;
  }
}

/** The owner of every held entry at a node and below, or MIXED; MIXED may be out of date. */
export const MIXED = Symbol('mixed');

/** A path: itself the bucket of its entries of scope `file`. */
export class Node extends Bucket {
  readonly path: string;
  readonly parent: Node | null;
  /** Its entries of scope `tree`. */
  tree: Bucket | null = null;
  children: (Node[] | null)[] | null = null;
  /** One bit a facet, set when an entry of it is here or below. */
  facets = 0;
  /** Place in the parent's `children`: `place * FACETS + facet` of one facet (most have no more), others in `#places`. */
  #onlyPlace = -1;
  #places: number[] | null = null;
  sole: Owner | typeof MIXED | null = null;
  waiters = 0;
  /** Null for Infinity, which would cost each node a number of its own. */
  #lowestWaiting: number | null = null;

  constructor(path: string, parent: Node | null) {
    super();
    this.path = path;
    this.parent = parent;
  }

  /** No waiter here or below has an effective ticket under this one. May be too low, never too high. */
  get lowestWaiting(): number {
    return this.#lowestWaiting ?? Number.POSITIVE_INFINITY;
  }

  set lowestWaiting(ticket: number) {
    this.#lowestWaiting = ticket === Number.POSITIVE_INFINITY ? null : ticket;
  }

  /** Lowest effective ticket of those who wait here, not below. */
  lowestHere(): number {
    return Math.min(this.lowest(), this.tree?.lowest() ?? Number.POSITIVE_INFINITY);
  }

  bucket(isTree: boolean): Bucket {
    return isTree ? (this.tree ??= new Bucket()) : this;
  }

  placeIn(facet: number): number {
    const only = this.#onlyPlace;
    return only % FACETS === facet ? (only - facet) / FACETS : this.#places![facet]!;
  }

  setPlace(facet: number, place: number): void {
    const only = this.#onlyPlace;
    if (only < 0 || only % FACETS === facet) this.#onlyPlace = place * FACETS + facet;
    else (this.#places ??= [0, 0, 0, 0, 0, 0, 0, 0])[facet] = place;
  }

  hasBelow(facet: number): boolean {
    return (this.children?.[facet]?.length ?? 0) > 0;
  }

  /** True when there is nothing of a facet here or below. */
  lacks(facet: number): boolean {
    return this.isEmpty(facet) && (this.tree === null || this.tree.isEmpty(facet)) && !this.hasBelow(facet);
  }
}
