/**
 * Which listings of directories the kernel may keep in its page cache (FOPEN_CACHE_DIR) and show again to who opens the directory later
 * (FOPEN_KEEP_CACHE): those of a directory that is as it was when it was read, and had been so for a while by then, as pages.ts says. Who
 * changes it through the view, or opens it after a change beneath, makes the kernel forget them.
 *
 * The kernel's copy belongs to the directory and not to one open handle: a handle that is half through may be shown the rest of what another
 * one was told. So names that were read at different times have different cookies, and a cookie of older ones is looked up in those.
 */
import * as sys from '../sys/index.ts';
import type { Node } from '../view/node.ts';
import { scratch } from '../view/scratch.ts';
import { type ListedName, type Listing, Names } from './listing.ts';
import { isSame, TICK_MS, version } from './pages.ts';

/** FOPEN_* (linux/fuse.h). */
const FOPEN_KEEP_CACHE = 1 << 1;
const FOPEN_CACHE_DIR = 1 << 3;

/** Positions in one listing; with GENERATIONS the cookies stay within 31 bits, for 32-bit programs. */
const POSITIONS = 2 ** 28;
/** 0 is that of names that the kernel does not keep. */
const GENERATIONS = 8;
/** Names that are kept for directories which nobody has open; about 150 bytes each. */
const NAMES_MAX = 200_000;

interface Known {
  /** What the kernel may have, with a version; null: nothing that is to be shown again. */
  names: Names | null;
  generation: number;
  readonly open: Set<Listing>;
}

export class Listings {
  /** The one used last is the last. */
  readonly #known = new Map<Node, Known>();
  readonly #wallMs: () => number;
  readonly #changed: (node: Node) => void;
  readonly #namesMax: number;
  #kept = 0;

  /** `changed` is called when a directory is not what the kernel may have: its times must be asked for anew before that is shown. */
  constructor(wallMs: () => number, changed: (node: Node) => void, namesMax = NAMES_MAX) {
    this.#wallMs = wallMs;
    this.#changed = changed;
    this.#namesMax = namesMax;
  }

  /** A directory was opened, and the kernel remembers names in it for long: the flags to answer with. */
  opened(listing: Listing): number {
    const { node, fd } = listing;
    const known = this.#known.get(node) ?? { names: null, generation: 0, open: new Set() };
    if (sys.fstatx(fd, scratch, sys.STATX_BASIC_STATS) < 0) return 0;
    const before = known.names;
    if (before !== null && isSame(before.version!)) {
      this.#known.delete(node);
      this.#known.set(node, known);
      known.open.add(listing);
      listing.names = before;
      listing.cached = true;
      return FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE;
    }
    if (before !== null) this.#changed(node);
    this.#drop(known);
    const generation = this.#isSettled() ? freeGeneration(known) : 0;
    if (generation === 0) {
      this.#prune(node, known);
      return 0;
    }
    this.#known.delete(node);
    this.#known.set(node, known);
    known.open.add(listing);
    known.generation = generation;
    known.names = new Names(generation, version());
    listing.names = known.names;
    listing.cached = true;
    return FOPEN_CACHE_DIR;
  }

  closed(listing: Listing): void {
    const known = this.#known.get(listing.node);
    if (known?.open.delete(listing)) this.#prune(listing.node, known);
  }

  /** The names that `cookie` is one of, and its position; or -errno. */
  at(
    listing: Listing,
    cookie: number,
  ): { names: Names; list: readonly ListedName[]; position: number } | number {
    if (cookie === 0) this.#begin(listing);
    const names = cookie === 0 ? listing.names : this.#of(listing, Math.floor(cookie / POSITIONS));
    if (names.list === null) {
      const error = names.fill(listing.fd, listing.hidden);
      if (error < 0) return error;
      if (this.#known.get(listing.node)?.names === names) this.#count(names.list!);
    }
    return { names, list: names.list!, position: cookie % POSITIONS };
  }

  /** The cookie of what follows `position`. */
  cookie(names: Names, position: number): number {
    return names.generation * POSITIONS + position + 1;
  }

  /** Read from its start: what was read before is read anew unless it is as it was. */
  #begin(listing: Listing): void {
    const { names } = listing;
    if (names.list === null) return;
    const error = names.version === null ? -1 : sys.fstatx(listing.fd, scratch, sys.STATX_BASIC_STATS);
    if (error === 0 && isSame(names.version!)) return;
    const known = listing.cached ? this.#known.get(listing.node) : undefined;
    // The kernel may put it in the place of what it has.
    if (known !== undefined) this.#drop(known);
    const generation = known === undefined ? 0 : freeGeneration(known);
    if (known !== undefined && generation !== 0) known.generation = generation;
    listing.names = new Names(generation, null);
  }

  #of(listing: Listing, generation: number): Names {
    if (listing.names.generation === generation) return listing.names;
    const known = this.#known.get(listing.node);
    if (known?.names?.generation === generation) return known.names;
    for (const other of known?.open ?? []) if (other.names.generation === generation) return other.names;
    return listing.names;
  }

  /** `scratch` has its attributes: a change from now on will show. */
  #isSettled(): boolean {
    return scratch.ctimeSec * 1000 + scratch.ctimeNsec / 1e6 < this.#wallMs() - TICK_MS;
  }

  #drop(known: Known): void {
    this.#kept -= known.names?.list?.length ?? 0;
    known.names = null;
  }

  #prune(node: Node, known: Known): void {
    if (known.names === null && known.open.size === 0) this.#known.delete(node);
  }

  #count(list: readonly ListedName[]): void {
    this.#kept += list.length;
    for (const [node, known] of this.#known) {
      if (this.#kept <= this.#namesMax) return;
      if (known.names?.list === list) continue;
      this.#drop(known);
      this.#prune(node, known);
    }
  }
}

/** One that no open handle uses; 0: there is none. */
function freeGeneration(known: Known): number {
  for (let i = 1; i < GENERATIONS; i++) {
    const generation = ((known.generation + i - 1) % (GENERATIONS - 1)) + 1;
    let used = false;
    for (const { names } of known.open) if (names.generation === generation) used = true;
    if (!used) return generation;
  }
  return 0;
}
