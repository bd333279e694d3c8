/**
 * The changes of the tree, carried out. Each makes one system call below, keeps the tree's names true, and tells the
 * locks what moved. The caller holds what `planner.of` asked for, so nothing here waits or decides.
 *
 * Functions that make something return its node, with `scratch` filled, or -errno; the others 0 or -errno.
 */
import type { PathString } from '../base/bytes.ts';
import * as sys from '../sys/index.ts';
import type { Caller } from './actors.ts';
import type { Grant } from './locks.ts';
import type { Node } from './node.ts';
import { scratch } from './scratch.ts';
import type { View } from './view.ts';

const MASK = sys.STATX_BASIC_STATS | sys.STATX_BTIME;

/** Runs `make` with the caller's ids and umask, so that what it makes belongs to the caller. */
function asCaller(view: View, caller: Caller, umask: number, make: () => number, caps?: number): number {
  sys.umask(umask);
  if (!view.options.privileged) return make();
  const error = sys.asUser(caller.uid, caller.gid, caps);
  const made = error < 0 ? error : make();
  sys.asRoot();
  return made;
}

/** After something was made at `name`: its node. */
function made(view: View, parent: Node, name: PathString): Node | number {
  if (view.exclusions.isRuleFile(parent, name)) view.exclusions.changed();
  return view.tree.lookup(parent, name, scratch);
}

/**
 * A file made with the setgid bit in a setgid directory loses it if its maker is not in that group (mode_strip_sgid, fs/inode.c).
 * The caller's supplementary groups are not ours, so the bit is given back to who is in it.
 */
function keepSetgid(view: View, caller: Caller, node: Node, mode: number): void {
  if ((mode & sys.S_ISGID) === 0 || (scratch.mode & sys.S_ISGID) !== 0 || node.isDirectory) return;
  if (!view.options.privileged || !view.inGroup(caller, scratch.gid)) return;
  const fd = view.tree.fd(node);
  if (fd < 0 || sys.fstatx(fd, scratch, MASK) < 0) return;
  if (sys.fchmodat(sys.AT_FDCWD, `/proc/self/fd/${fd}`, (scratch.mode & 0o7777) | sys.S_ISGID) === 0)
    sys.fstatx(fd, scratch, MASK);
}

export function mkdir(
  view: View,
  caller: Caller,
  parent: Node,
  name: PathString,
  mode: number,
  umask: number,
): Node | number {
  const fd = view.tree.fd(parent);
  if (fd < 0) return fd;
  const error = asCaller(view, caller, umask, () => sys.mkdirat(fd, name, mode));
  return error < 0 ? error : made(view, parent, name);
}

export function mknod(
  view: View,
  caller: Caller,
  parent: Node,
  name: PathString,
  mode: number,
  rdev: number,
  umask: number,
): Node | number {
  const fd = view.tree.fd(parent);
  if (fd < 0) return fd;
  // Devices need CAP_MKNOD: the kernel has asked it of the caller.
  const caps = sys.USER_CAPS | (1 << sys.CAP_MKNOD);
  const error = asCaller(view, caller, umask, () => sys.mknodat(fd, name, mode, rdev), caps);
  if (error < 0) return error;
  const node = made(view, parent, name);
  if (typeof node !== 'number') keepSetgid(view, caller, node, mode);
  return node;
}

export function symlink(
  view: View,
  caller: Caller,
  parent: Node,
  name: PathString,
  target: Buffer,
): Node | number {
  const fd = view.tree.fd(parent);
  if (fd < 0) return fd;
  const error = asCaller(view, caller, 0, () => sys.symlinkat(target, fd, name));
  return error < 0 ? error : made(view, parent, name);
}

export interface Created {
  readonly node: Node;
  /** Open read-write where possible: the handle's descriptor if it needs one. */
  readonly fd: number;
}

/** Makes a regular file, always with O_EXCL: -EEXIST when the name exists. */
export function create(
  view: View,
  caller: Caller,
  parent: Node,
  name: PathString,
  flags: number,
  mode: number,
  umask: number,
): Created | number {
  const parentFd = view.tree.fd(parent);
  if (parentFd < 0) return parentFd;
  const how =
    (flags & (sys.O_ACCMODE | sys.O_NOATIME)) | sys.O_CREAT | sys.O_EXCL | sys.O_NOFOLLOW | sys.O_CLOEXEC;
  const fd = asCaller(view, caller, umask, () => sys.openat(parentFd, name, how, mode));
  if (fd < 0) return fd;
  const node = made(view, parent, name);
  if (typeof node === 'number') {
    sys.close(fd);
    return node;
  }
  keepSetgid(view, caller, node, mode);
  return { node, fd };
}

/** A regular file without a name, in `parent`'s file system. */
export function tmpfile(
  view: View,
  caller: Caller,
  parent: Node,
  flags: number,
  mode: number,
  umask: number,
): Created | number {
  const parentFd = view.tree.fd(parent);
  if (parentFd < 0) return parentFd;
  const how = (flags & (sys.O_ACCMODE | sys.O_EXCL)) | sys.O_TMPFILE | sys.O_CLOEXEC;
  const fd = asCaller(view, caller, umask, () => sys.openat(parentFd, '.', how, mode));
  if (fd < 0) return fd;
  const path = sys.openat(sys.AT_FDCWD, `/proc/self/fd/${fd}`, sys.O_PATH | sys.O_CLOEXEC);
  const error = path < 0 ? path : sys.fstatx(path, scratch, MASK);
  if (error < 0) {
    if (path >= 0) sys.close(path);
    sys.close(fd);
    return error;
  }
  const node = view.tree.adoptNameless(path, scratch);
  keepSetgid(view, caller, node, mode);
  return { node, fd };
}

/** Gives `node` one more name. */
export function link(
  view: View,
  node: Node,
  parent: Node,
  name: PathString,
  grant: Grant | null,
  handsOver: boolean,
): Node | number {
  const fd = view.tree.fd(node);
  if (fd < 0) return fd;
  const parentFd = view.tree.fd(parent);
  if (parentFd < 0) return parentFd;
  const nameless = node.nlink === 0;
  const error = sys.linkat(sys.AT_FDCWD, `/proc/self/fd/${fd}`, parentFd, name, sys.AT_SYMLINK_FOLLOW);
  if (error < 0) {
    grant?.release();
    return error;
  }
  const linked = made(view, parent, name);
  if (linked === node && node.nlink > 1) view.shareInode(node);
  if (!(nameless && handsOver && grant !== null && view.handOver(node, grant))) grant?.release();
  return linked;
}

/** Removes a name. The inode lives on while it is open. */
export function unlink(view: View, parent: Node, name: PathString): number {
  return remove(view, parent, name, 0);
}

export function rmdir(view: View, parent: Node, name: PathString): number {
  return remove(view, parent, name, sys.AT_REMOVEDIR);
}

function remove(view: View, parent: Node, name: PathString, flags: number): number {
  const parentFd = view.tree.fd(parent);
  if (parentFd < 0) return parentFd;
  const victim = parent.children?.get(name);
  if (victim !== undefined) view.tree.pin(victim);
  const path = view.pathIn(parent, name);
  const error = sys.unlinkat(parentFd, name, flags);
  if (error < 0) {
    if (victim !== undefined) view.tree.unpin(victim);
    return error;
  }
  lostName(view, victim, path);
  view.tree.removed(parent, name);
  if (view.exclusions.isRuleFile(parent, name)) view.exclusions.changed();
  return 0;
}

/** `victim` lost its name `path`. Handles on an inode without any name guard nothing. */
function lostName(view: View, victim: Node | undefined, path: string | null): void {
  if (victim === undefined) return;
  if (victim.isDirectory) {
    victim.nlink = 0;
    return;
  }
  victim.nlink = Math.max(0, victim.nlink - 1);
  if (victim.nlink === 0 && path !== null && victim.handles.size > 0) view.locks.detach(path, false);
  // Its link count and change time are new, and other names of it may be cached.
  view.onChanged(victim);
}

/** rename(2), renameat2(2) with RENAME_NOREPLACE, RENAME_EXCHANGE and RENAME_WHITEOUT. */
export function rename(
  view: View,
  parent: Node,
  name: PathString,
  newParent: Node,
  newName: PathString,
  flags: number,
  grant: Grant | null,
  handsOver: boolean,
): number {
  const error = renameBelow(view, parent, name, newParent, newName, flags);
  if (error < 0) {
    grant?.release();
    return error;
  }
  const moved = newParent.children?.get(newName);
  if (!(handsOver && grant !== null && moved !== undefined && view.handOver(moved, grant))) grant?.release();
  return 0;
}

function renameBelow(
  view: View,
  parent: Node,
  name: PathString,
  newParent: Node,
  newName: PathString,
  flags: number,
): number {
  const fd = view.tree.fd(parent);
  const newFd = view.tree.fd(newParent);
  if (fd < 0 || newFd < 0) return Math.min(fd, newFd);
  const from = view.pathIn(parent, name);
  const to = view.pathIn(newParent, newName);
  const node = parent.children?.get(name);
  const victim = newParent.children?.get(newName);
  const exchange = (flags & sys.RENAME_EXCHANGE) !== 0;
  if (victim !== undefined && !exchange) view.tree.pin(victim);
  const error = sys.renameat2(fd, name, newFd, newName, flags);
  if (victim !== undefined && (error < 0 || node === victim)) view.tree.unpin(victim);
  if (error < 0) return error;
  if (from === null || to === null) return 0;
  const tree = (node?.isDirectory ?? false) || (victim?.isDirectory ?? false);
  if (exchange) {
    view.locks.exchange(from, to, tree);
    view.tree.exchanged(parent, name, newParent, newName);
  } else if (node === undefined || node !== victim) {
    moveHolds(view, node, from, to, newParent, newName, tree);
    view.tree.renamed(parent, name, newParent, newName);
    lostName(view, victim, null);
  }
  if (tree) view.unclean.directoryMoved();
  if (tree || view.exclusions.isRuleFile(parent, name) || view.exclusions.isRuleFile(newParent, newName))
    view.exclusions.changed();
  return 0;
}

/** Open handles follow their inode to its new name, unless that name takes no locks. */
function moveHolds(
  view: View,
  node: Node | undefined,
  from: string,
  to: string,
  newParent: Node,
  newName: PathString,
  tree: boolean,
): void {
  const gone = view.exclusions.excludes(newParent, newName, node?.isDirectory ?? false);
  if (gone) view.locks.detach(from, tree);
  else view.locks.move(from, to, tree);
}

/** Values to set; absent ones stay. `killPriv`: also clear setuid and setgid. */
export interface Attributes {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly atime?: { sec: number; nsec: number } | 'now';
  readonly mtime?: { sec: number; nsec: number } | 'now';
  readonly killPriv: boolean;
}

/** chmod, chown, truncate and utimens by descriptor; `handleFd`: of the open file by which it came, if any. */
export function setattr(
  view: View,
  caller: Caller,
  node: Node,
  attributes: Attributes,
  handleFd: number | null,
): number {
  const path = view.tree.fd(node);
  if (path < 0) return path;
  const proc = `/proc/self/fd/${path}`;
  let error = 0;
  const { uid, gid, size, mode, atime, mtime } = attributes;
  // With nothing to set it is a chown of nobody, which still clears bits and moves the change time.
  const nothing = [size, mode, atime, mtime].every((each) => each === undefined);
  if (uid !== undefined || gid !== undefined || nothing) {
    error = sys.fchownat(path, '', uid ?? 0xffffffff, gid ?? 0xffffffff, sys.AT_EMPTY_PATH);
    if (error < 0) return error;
  }
  if (size !== undefined) {
    const { killPriv } = attributes;
    error =
      handleFd === null
        ? view.truncate(caller, node, size, killPriv)
        : view.modify(caller, handleFd, killPriv, () => sys.ftruncate(handleFd, size));
    if (error < 0) return error;
  }
  if (mode !== undefined) {
    error = node.isSymlink ? -sys.EOPNOTSUPP : sys.fchmodat(sys.AT_FDCWD, proc, mode & 0o7777);
    if (error < 0) return error;
  }
  if (atime !== undefined || mtime !== undefined) error = setTimes(path, attributes);
  return error;
}

function setTimes(path: number, attributes: Attributes): number {
  const part = (time: Attributes['atime']): [number, number] =>
    time === undefined ? [0, sys.UTIME_OMIT] : time === 'now' ? [0, sys.UTIME_NOW] : [time.sec, time.nsec];
  const [atimeSec, atimeNsec] = part(attributes.atime);
  const [mtimeSec, mtimeNsec] = part(attributes.mtime);
  // AT_EMPTY_PATH needs Linux 5.8; it also reaches symlinks.
  return sys.utimensat(path, '', atimeSec, atimeNsec, mtimeSec, mtimeNsec, sys.AT_EMPTY_PATH);
}
