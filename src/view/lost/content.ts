/** Copies a file's content and everything about it, and tells contents apart. All calls block: not for the reactor's thread. */
import { createHash } from 'node:crypto';
import * as sys from '../../sys/index.ts';

const PIECE_BYTES = 1024 * 1024;
const COPY_BYTES = 64 * 1024 * 1024;
/** XATTR_LIST_MAX, XATTR_SIZE_MAX (linux/limits.h). */
const XATTR_BYTES = 65_536;

/** A system call refused. */
export class LostError extends Error {
  readonly errno: number;

  constructor(what: string, errno: number) {
    super(`${what}: ${sys.errnoName(Math.abs(errno))}`);
    this.errno = Math.abs(errno);
  }
}

/** Its result, or a LostError for -errno. */
export function must(what: string, result: number): number {
  if (result < 0) throw new LostError(what, result);
  return result;
}

/** Copies what `from` has now to the empty file `to`; holes stay holes. Returns the size. */
export function copyContent(from: number, to: number): number {
  const stat = new sys.StatBuf();
  must('fstat', sys.fstatx(from, stat));
  const { size } = stat;
  must('ftruncate', sys.ftruncate(to, size));
  for (let at = 0; at < size; ) {
    const data = sys.lseek(from, at, sys.SEEK_DATA);
    if (data === -sys.ENXIO) break;
    const start = data < 0 ? at : data;
    const hole = data < 0 ? size : sys.lseek(from, start, sys.SEEK_HOLE);
    const end = hole < 0 ? size : Math.min(hole, size);
    copyRange(from, to, start, end);
    at = end;
  }
  return size;
}

function copyRange(from: number, to: number, start: number, end: number): void {
  for (let at = start; at < end; ) {
    const copied = sys.copyFileRange(from, at, to, at, Math.min(COPY_BYTES, end - at));
    if (copied === 0) return; // it became shorter
    if (copied < 0) {
      if (copied === -sys.ENOSPC || copied === -sys.EDQUOT || copied === -sys.EIO) must('copy', copied);
      return copyByHand(from, to, at, end);
    }
    at += copied;
  }
}

function copyByHand(from: number, to: number, start: number, end: number): void {
  const buffer = Buffer.alloc(PIECE_BYTES);
  for (let at = start; at < end; ) {
    const got = must('read', sys.pread(from, buffer, at, Math.min(buffer.length, end - at)));
    if (got === 0) return;
    for (let put = 0; put < got; ) put += must('write', sys.pwrite(to, buffer.subarray(put, got), at + put));
    at += got;
  }
}

/** Owner, mode, ACL, extended attributes and times of `stat` and `from`, to `to`. */
export function copyAttributes(from: number, to: number): void {
  const stat = new sys.StatBuf();
  must('fstat', sys.fstatx(from, stat));
  const own = new sys.StatBuf();
  must('fstat', sys.fstatx(to, own));
  if (own.uid !== stat.uid || own.gid !== stat.gid)
    must('chown', sys.fchownat(to, '', stat.uid, stat.gid, sys.AT_EMPTY_PATH));
  copyXattrs(from, to);
  // After the owner, whose change takes setuid bits, and the ACL, which changes the mode.
  must('chmod', sys.fchmod(to, stat.mode & 0o7777));
  must('utimens', sys.futimens(to, stat.atimeSec, stat.atimeNsec, stat.mtimeSec, stat.mtimeNsec));
}

function copyXattrs(from: number, to: number): void {
  const names = Buffer.alloc(XATTR_BYTES);
  const length = sys.flistxattr(from, names);
  if (length === -sys.EOPNOTSUPP) return;
  const value = Buffer.alloc(XATTR_BYTES);
  for (const name of names.toString('latin1', 0, must('listxattr', length)).split('\0')) {
    if (name === '') continue;
    const size = sys.fgetxattr(from, name, value);
    if (size === -sys.ENODATA || size === -sys.EPERM) continue;
    const error = sys.fsetxattr(to, name, value.subarray(0, must('getxattr', size)), 0);
    // Labels are given by the system's policy, and trusted ones are root's own.
    if (error < 0 && !/^(security|trusted)\./.test(name)) must(`setxattr ${name}`, error);
  }
}

/** SHA-256 of a file's content, hexadecimal. */
export function hashOf(fd: number): string {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(PIECE_BYTES);
  for (let at = 0; ; ) {
    const got = must('read', sys.pread(fd, buffer, at));
    if (got === 0) return hash.digest('hex');
    hash.update(buffer.subarray(0, got));
    at += got;
  }
}

/**
 * Whether anybody has a file open or mapped for writing, by a read lease (fcntl(2), F_SETLEASE), which is refused exactly then.
 * `unknown`: the file system has no leases. `denied`: the file is another user's. `fd`: open for reading, by nobody else.
 */
export function probeWriters(fd: number): 'none' | 'some' | 'unknown' | 'denied' {
  const code = sys.fcntl(fd, sys.F_SETLEASE, sys.F_RDLCK);
  if (code === 0) {
    sys.fcntl(fd, sys.F_SETLEASE, sys.F_UNLCK);
    return 'none';
  }
  if (code === -sys.EAGAIN) return 'some';
  return code === -sys.EACCES || code === -sys.EPERM ? 'denied' : 'unknown';
}
