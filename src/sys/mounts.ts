/** mount(2), umount2(2), the newer mount API (fsopen(2), open_tree(2), move_mount(2)), and the file handles that name an inode without a path. */
import type { PathString } from '../base/bytes.ts';
import { AT_FDCWD, O_CLOEXEC } from './constants.ts';
import { bind, cPath, result } from './libc.ts';

const c = {
  mount: bind('mount', 'int', ['const char *', 'const char *', 'const char *', 'uint64', 'const char *']),
  umount2: bind('umount2', 'int', ['const char *', 'int']),
  openTree: bind('open_tree', 'int', ['int', 'const char *', 'uint32']),
  moveMount: bind('move_mount', 'int', ['int', 'const char *', 'int', 'const char *', 'uint32']),
  fsopen: bind('fsopen', 'int', ['const char *', 'uint32']),
  fsconfig: bind('fsconfig', 'int', ['int', 'uint32', 'const char *', 'const char *', 'int']),
  fsmount: bind('fsmount', 'int', ['int', 'uint32', 'uint32']),
  nameToHandleAt: bind('name_to_handle_at', 'int', ['int', 'const char *', 'void *', 'void *', 'int']),
};

/** `flags`: MS_*; `data`: the file system's own options. */
export function mount(
  source: PathString,
  target: PathString,
  type: string,
  flags: number,
  data: string,
): number {
  return result(c.mount(cPath(source), cPath(target), type, flags, data));
}

/** `flags`: MNT_FORCE, MNT_DETACH (lazy), UMOUNT_NOFOLLOW. */
export function umount2(target: PathString, flags: number): number {
  return result(c.umount2(cPath(target), flags));
}

/** A descriptor of a file system of `type` that is being made (mount API of Linux 5.2); closed on exec. */
export function fsopen(type: string): number {
  return result(c.fsopen(type, 1));
}

/** `command`: FSCONFIG_*. */
export function fsconfig(fd: number, command: number, key: string | null, value: PathString | null): number {
  return result(c.fsconfig(fd, command, key, value === null ? null : cPath(value), 0));
}

/** A descriptor of a mount, attached nowhere, of what `fsconfig` made. `attributes`: MOUNT_ATTR_*. */
export function fsmount(fd: number, attributes: number): number {
  return result(c.fsmount(fd, 1, attributes));
}

/** Attaches the mount `fd` at `target`. `flags`: MOVE_MOUNT_*. */
export function moveMount(fd: number, target: PathString, flags: number): number {
  return result(c.moveMount(fd, '', AT_FDCWD, cPath(target), flags));
}

/** With OPEN_TREE_CLONE: a descriptor of a copy, attached nowhere, of the one mount on which `path` lies, without what is mounted on it. */
export function openTree(path: PathString, flags: number): number {
  return result(c.openTree(AT_FDCWD, cPath(path), (flags | O_CLOEXEC) >>> 0));
}

const HANDLE_BYTES_MAX = 128;
const handle = Buffer.alloc(8 + HANDLE_BYTES_MAX);
const mountId = new Int32Array(1);

/** `struct file_handle` without its length (type, then bytes): equal exactly for the same inode and generation. */
export function nameToHandleAt(dirfd: number, path: PathString, flags: number): Buffer | number {
  handle.writeUInt32LE(HANDLE_BYTES_MAX, 0);
  const code = result(c.nameToHandleAt(dirfd, cPath(path), handle, mountId, flags));
  return code < 0 ? code : Buffer.from(handle.subarray(4, 8 + handle.readUInt32LE(0)));
}
