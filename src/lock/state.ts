import type { Class } from './conflict.ts';
import type { HeapItem } from './heap.ts';
import type { Node, Tree } from './tree.ts';
import type { AcquireRequest, Hold, Kind, Target } from './types.ts';

/** What one owner has and wants. Kept while there is any of it. */
export class Owner {
  readonly name: string;
  /** Entries of its holds, in no order. */
  readonly entries: Entry[] = [];
  /** The same by node, once there are too many to look through. */
  byNode: Map<Node, Entry | Entry[]> | null = null;
  readonly waiting = new Set<Lock>();
  /** Holds and waiters, detached ones too. */
  locks = 0;

  constructor(name: string) {
    this.name = name;
  }
}

export class Session {
  readonly name: string;
  /** By request id; a hold that was joined is here under each id that joined it. */
  readonly requests = new Map<string, Lock>();
  /** Holds and waiters. */
  locks = 0;

  constructor(name: string) {
    this.name = name;
  }
}

/** One target of one lock, as the index keeps it. */
export class Entry {
  readonly lock: Lock;
  readonly target: Target;
  readonly class: Class;
  readonly isTree: boolean;
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
    this.isTree = target.scope === 'tree';
    this.node = node;
    this.serial = serial;
    this.effectiveTicket = lock.ticket;
  }

  get waiting(): boolean {
    return this.lock.hold === null;
  }
}

export interface LockTimer extends HeapItem {
  readonly lock: Lock;
}

/** A request from its arrival to its end: first it waits (`hold` is null), then it holds. */
export class Lock {
  readonly owner: Owner;
  readonly session: Session;
  requestId: string;
  readonly ticket: number;
  /** While it waits. */
  request: AcquireRequest | null;
  hold: Hold | null = null;
  readonly volume: string;
  readonly kind: Kind;
  readonly tree: Tree;
  arrivedAtMs: number;
  deadlineMs: number | null;
  entries: Entry[] = [];
  /** Ids of the requests that joined this hold, latest last. */
  joined: string[] | null = null;
  /** One of the locks that this one waits for: only when that one changes is it worth another look. */
  witness: Lock | null = null;
  watchedAt = -1;
  /** The locks whose witness this is. */
  watchers: Lock[] | null = null;
  /** Wait limit while it waits, lease while it holds. */
  timer: LockTimer | null = null;
  /** Hold cap; only while somebody watches. */
  capTimer: LockTimer | null = null;
  /** Due for another look. */
  onAgenda = false;
  ended = false;

  constructor(
    request: AcquireRequest,
    ticket: number,
    owner: Owner,
    session: Session,
    tree: Tree,
    nowMs: number,
  ) {
    this.volume = request.volume;
    this.kind = request.kind;
    this.tree = tree;
    this.request = request;
    this.requestId = request.requestId;
    this.ticket = ticket;
    this.owner = owner;
    this.session = session;
    this.arrivedAtMs = nowMs;
    this.deadlineMs = request.waitMs === null ? null : nowMs + request.waitMs;
  }
}
