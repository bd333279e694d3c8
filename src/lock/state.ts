import type { Class } from './conflict.ts';
import type { HeapItem } from './heap.ts';
import type { Node } from './node.ts';
import type { Tree } from './tree.ts';
import type { AcquireRequest, Hold, Kind, Target } from './types.ts';

/** What one owner has and wants. Kept while there is any of it. */
export class Owner {
  readonly name: string;
  /** Entries of its holds, in no order. */
  readonly entries: Entry[] = [];
  readonly waiting = new Set<Lock>();
  /** Holds and waiters, detached ones too. */
  locks = 0;

  constructor(name: string) {
    this.name = name;
  }
}

export class Session {
  readonly name: string;
  /** By request id; a hold that was joined is here under each of its ids. */
  readonly requests = new Map<string, Lock>();
  /** Holds and waiters. */
  locks = 0;
  /** Nobody speaks for it at the moment: it comes back, or ends by itself. */
  away = false;

  constructor(name: string) {
    this.name = name;
  }

  /** Makes a lock known by an id, unless another one is; tells whether it is known by it now. */
  learn(id: string, lock: Lock): boolean {
    const there = this.requests.get(id);
    if (there === undefined) this.requests.set(id, lock);
    return there === undefined || there === lock;
  }
}

/** One target of one lock, as the index keeps it. */
export class Entry {
  readonly lock: Lock;
  readonly target: Target;
  readonly class: Class;
  readonly node: Node;
  readonly serial: number;
  /** The ticket that counts: the request's, or the earliest of its owner's holds that it overlaps. */
  effectiveTicket: number;
  /** Places in the node's list and in the owner's, while held. */
  heldAt = -1;
  ownAt = -1;

  constructor(lock: Lock, target: Target, cls: Class, node: Node, serial: number) {
    this.lock = lock;
    this.target = target;
    this.class = cls;
    this.node = node;
    this.serial = serial;
    this.effectiveTicket = lock.ticket;
  }

  get isTree(): boolean {
    return this.target.scope === 'tree';
  }

  get waiting(): boolean {
    return this.lock.hold === null;
  }
}

export interface LockTimer extends HeapItem {
  readonly lock: Lock;
}

/** What a lock has only while it waits. */
export class Wait {
  request: AcquireRequest;
  readonly arrivedAtMs: number;
  readonly deadlineMs: number | null;
  /** One of the locks that this one waits for: only when that one changes is it worth another look. */
  witness: Lock | null = null;
  watchedAt = -1;
  /** Due for another look. */
  onAgenda = false;

  constructor(request: AcquireRequest, arrivedAtMs: number, deadlineMs: number | null) {
    this.request = request;
    this.arrivedAtMs = arrivedAtMs;
    this.deadlineMs = deadlineMs;
  }
}

/** A request from its arrival to its end: first it waits (`wait`), if only for a moment, then it holds (`hold`). */
export class Lock {
  readonly ticket: number;
  readonly owner: Owner;
  readonly session: Session;
  /** Of its volume. */
  readonly tree: Tree;
  readonly kind: Kind;
  wait: Wait | null = null;
  hold: Hold | null = null;
  /** When a grant of it was told last; null: when it was granted. */
  toldMs: number | null = null;
  entries: Entry[] = [];
  /** The locks whose witness this is. */
  watchers: Lock[] | null = null;
  /** Wait limit while it waits, lease while it holds. */
  timer: LockTimer | null = null;
  /** Hold cap; only while somebody watches. */
  capTimer: LockTimer | null = null;
  ended = false;

  constructor(ticket: number, owner: Owner, session: Session, tree: Tree, kind: Kind) {
    this.ticket = ticket;
    this.owner = owner;
    this.session = session;
    this.tree = tree;
    this.kind = kind;
  }
}
