/**
 * What a file system says to `FuseSession` and hears from it. Everything arrives decoded; every request is
 * answered exactly once, at once or later, through the session's `reply*` methods. Nothing here waits.
 */
import type { PathString } from '../base/bytes.ts';

/** `fuse_in_header` (linux/fuse.h). `pid` is the caller's thread id; 0 when it is in another pid namespace. */
export interface Request {
  readonly opcode: number;
  /** Identifies the request until it is answered; an interrupt names it. */
  readonly unique: number;
  /** Ours: never reused, below 2^53. 1 is the root. */
  readonly nodeid: number;
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  /** `total_extlen` security contexts and groups are skipped. */
}

/** `fuse_attr`. Times are seconds and nanoseconds. */
export interface Attr {
  ino: number | bigint;
  size: number;
  blocks: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev: number;
  blksize: number;
}

export interface Entry {
  /** 0: the name does not exist, and the kernel may remember that for `entryValidMs`. */
  nodeid: number;
  generation: number;
  entryValidMs: number;
  attrValidMs: number;
  attr: Attr;
}

export interface OpenReply {
  /** Ours; comes back with every request on this handle. Below 2^53. */
  fh: number;
  /** FOPEN_* bits. */
  flags: number;
  /** From `backingOpen`, with FOPEN_PASSTHROUGH. */
  backingId?: number;
}

/** `fuse_setattr_in`; a field is there exactly when its FATTR_* bit is set. */
export interface SetattrArgs {
  readonly valid: number;
  readonly fh?: number;
  readonly size?: number;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** 'now' for FATTR_ATIME_NOW. */
  readonly atime?: { sec: number; nsec: number } | 'now';
  readonly mtime?: { sec: number; nsec: number } | 'now';
  readonly ctime?: { sec: number; nsec: number };
  readonly lockOwner?: bigint;
  /** FATTR_KILL_SUIDGID: clear setuid and setgid bits with this change. */
  readonly killSuidgid: boolean;
}

/** `fuse_statx` answer, on top of Attr. */
export interface StatxReply {
  attrValidMs: number;
  /** STATX_* bits that are filled in. */
  mask: number;
  attr: Attr;
  btimeSec?: number;
  btimeNsec?: number;
}

/**
 * The handlers. A missing one is answered ENOSYS (the kernel then stops asking for that opcode), so OPEN and
 * OPENDIR must be there. Names are `PathString`s without slashes. Offsets and sizes are numbers below 2^53.
 * A handler that keeps a `Buffer` argument beyond its own return must copy it: the input buffer is reused.
 */
export interface Handlers {
  /** After INIT was negotiated. */
  init?(negotiated: Negotiated): void;
  destroy?(): void;
  lookup(req: Request, name: PathString): void;
  /** FORGET and BATCH_FORGET: no answer. */
  forget(nodeid: number, nlookup: number): void;
  getattr(req: Request, fh: number | undefined): void;
  statx?(req: Request, fh: number | undefined, flags: number, mask: number): void;
  setattr(req: Request, args: SetattrArgs): void;
  readlink(req: Request): void;
  symlink(req: Request, name: PathString, target: Buffer): void;
  mknod(req: Request, name: PathString, mode: number, rdev: number, umask: number): void;
  mkdir(req: Request, name: PathString, mode: number, umask: number): void;
  unlink(req: Request, name: PathString): void;
  rmdir(req: Request, name: PathString): void;
  /** RENAME (flags 0) and RENAME2. */
  rename(req: Request, name: PathString, newParent: number, newName: PathString, flags: number): void;
  link(req: Request, oldNodeid: number, newName: PathString): void;
  /** `openFlags`: FUSE_OPEN_KILL_SUIDGID. `flags` is open(2)'s, with 0x20 (FMODE_EXEC) for an exec. */
  open(req: Request, flags: number, openFlags: number): void;
  create(req: Request, name: PathString, flags: number, mode: number, umask: number, openFlags: number): void;
  tmpfile?(req: Request, flags: number, mode: number, umask: number): void;
  read(req: Request, fh: number, offset: number, size: number, flags: number): void;
  /** `writeFlags`: FUSE_WRITE_KILL_SUIDGID, FUSE_WRITE_CACHE. */
  write(req: Request, fh: number, offset: number, data: Buffer, writeFlags: number, flags: number): void;
  /** A close(2). Where it is missing, closing still writes dirty mappings out (fuse_flush, fs/fuse/file.c). */
  flush?(req: Request, fh: number, lockOwner: bigint): void;
  release(req: Request, fh: number, flags: number, releaseFlags: number): void;
  fsync(req: Request, fh: number, datasync: boolean): void;
  opendir(req: Request, flags: number): void;
  readdir(req: Request, fh: number, offset: number, size: number): void;
  readdirplus(req: Request, fh: number, offset: number, size: number): void;
  releasedir(req: Request, fh: number): void;
  fsyncdir(req: Request, fh: number, datasync: boolean): void;
  statfs(req: Request): void;
  access?(req: Request, mask: number): void;
  setxattr(req: Request, name: PathString, value: Buffer, flags: number, killSgid: boolean): void;
  /** `size` 0 asks for the length. */
  getxattr(req: Request, name: PathString, size: number): void;
  listxattr(req: Request, size: number): void;
  removexattr(req: Request, name: PathString): void;
  fallocate(req: Request, fh: number, offset: number, length: number, mode: number): void;
  lseek(req: Request, fh: number, offset: number, whence: number): void;
  copyFileRange(
    req: Request,
    fhIn: number,
    offIn: number,
    nodeidOut: number,
    fhOut: number,
    offOut: number,
    length: number,
    flags: number,
  ): void;
  syncfs?(req: Request): void;
  /** The caller of request `unique` was hit by a signal. Answer that request with EINTR, or not at all. */
  interrupt(unique: number): void;
}

export interface Negotiated {
  readonly major: number;
  readonly minor: number;
  /** 64-bit FUSE_INIT flags in force, as two halves. */
  readonly flags: number;
  readonly flags2: number;
  readonly passthrough: boolean;
  readonly maxWriteBytes: number;
}

/** What a reactor gives its file system besides the session: time and messages. */
export interface ReactorTimer {
  cancel(): void;
}

/**
 * The session as a file system sees it. All methods are synchronous and never throw for a request that the
 * kernel has dropped; those that answer return 0 or `-errno` (ENOENT: the caller is gone; then whatever the
 * answer handed out, a lookup count or a handle, was not delivered and must be taken back).
 */
export interface FuseApi {
  readonly negotiated: Negotiated;
  replyError(req: Request, errno: number): number;
  /** An empty success. */
  replyOk(req: Request): number;
  replyEntry(req: Request, entry: Entry): number;
  replyAttr(req: Request, attr: Attr, validMs: number): number;
  replyStatx(req: Request, reply: StatxReply): number;
  replyOpen(req: Request, open: OpenReply): number;
  replyCreate(req: Request, entry: Entry, open: OpenReply): number;
  /**
   * A place for at most `sizeBytes` (no more than 1 MiB) of READ data, inside the answer that `replyData` sends: fill it
   * and hand a part of it that begins at its start to `replyData` at once, and nothing is copied.
   */
  dataBuffer(sizeBytes: number): Buffer;
  /** READ, READLINK, GETXATTR, LISTXATTR. Any buffer; it is copied unless it is from `dataBuffer`. */
  replyData(req: Request, data: Buffer): number;
  replyWrite(req: Request, sizeBytes: number): number;
  replyStatfs(req: Request, st: StatfsReply): number;
  /** Length answer of getxattr and listxattr with size 0. */
  replyXattrSize(req: Request, sizeBytes: number): number;
  replyLseek(req: Request, offset: number): number;
  /** A writer for READDIR and READDIRPLUS answers, over a preallocated buffer of at most `size` bytes. */
  dirents(size: number, plus: boolean): DirentWriter;
  /** Marks attributes stale; `off` < 0: attributes only (safe at any time); else also drops those pages. */
  notifyInvalInode(nodeid: number, off: number, len: number): number;
  /** Drops a name. Can block behind an operation in that directory: see `notifier` in the reactor. */
  notifyInvalEntry(parent: number, name: PathString): number;
  /** FUSE_DEV_IOC_BACKING_OPEN: an id, or -errno. */
  backingOpen(fd: number): number;
  backingClose(id: number): number;
  setTimer(delayMs: number, run: () => void): ReactorTimer;
  /** CLOCK_MONOTONIC milliseconds. */
  nowMs(): number;
}

export interface DirentWriter {
  /** False when it does not fit any more. `next` is the cookie from which the listing goes on after it. */
  add(name: Buffer, ino: number | bigint, type: number, next: number): boolean;
  /** READDIRPLUS; an entry with nodeid 0 is a name without attributes (no lookup count). */
  addPlus(name: Buffer, ino: number | bigint, type: number, next: number, entry: Entry | null): boolean;
  send(req: Request): number;
}

export interface StatfsReply {
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  bsize: number;
  namelen: number;
  frsize: number;
}
