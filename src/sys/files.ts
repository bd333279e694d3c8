/** Names and inodes: open, make, link, rename, modes, owners, times, sizes. All return >= 0 or `-errno`. */
import type { PathString } from '../base/bytes.ts';
import { AT_FDCWD, O_CLOEXEC, O_DIRECTORY, O_PATH } from './constants.ts';
import { bind, cPath, putInt64, result, SYSCALLS } from './libc.ts';

const c = {
  openat: bind('openat', 'int', ['int', 'const char *', 'int', 'uint32']),
  close: bind('close', 'int', ['int']),
  syscallOpenat2: bind('syscall', 'int64', ['long', 'int', 'const char *', 'void *', 'size_t']),
  readlinkat: bind('readlinkat', 'int64', ['int', 'const char *', 'void *', 'size_t']),
  mkdirat: bind('mkdirat', 'int', ['int', 'const char *', 'uint32']),
  mknodat: bind('mknodat', 'int', ['int', 'const char *', 'uint32', 'uint64']),
  symlinkat: bind('symlinkat', 'int', ['const char *', 'int', 'const char *']),
  linkat: bind('linkat', 'int', ['int', 'const char *', 'int', 'const char *', 'int']),
  unlinkat: bind('unlinkat', 'int', ['int', 'const char *', 'int']),
  renameat2: bind('renameat2', 'int', ['int', 'const char *', 'int', 'const char *', 'uint32']),
  faccessat: bind('faccessat', 'int', ['int', 'const char *', 'int', 'int']),
  fchmod: bind('fchmod', 'int', ['int', 'uint32']),
  fchmodat: bind('fchmodat', 'int', ['int', 'const char *', 'uint32', 'int']),
  fchownat: bind('fchownat', 'int', ['int', 'const char *', 'uint32', 'uint32', 'int']),
  utimensat: bind('utimensat', 'int', ['int', 'const char *', 'void *', 'int']),
  futimens: bind('futimens', 'int', ['int', 'void *']),
  ftruncate: bind('ftruncate', 'int', ['int', 'int64']),
  fallocate: bind('fallocate', 'int', ['int', 'int', 'int64', 'int64']),
  umask: bind('umask', 'uint32', ['uint32']),
};

export function openat(dirfd: number, path: PathString, flags: number, mode = 0): number {
  return result(c.openat(dirfd, cPath(path), flags, mode));
}

let descriptors = -1;

/** Opens what `fd`, which may be an O_PATH descriptor, stands for once more. `flags` as open(2). */
export function openFd(fd: number, flags: number): number {
  if (descriptors < 0) {
    descriptors = openat(AT_FDCWD, '/proc/self/fd', O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (descriptors < 0) return descriptors;
  }
  return openat(descriptors, String(fd), flags);
}

const openHow = new DataView(new ArrayBuffer(24));
const openHowBytes = new Uint8Array(openHow.buffer);

/** openat2(2), kernel 5.6. `resolve` is RESOLVE_* bits. */
export function openat2(
  dirfd: number,
  path: PathString,
  flags: number,
  mode: number,
  resolve: number,
): number {
  putInt64(openHow, 0, flags);
  putInt64(openHow, 8, mode);
  putInt64(openHow, 16, resolve);
  return result(c.syscallOpenat2(SYSCALLS.openat2[0], dirfd, cPath(path), openHowBytes, 24));
}

export function close(fd: number): number {
  return result(c.close(fd));
}

const linkBuffer = Buffer.alloc(4097);

/** The target's bytes (a copy), or `-errno`. With path '' the link that an O_PATH descriptor stands for. */
export function readlinkat(dirfd: number, path: PathString): Buffer | number {
  const length = result(c.readlinkat(dirfd, cPath(path), linkBuffer, linkBuffer.length));
  return length < 0 ? length : Buffer.from(linkBuffer.subarray(0, length));
}

export function mkdirat(dirfd: number, path: PathString, mode: number): number {
  return result(c.mkdirat(dirfd, cPath(path), mode));
}

/** `mode` has the S_IF* type; `rdev` is a dev_t as `StatBuf.rdev` gives it. */
export function mknodat(dirfd: number, path: PathString, mode: number, rdev: number): number {
  return result(c.mknodat(dirfd, cPath(path), mode, rdev));
}

/** `target` are the bytes of the link, without a NUL. */
export function symlinkat(target: Buffer, dirfd: number, path: PathString): number {
  return result(c.symlinkat(Buffer.concat([target, Buffer.of(0)]), dirfd, cPath(path)));
}

/** `flags`: AT_EMPTY_PATH (needs CAP_DAC_READ_SEARCH) or AT_SYMLINK_FOLLOW with /proc/self/fd/N. */
export function linkat(
  oldDirfd: number,
  oldPath: PathString,
  newDirfd: number,
  newPath: PathString,
  flags: number,
): number {
  return result(c.linkat(oldDirfd, cPath(oldPath), newDirfd, cPath(newPath), flags));
}

/** `flags`: AT_REMOVEDIR for a directory. */
export function unlinkat(dirfd: number, path: PathString, flags: number): number {
  return result(c.unlinkat(dirfd, cPath(path), flags));
}

/** `flags`: RENAME_*. */
export function renameat2(
  oldDirfd: number,
  oldPath: PathString,
  newDirfd: number,
  newPath: PathString,
  flags: number,
): number {
  return result(c.renameat2(oldDirfd, cPath(oldPath), newDirfd, cPath(newPath), flags));
}

/** `mode`: R_OK, W_OK, X_OK; checked for the real ids unless AT_EACCESS. */
export function faccessat(dirfd: number, path: PathString, mode: number, flags: number): number {
  return result(c.faccessat(dirfd, cPath(path), mode, flags));
}

export function fchmod(fd: number, mode: number): number {
  return result(c.fchmod(fd, mode));
}

/** Follows symlinks. For an O_PATH descriptor N: `fchmodat(AT_FDCWD, '/proc/self/fd/N', mode)`. */
export function fchmodat(dirfd: number, path: PathString, mode: number): number {
  return result(c.fchmodat(dirfd, cPath(path), mode, 0));
}

/** Uid or gid -1 stays as it is. AT_EMPTY_PATH with path '' works on O_PATH descriptors. */
export function fchownat(dirfd: number, path: PathString, uid: number, gid: number, flags: number): number {
  return result(c.fchownat(dirfd, cPath(path), uid >>> 0, gid >>> 0, flags));
}

const times = new DataView(new ArrayBuffer(32));
const timesBytes = new Uint8Array(times.buffer);

function setTimes(atimeSec: number, atimeNsec: number, mtimeSec: number, mtimeNsec: number): Uint8Array {
  putInt64(times, 0, atimeSec);
  putInt64(times, 8, atimeNsec);
  putInt64(times, 16, mtimeSec);
  putInt64(times, 24, mtimeNsec);
  return timesBytes;
}

/** Nanoseconds may be UTIME_NOW or UTIME_OMIT. For an O_PATH descriptor: path '' with AT_EMPTY_PATH. */
export function utimensat(
  dirfd: number,
  path: PathString,
  atimeSec: number,
  atimeNsec: number,
  mtimeSec: number,
  mtimeNsec: number,
  flags: number,
): number {
  return result(c.utimensat(dirfd, cPath(path), setTimes(atimeSec, atimeNsec, mtimeSec, mtimeNsec), flags));
}

export function futimens(
  fd: number,
  atimeSec: number,
  atimeNsec: number,
  mtimeSec: number,
  mtimeNsec: number,
): number {
  return result(c.futimens(fd, setTimes(atimeSec, atimeNsec, mtimeSec, mtimeNsec)));
}

export function ftruncate(fd: number, sizeBytes: number): number {
  return result(c.ftruncate(fd, sizeBytes));
}

/** `mode`: FALLOC_FL_*. */
export function fallocate(fd: number, mode: number, offset: number, length: number): number {
  return result(c.fallocate(fd, mode, offset, length));
}

/** Sets the umask of the whole process; returns the old one. */
export function umask(mask: number): number {
  return c.umask(mask);
}
