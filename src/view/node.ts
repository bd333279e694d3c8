import type { PathString } from '../base/bytes.ts';
import type { Target } from '../lock/types.ts';
import type { Rules } from './exclude.ts';
import type { Handle } from './handle.ts';

/**
 * One inode of the tree below, as long as the front end or a handle knows it. A node is an inode, never a
 * path: device, inode and birth time identify it, and its id is never used again.
 */
export class Node {
  readonly id: number;
  /** Device as one number (tree.ts); -1 for virtual nodes. */
  readonly dev: number;
  readonly ino: number | bigint;
  /** Birth time, so that a reused inode number is another node. 0 where the file system has none. */
  readonly bornSec: number;
  readonly bornNsec: number;
  /** S_IFMT bits. They never change. */
  readonly type: number;
  /** The names by which it was reached; the last one is the newest. Empty: nameless, as far as we know. */
  names: Dentry[] = [];
  /** Of a directory: the names in it that we know. */
  children: Map<PathString, Node> | null = null;
  /** How often the front end was told of this node, less how often it forgot it. */
  lookups = 0;
  /** Links as last seen. */
  nlink = 1;
  /** Mode as last seen. */
  mode = 0;
  /** Open handles on it. */
  handles: Set<Handle> = new Set();
  /** Handles that were closed while somebody could still write through them (closing.ts). */
  readonly closing: Set<Handle> = new Set();
  /** How many of them are open for writing, held mappings included: while any is, attributes are not cached. */
  writers = 0;
  /** What the file was like when the first of them opened it; null: not known. */
  unwritten: Unwritten | null = null;
  /** Path operations that wait below this directory: its attributes are not cached meanwhile. */
  replays = 0;
  /** An O_PATH descriptor, or -1. Owned by the tree's descriptor cache. */
  fd = -1;
  /** The descriptor is the only way to this inode (it has no name): the cache must keep it. */
  pinned = false;
  /** Id of the record for the whole volume (unclean.ts) since which somebody looked: nobody else can write to it. */
  cleanSince: string | null = null;
  /** Second-chance bit of the descriptor cache. */
  recent = false;
  /** What is excluded below this directory; computed on demand. */
  rules: Rules | null = null;
  /** Virtual nodes (`/.gate/…`) have no inode below. */
  readonly virtual: string | null;
  /** Passthrough: the backing id shared by all its opens, kept for the next one as long as `fd` is. 0: none. */
  backingId = 0;
  backingUsers = 0;
  /** For what kind of writer the backing id was made (backing.ts), and for whom. */
  backingOf: 'root' | 'user' | 'member' = 'root';
  backingUid = 0;
  backingGid = 0;
  /** Opens through the page cache, which do not mix with passthrough. */
  cachedUsers = 0;
  /** What the file below was like when the kernel's cached pages of it were last known to be right; null: not known. */
  pages: PagesVersion | null = null;

  /** Of a directory whose changes beside the view are followed: its key there. */
  watchKey: string | null = null;
  /** Wall clock, milliseconds: when the front end was last told that it changed through the view. */
  settledMs = 0;
  /** The front end may remember its attributes, and this is what it was told; null: it does not. */
  told: Told | null = null;
  /** Changes of its content beside the view are not followed for the time being. */
  overlooked = false;

  constructor(
    id: number,
    dev: number,
    ino: number | bigint,
    bornSec: number,
    bornNsec: number,
    type: number,
    virtual: string | null = null,
  ) {
    this.id = id;
    this.dev = dev;
    this.ino = ino;
    this.bornSec = bornSec;
    this.bornNsec = bornNsec;
    this.type = type;
    this.virtual = virtual;
  }

  get isDirectory(): boolean {
    return this.type === 0o040000;
  }

  get isRegular(): boolean {
    return this.type === 0o100000;
  }

  get isSymlink(): boolean {
    return this.type === 0o120000;
  }

  /** The newest name, if it has one. */
  get dentry(): Dentry | undefined {
    return this.names[this.names.length - 1];
  }
}

export interface PagesVersion {
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly size: number;
}

/** Change time and size of a file. Filled in place. */
export class Told {
  ctimeSec = 0;
  ctimeNsec = 0;
  size = 0;
  /** It is being told to forget it. Until it has, an open that finds something else tells it again. */
  revoked = false;
}

/** Change time and size of a file. */
export interface Unwritten {
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  readonly size: number;
}

/** One name of a node. */
export class Dentry {
  readonly parent: Node;
  readonly name: PathString;
  /** What an open under this name locks, as the planner found it last (targets.ts). */
  plans: OpenPlans | null = null;

  constructor(parent: Node, name: PathString) {
    this.parent = parent;
    this.name = name;
  }
}

/** What opens under one name lock; true as long as no directory moved and no rule changed since. */
export interface OpenPlans {
  readonly version: number;
  /** Null: nothing is locked under this name. */
  readonly path: PathString | null;
  readonly read: readonly Target[];
  readonly write: readonly Target[];
}

/** Path relative to the volume's root, `''` the root itself; null when no name leads there any more. */
export function pathOf(node: Node, root: Node): PathString | null {
  if (node === root) return '';
  const dentry = node.dentry;
  return dentry === undefined ? null : pathIn(dentry.parent, dentry.name, root);
}

export function pathIn(parent: Node, name: PathString, root: Node): PathString | null {
  let path = name;
  for (let at = parent; at !== root; ) {
    const dentry = at.dentry;
    if (dentry === undefined) return null;
    path = `${dentry.name}/${path}`;
    at = dentry.parent;
  }
  return path;
}
