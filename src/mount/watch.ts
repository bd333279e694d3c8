/**
 * `--watch`: follows what is changed in the tree below beside the view, so that the kernel may remember names and attributes for long.
 *
 *     disk below --fanotify--> watcher (thread) --events--> reactor (here): which nodes, which names
 *                                  |  <--notifications--
 *     kernel <---------------------+                        main --paths--> waker (process) --chmod--> kernel --IN_ATTRIB--> watchers
 *
 * A directory is marked when the kernel first looks into it or asks for its attributes, before we look ourselves, so nothing is missed
 * between. Only such directories are marked: what happens elsewhere costs nobody anything. What this process does below is dropped
 * by its pid. Invalidations are written by the watcher's thread, because they may wait for operations in flight (fuse/notify.ts).
 *
 * What is not marked (the limit is reached, another device, no permission) keeps the short validity; so do files with several
 * links, which can be changed by a name elsewhere. When events are lost, the kernel forgets everything.
 *
 * Not followed: writes through a mapping until it is closed. A change shows some milliseconds after it was made, not at once.
 */
import type { PathString } from '../base/bytes.ts';
import { encodeIncEpoch, encodeInvalEntry, encodeInvalInode, FUSE_EXPIRE_ONLY } from '../fuse/index.ts';
import type { FuseApi } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';
import type { Node } from '../view/node.ts';
import { scratch } from '../view/scratch.ts';
import type { View } from '../view/view.ts';

/** Marked directories; each keeps its inode in the kernel's memory. */
export const WATCHED_DIRECTORIES_MAX = 100_000;
/** Files and directories that one batch of changes wakes the watchers of; beyond it only directories. */
const WAKES_MAX = 2000;
/** How long no directory is marked after the system's own limit was reached. */
const FULL_MS = 10_000;
/**
 * Names are invalidated once more after this. The kernel notes the validity of a name that it had asked for again when the caller gets to
 * run, which on a busy machine may be after the invalidation. (Attributes have a version for this.)
 */
const AGAIN_MS = 1000;
const AGAIN_MAX = 10_000;
/** Protocol versions that have FUSE_EXPIRE_ONLY and FUSE_NOTIFY_INC_EPOCH. */
const MINOR_EXPIRE_ONLY = 38;
const MINOR_INC_EPOCH = 44;

const NAMES = sys.FAN_CREATE | sys.FAN_DELETE | sys.FAN_MOVED_FROM | sys.FAN_MOVED_TO;
const EVENTS =
  NAMES | sys.FAN_MODIFY | sys.FAN_ATTRIB | sys.FAN_CLOSE_WRITE | sys.FAN_EVENT_ON_CHILD | sys.FAN_ONDIR;
const STAT_MASK = sys.STATX_BASIC_STATS | sys.STATX_BTIME;

/**
 * File systems that others change without this kernel's knowledge, or whose changes do not show up at their own inodes: SMB, SMB2, CIFS, Coda,
 * Ceph, AFS, 9p, Lustre, GFS2, OCFS2, vboxsf. Beside them NFS, FUSE and overlayfs.
 */
const FOREIGN = new Set([
  sys.NFS_SUPER_MAGIC,
  sys.FUSE_SUPER_MAGIC,
  sys.OVERLAYFS_SUPER_MAGIC,
  0x517b,
  0xfe534d42,
  0xff534d42,
  0x73757245,
  0x00c36400,
  0x5346414f,
  0x01021997,
  0x0bd00bd0,
  0x01161970,
  0x7461636f,
  0x786f4256,
]);

/** A fanotify group that can mark directories like this one, or why there is none. The caller closes it. */
export function openWatch(rootFd: number): { group: number } | { why: string } {
  const statfs = new sys.StatfsBuf();
  const error = sys.fstatfs(rootFd, statfs);
  if (error < 0) return { why: `its file system cannot be asked: ${sys.errnoName(error)}` };
  if (FOREIGN.has(statfs.type)) return { why: 'its file system can be changed without this kernel telling' };
  const flags = sys.FAN_CLOEXEC | sys.FAN_NONBLOCK | sys.FAN_REPORT_DFID_NAME;
  let group = sys.fanotifyInit(flags | sys.FAN_UNLIMITED_MARKS);
  if (group === -sys.EPERM) group = sys.fanotifyInit(flags);
  if (group < 0) return { why: `fanotify_init(2): ${sys.errnoName(group)}` };
  const handle = sys.nameToHandleAt(rootFd, '', sys.AT_EMPTY_PATH);
  const marked =
    typeof handle === 'number'
      ? handle
      : sys.fanotifyMark(group, sys.FAN_MARK_ADD | sys.FAN_MARK_ONLYDIR, EVENTS, rootFd, '.');
  if (marked >= 0) return { group };
  sys.close(group);
  return { why: `fanotify_mark(2): ${sys.errnoName(marked)}` };
}

export interface WatchParts {
  readonly view: View;
  readonly api: FuseApi;
  /** From `openWatch`. */
  readonly group: number;
  readonly directoriesMax: number;
  /** Has these notifications written, one after the other, by a thread that may wait; then `notified` is to be called. */
  readonly notify: (messages: Uint8Array<ArrayBuffer>) => void;
  /** The same without that call. */
  readonly repeat: (messages: Uint8Array<ArrayBuffer>) => void;
  /** Wakes who watches these paths in the view, relative to its root. */
  readonly wake: (paths: readonly PathString[]) => void;
  readonly log: (message: string) => void;
}

export class Watch {
  readonly #parts: WatchParts;
  readonly #view: View;
  readonly #byHandle = new Map<string, Node>();
  readonly #reader = new sys.FanotifyReader();
  /** Marks that could not be taken away: the way to their directory is gone. */
  #stranded = 0;
  #fullUntilMs = 0;
  #toldFull = false;
  // Of the batch at hand.
  #notices: Buffer[] = [];
  #wakes = new Set<PathString>();
  #renamed: { directory: Node; name: PathString }[] = [];
  #again: Buffer[] = [];

  constructor(parts: WatchParts) {
    this.#parts = parts;
    this.#view = parts.view;
    this.#view.tree.onForgotten = (node) => this.#unwatch(node);
  }

  get directories(): number {
    return this.#byHandle.size;
  }

  /** The kernel may remember for long what does not exist: it can be told to forget it without being told the names. */
  get negatives(): boolean {
    return this.#parts.api.negotiated.minor >= MINOR_INC_EPOCH;
  }

  /** Follows a directory from now on, if that is possible. To be called before anything of it or in it is looked at. */
  ensure(directory: Node): void {
    if (directory.watchKey !== null || directory.virtual !== null) return;
    const { tree, clock } = this.#view;
    if (directory.dev !== tree.root.dev || clock.nowMs() < this.#fullUntilMs) return;
    if (this.#byHandle.size + this.#stranded >= this.#parts.directoriesMax) return this.#full();
    const fd = tree.fd(directory);
    const handle = fd < 0 ? fd : sys.nameToHandleAt(fd, '', sys.AT_EMPTY_PATH);
    if (typeof handle === 'number') return;
    const flags = sys.FAN_MARK_ADD | sys.FAN_MARK_ONLYDIR;
    const error = sys.fanotifyMark(this.#parts.group, flags, EVENTS, fd, '.');
    if (error === -sys.ENOSPC) this.#full();
    if (error < 0) return;
    const key = sys.handleKey(handle);
    const before = this.#byHandle.get(key);
    if (before !== undefined) before.watchKey = null;
    this.#byHandle.set(key, directory);
    directory.watchKey = key;
  }

  /** Changes beside the view of this node's attributes and content are followed. */
  follows(node: Node): boolean {
    if (node.isDirectory) return node.watchKey !== null;
    const { names } = node;
    return node.nlink === 1 && names.length === 1 && names[0]!.parent.watchKey !== null;
  }

  #full(): void {
    this.#fullUntilMs = this.#view.clock.nowMs() + FULL_MS;
    if (this.#toldFull) return;
    this.#toldFull = true;
    this.#parts.log(
      `no more than ${this.#byHandle.size} directories can be watched: the kernel remembers the others for a second only`,
    );
  }

  #unwatch(directory: Node): void {
    const key = directory.watchKey;
    if (key === null) return;
    directory.watchKey = null;
    if (this.#byHandle.get(key) === directory) this.#byHandle.delete(key);
    const fd = this.#view.tree.fd(directory);
    // Removed directories lose their marks by themselves; one that was moved out of sight keeps its.
    if (fd < 0) this.#stranded++;
    else sys.fanotifyMark(this.#parts.group, sys.FAN_MARK_REMOVE, EVENTS, fd, '.');
  }

  /** Events that one read gave, without our own. Ends in one call of `notify`. */
  events(bytes: Buffer): void {
    const reader = this.#reader;
    const changes = new Map<string, { directory: Node; name: PathString; mask: number }>();
    let lost = false;
    reader.begin(bytes);
    while (reader.next()) {
      if ((reader.mask & sys.FAN_Q_OVERFLOW) !== 0) lost = true;
      const directory = this.#byHandle.get(reader.key);
      if (directory === undefined) continue;
      const { name, mask } = reader;
      const id = `${directory.id}/${name}`;
      const same = changes.get(id);
      if (same === undefined) changes.set(id, { directory, name, mask });
      else same.mask |= mask;
    }
    if (lost) this.#lost();
    else for (const { directory, name, mask } of changes.values()) this.#changed(directory, name, mask);
    const messages = concat(this.#notices);
    this.#notices = [];
    this.#parts.notify(messages);
  }

  /**
   * The kernel has forgotten what the last batch changed: now those who watch it may look. Until now the old names stood in the tree: an
   * open by one that the kernel still remembered finds that it leads elsewhere, and is resolved again.
   */
  notified(): void {
    for (const { directory, name } of this.#renamed.splice(0)) this.#follow(directory, name);
    if (this.#wakes.size === 0) return;
    const paths = [...this.#wakes];
    this.#wakes.clear();
    this.#parts.wake(paths);
  }

  #changed(directory: Node, name: PathString, mask: number): void {
    const { exclusions } = this.#view;
    if (name === '.') {
      this.#invalInode(directory, -1);
      this.#wake(this.#view.pathOf(directory), directory);
      return;
    }
    if (exclusions.isRuleFile(directory, name)) exclusions.changed();
    const child = directory.children?.get(name);
    if ((mask & NAMES) !== 0) this.#nameChanged(directory, name, child);
    else if (child !== undefined && child.lookups > 0) this.#contentChanged(child, directory, name);
  }

  #contentChanged(child: Node, directory: Node, name: PathString): void {
    // Its attributes are not remembered (answers.ts). Mostly it is the view's own writer, whose writes go past us.
    if (child.writers > 0 && this.#view.options.passthrough) return this.#overlook(child);
    const error = this.#view.tree.stat(child, scratch);
    if ((child.told !== null && !child.told.revoked) || child.cachedUsers > 0) this.#invalInode(child, 0);
    if (child.told !== null) child.told.revoked = true;
    const changedMs = scratch.ctimeSec * 1000 + scratch.ctimeNsec / 1e6;
    // What the view's own writer did before it closed the file is no news.
    if (error === 0 && changedMs < child.settledMs + 1) return;
    this.#wake(this.#view.pathIn(directory, name), child.isSymlink ? directory : child);
  }

  /**
   * Asks for no events of writes to a file that the view has open for writing: each would cost the writer 0.3 µs. It lasts until `settled`.
   */
  #overlook(file: Node): void {
    if (file.overlooked) return;
    file.overlooked = this.#ignoreWrites(file, sys.FAN_MARK_ADD | sys.FAN_MARK_IGNORED_SURV_MODIFY) === 0;
  }

  /** Nobody writes to it through the view any more. To be called before the kernel may remember its attributes again. */
  settled(file: Node): void {
    if (!file.overlooked) return;
    file.overlooked = false;
    this.#ignoreWrites(file, sys.FAN_MARK_REMOVE);
  }

  #ignoreWrites(file: Node, flags: number): number {
    const fd = this.#view.tree.fd(file);
    const path = `/proc/self/fd/${fd}`;
    const mark = flags | sys.FAN_MARK_IGNORED_MASK;
    return fd < 0 ? fd : sys.fanotifyMark(this.#parts.group, mark, sys.FAN_MODIFY, sys.AT_FDCWD, path);
  }

  /** Something was made, removed or renamed: what stands there now? */
  #nameChanged(directory: Node, name: PathString, before: Node | undefined): void {
    const { tree, exclusions } = this.#view;
    const fd = tree.fd(directory);
    const there = fd >= 0 && sys.statx(fd, name, sys.AT_SYMLINK_NOFOLLOW, scratch, STAT_MASK) === 0;
    const symlink = there && (scratch.mode & sys.S_IFMT) === sys.S_IFLNK;
    const known = there ? tree.known(scratch) : undefined;
    this.#invalEntry(directory, name);
    this.#invalInode(directory, -1);
    if (before !== undefined) this.#invalInode(before, -1);
    // Also a name that a known inode got: its link count is new.
    if (known !== undefined) this.#invalInode(known, -1);
    this.#renamed.push({ directory, name });
    if ((before?.isDirectory ?? false) || (known?.isDirectory ?? false)) exclusions.changed();
    if (there && !symlink) this.#wake(this.#view.pathIn(directory, name), directory);
    else this.#wake(this.#view.pathOf(directory), directory);
  }

  /** The tree takes over what stands under a name. */
  #follow(directory: Node, name: PathString): void {
    const { tree } = this.#view;
    const fd = directory.children === null ? -1 : tree.fd(directory);
    if (fd < 0) return;
    const there = sys.statx(fd, name, sys.AT_SYMLINK_NOFOLLOW, scratch, STAT_MASK) === 0;
    const known = there ? tree.known(scratch) : undefined;
    if (known !== undefined) tree.adopt(directory, name, scratch);
    else tree.removed(directory, name);
  }

  /** Events were lost: everything that the kernel remembers may be wrong. */
  #lost(): void {
    const { tree, exclusions } = this.#view;
    this.#parts.log(
      'too much was changed beside the view at once: the kernel forgets all that it remembered',
    );
    exclusions.changed();
    const epoch = this.negatives;
    if (epoch) this.#notices.push(encodeIncEpoch());
    for (const node of tree.all()) {
      if (node.virtual !== null || node.lookups === 0) continue;
      this.#invalInode(node, 0);
      if (!epoch)
        for (const { parent, name } of node.names)
          this.#notices.push(encodeInvalEntry(parent.id, name, this.#expireOnly));
      if (node.isDirectory && this.#wakes.size < WAKES_MAX) this.#wake(this.#view.pathOf(node), node);
    }
  }

  #invalEntry(directory: Node, name: PathString): void {
    const message = encodeInvalEntry(directory.id, name, this.#expireOnly);
    this.#notices.push(message);
    if (this.#again.length === AGAIN_MAX) return;
    if (this.#again.push(message) > 1) return;
    this.#view.clock.after(AGAIN_MS, () => {
      const messages = this.#again;
      this.#again = [];
      this.#parts.repeat(concat(messages));
    });
  }

  get #expireOnly(): number {
    return this.#parts.api.negotiated.minor >= MINOR_EXPIRE_ONLY ? FUSE_EXPIRE_ONLY : 0;
  }

  /** `off` 0: pages too. */
  #invalInode(node: Node, off: 0 | -1): void {
    if (node.lookups > 0) this.#notices.push(encodeInvalInode(node.id, off, 0));
  }

  /** `known`: what must be known to the kernel, or nobody can be watching. */
  #wake(path: PathString | null, known: Node): void {
    if (path === null || known.lookups === 0) return;
    this.#wakes.add(this.#wakes.size < WAKES_MAX ? path : parentOf(path));
  }
}

export function parentOf(path: PathString): PathString {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}

function concat(messages: readonly Buffer[]): Uint8Array<ArrayBuffer> {
  let total = 0;
  for (const message of messages) total += message.length;
  const all = new Uint8Array(new ArrayBuffer(total));
  let at = 0;
  for (const message of messages) {
    all.set(message, at);
    at += message.length;
  }
  return all;
}
