/**
 * The tree below, reached by descriptor: which nodes there are, what they are called, and how to get at them.
 * No path is ever walked again from the root, so neither a rename nor a symlink leads outside.
 */
import type { PathString } from '../base/bytes.ts';
import * as sys from '../sys/index.ts';
import { DescriptorCache } from './fdcache.ts';
import { Dentry, Node } from './node.ts';

const { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_NOFOLLOW, O_PATH, O_DIRECTORY, S_IFMT } = sys;
const MASK = sys.STATX_BASIC_STATS | sys.STATX_BTIME;

/** For identity checks, so that a caller's own buffer stays as it is. */
const inner = new sys.StatBuf();

export class Tree {
  readonly root: Node;
  readonly #byId = new Map<number, Node>();
  /** Nodes of the root's device by inode number; those of nested devices by `dev:ino`. */
  readonly #byIno = new Map<number | bigint | string, Node>();
  readonly #fds: DescriptorCache;
  readonly #rootDev: number;
  /** Grows whenever a directory loses or changes its name: paths below it that somebody remembers are old. */
  moves = 0;
  #nextId = 2;
  /** A node is about to be forgotten; it still has its names. */
  onForgotten: (node: Node) => void = () => {};

  /** `rootFd`: an O_PATH descriptor of the directory to show; the tree owns it from here. */
  constructor(rootFd: number, descriptorsMax: number, stat: sys.StatBuf) {
    this.#fds = new DescriptorCache(descriptorsMax);
    const error = sys.statx(rootFd, '', AT_EMPTY_PATH, stat, MASK);
    if (error < 0) throw new Error(`cannot stat the root of the view: errno ${-error}`);
    this.#rootDev = stat.dev;
    this.root = new Node(1, this.#rootDev, stat.ino, stat.btimeSec, stat.btimeNsec, stat.mode & S_IFMT);
    this.root.fd = rootFd;
    this.root.pinned = true;
    this.root.lookups = 1;
    this.root.children = new Map();
    this.#byId.set(1, this.root);
    this.#byIno.set(stat.ino, this.root);
  }

  /** `use` is called before a node loses its descriptor, and what was made from that. */
  onDescriptorDropped(use: (node: Node) => void): void {
    this.#fds.onDrop = use;
  }

  get nodes(): number {
    return this.#byId.size;
  }

  get descriptors(): number {
    return this.#fds.size;
  }

  node(id: number): Node | undefined {
    return this.#byId.get(id);
  }

  /** A node that exists only in the view. */
  addVirtual(key: string, type: number): Node {
    const node = new Node(this.#nextId++, -1, 0x7fff0000 + this.#nextId, 0, 0, type, key);
    node.lookups = 1;
    this.#byId.set(node.id, node);
    return node;
  }

  all(): Iterable<Node> {
    return this.#byId.values();
  }

  /** The node of the inode in `stat`, if it has one already. */
  known(stat: sys.StatBuf): Node | undefined {
    const dev = stat.dev;
    const known = this.#byIno.get(dev === this.#rootDev ? stat.ino : `${dev}:${stat.ino}`);
    return known !== undefined && isNode(known, stat) ? known : undefined;
  }

  /** Looks `name` up in `parent` and fills `stat`. The node, or -errno. Takes no lookup count. */
  lookup(parent: Node, name: PathString, stat: sys.StatBuf): Node | number {
    const parentFd = this.fd(parent);
    if (parentFd < 0) return parentFd;
    const error = sys.statx(parentFd, name, AT_SYMLINK_NOFOLLOW, stat, MASK);
    if (error < 0) {
      this.#unname(parent, name);
      return error;
    }
    return this.adopt(parent, name, stat);
  }

  /** The node of the inode in `stat`, which is known to stand at `name` in `parent`. */
  adopt(parent: Node, name: PathString, stat: sys.StatBuf): Node {
    const node = this.#identify(stat);
    seen(node, stat);
    this.#name(parent, name, node);
    return node;
  }

  /** The node of a nameless inode (O_TMPFILE) behind `fd`, an O_PATH descriptor that the tree takes over. */
  adoptNameless(fd: number, stat: sys.StatBuf): Node {
    const node = this.#identify(stat);
    seen(node, stat);
    if (node.fd >= 0) sys.close(fd);
    else this.#fds.add(node, fd);
    node.pinned = true;
    return node;
  }

  /** Fills `stat` with the node's attributes. 0 or -errno; ESTALE: the name leads elsewhere by now. */
  stat(node: Node, stat: sys.StatBuf): number {
    if (node.fd < 0) {
      const dentry = node.dentry;
      const parentFd = dentry === undefined ? -sys.ESTALE : this.fd(dentry.parent);
      if (parentFd >= 0) {
        const error = sys.statx(parentFd, dentry!.name, AT_SYMLINK_NOFOLLOW, stat, MASK);
        if (error === 0 && isNode(node, stat)) {
          seen(node, stat);
          return 0;
        }
      }
      const fd = this.fd(node);
      if (fd < 0) return fd;
    }
    const error = sys.statx(node.fd, '', AT_EMPTY_PATH, stat, MASK);
    if (error === 0) seen(node, stat);
    return error;
  }

  /** True when `name` in `parent` leads to this inode now. Fills `stat` when something is there. */
  leadsTo(parent: Node, name: PathString, node: Node, stat: sys.StatBuf): boolean {
    const parentFd = this.fd(parent);
    return (
      parentFd >= 0 && sys.statx(parentFd, name, AT_SYMLINK_NOFOLLOW, stat, MASK) === 0 && isNode(node, stat)
    );
  }

  /** An O_PATH descriptor of the node, or -errno. Valid until the next call into the tree. */
  fd(node: Node): number {
    if (node.fd >= 0) {
      node.recent = true;
      return node.fd;
    }
    for (let i = node.names.length - 1; i >= 0; i--) {
      const fd = this.#openNamed(node, node.names[i]!);
      if (fd >= 0) {
        this.#fds.add(node, fd);
        return fd;
      }
      if (fd === -sys.EMFILE || fd === -sys.ENFILE) return fd;
    }
    for (const handle of node.handles) if (handle.fd >= 0) return handle.fd;
    return -sys.ESTALE;
  }

  /**
   * Opens the node by its newest name, which costs less than by an O_PATH descriptor, and fills `stat`. A descriptor that the caller owns,
   * or -errno; ESTALE: that name leads elsewhere by now.
   */
  openByName(node: Node, flags: number, stat: sys.StatBuf): number {
    const dentry = node.dentry;
    const parentFd = dentry === undefined ? -sys.ESTALE : this.fd(dentry.parent);
    if (parentFd < 0) return parentFd;
    // Whatever else has the name by now must not make us wait.
    const fd = sys.openat(parentFd, dentry!.name, flags | O_NOFOLLOW | sys.O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return fd;
    if (sys.fstatx(fd, stat, MASK) === 0 && isNode(node, stat)) {
      node.nlink = stat.nlink;
      return fd;
    }
    sys.close(fd);
    return -sys.ESTALE;
  }

  /** Keeps the node reachable although it is about to lose its name. */
  pin(node: Node): void {
    if (this.fd(node) >= 0 && node.fd >= 0) node.pinned = true;
  }

  /** It kept a name: the descriptor cache may have its descriptor back. */
  unpin(node: Node): void {
    if (node.names.length > 0) node.pinned = false;
  }

  #openNamed(node: Node, dentry: Dentry): number {
    const parentFd = this.fd(dentry.parent);
    if (parentFd < 0) return parentFd;
    const flags = O_PATH | O_NOFOLLOW | O_CLOEXEC | (node.isDirectory ? O_DIRECTORY : 0);
    const fd = sys.openat(parentFd, dentry.name, flags);
    if (fd < 0) return fd;
    const stat = inner;
    const error = sys.statx(fd, '', AT_EMPTY_PATH, stat, MASK);
    if (error === 0 && isNode(node, stat)) return fd;
    sys.close(fd);
    return -sys.ESTALE;
  }

  #identify(stat: sys.StatBuf): Node {
    const dev = stat.dev;
    const key = dev === this.#rootDev ? stat.ino : `${dev}:${stat.ino}`;
    const known = this.#byIno.get(key);
    if (known !== undefined && isNode(known, stat)) return known;
    const node = new Node(this.#nextId++, dev, stat.ino, stat.btimeSec, stat.btimeNsec, stat.mode & S_IFMT);
    if (node.isDirectory) node.children = new Map();
    this.#byIno.set(key, node);
    this.#byId.set(node.id, node);
    return node;
  }

  #name(parent: Node, name: PathString, node: Node): void {
    const before = parent.children!.get(name);
    if (before === node) {
      if (node.dentry!.name !== name || node.dentry!.parent !== parent) this.#promote(node, parent, name);
      return;
    }
    if (before !== undefined) this.#unname(parent, name);
    // A directory has one name: an old one is from before a rename that we did not see.
    if (node.isDirectory) for (const old of [...node.names]) this.#unname(old.parent, old.name);
    parent.children!.set(name, node);
    node.names.push(new Dentry(parent, name));
    node.pinned = false;
  }

  #promote(node: Node, parent: Node, name: PathString): void {
    const at = node.names.findIndex((d) => d.parent === parent && d.name === name);
    if (at >= 0) node.names.push(...node.names.splice(at, 1));
  }

  #unname(parent: Node, name: PathString): void {
    const node = parent.children?.get(name);
    if (node === undefined) return;
    if (node.isDirectory) this.moves++;
    parent.children!.delete(name);
    node.names = node.names.filter((d) => d.parent !== parent || d.name !== name);
    this.unpin(node);
    this.release(node);
    this.release(parent);
  }

  /** `name` in `parent` is gone. */
  removed(parent: Node, name: PathString): void {
    this.#unname(parent, name);
  }

  /** `from` became `to`; what stood at `to` lost that name. */
  renamed(parent: Node, name: PathString, newParent: Node, newName: PathString): void {
    const node = parent.children?.get(name);
    if (node === undefined) return;
    const target = newParent.children!.get(newName);
    if (target === node) return; // two names of one inode: rename(2) does nothing
    this.#unname(newParent, newName);
    if (node.isDirectory) this.moves++;
    parent.children!.delete(name);
    node.names = node.names.filter((d) => d.parent !== parent || d.name !== name);
    newParent.children!.set(newName, node);
    node.names.push(new Dentry(newParent, newName));
    this.release(parent);
  }

  exchanged(a: Node, aName: PathString, b: Node, bName: PathString): void {
    const first = a.children?.get(aName);
    const second = b.children?.get(bName);
    for (const node of [first, second]) if (node !== undefined) node.lookups++; // survives losing its name
    this.#unname(a, aName);
    this.#unname(b, bName);
    if (first !== undefined) this.#name(b, bName, first);
    if (second !== undefined) this.#name(a, aName, second);
    for (const node of [first, second]) if (node !== undefined) this.forget(node, 1);
  }

  forget(node: Node, count: number): void {
    node.lookups = Math.max(0, node.lookups - count);
    this.release(node);
  }

  /** Forgets a node that nobody knows any more. */
  release(node: Node): void {
    if (node === this.root || node.virtual !== null) return;
    if (node.lookups > 0 || node.handles.size > 0 || node.replays > 0 || (node.children?.size ?? 0) > 0)
      return;
    if (!this.#byId.has(node.id)) return;
    if (node.watchKey !== null) this.onForgotten(node);
    this.#byId.delete(node.id);
    const key = node.dev === this.#rootDev ? node.ino : `${node.dev}:${node.ino}`;
    if (this.#byIno.get(key) === node) this.#byIno.delete(key);
    this.#fds.drop(node);
    const names = node.names;
    node.names = [];
    if (node.isDirectory) this.moves++;
    for (const { parent, name } of names) {
      if (parent.children?.get(name) === node) parent.children.delete(name);
      this.release(parent);
    }
  }

  /** st_ino to show: the inode's own on the root's device, mixed with the device elsewhere. */
  inoOf(inode: { readonly dev: number; readonly ino: number | bigint }): number | bigint {
    if (inode.dev === this.#rootDev) return inode.ino;
    const mix = BigInt(inode.dev + 1) * 0x9e3779b97f4a7c15n;
    return BigInt.asUintN(64, BigInt(inode.ino) ^ (mix & 0xffffff0000000000n));
  }

  close(): void {
    this.#fds.clear();
    sys.close(this.root.fd);
    this.root.fd = -1;
  }
}

function seen(node: Node, stat: sys.StatBuf): void {
  node.nlink = stat.nlink;
  node.mode = stat.mode;
}

function isNode(node: Node, stat: sys.StatBuf): boolean {
  return (
    stat.ino === node.ino &&
    stat.btimeSec === node.bornSec &&
    stat.btimeNsec === node.bornNsec &&
    (stat.mode & S_IFMT) === node.type &&
    stat.dev === node.dev
  );
}
