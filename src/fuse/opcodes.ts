/**
 * The table of operations: number, name, size of the fixed part, handler, and how to decode it.
 *
 * `decode` calls its handler and returns 0, or returns the errno to answer a malformed or absurd request with. It may trust
 * that the fixed part is there; names and data that follow it are checked here. Offsets arrive as 64 bits and are handed on
 * below 2^53: beyond that (no file is as large) the answer is what a local file system says there.
 */
import { EFBIG, EINVAL, ENOSYS, ENOTTY, ENXIO } from '../sys/errno.ts';
import {
  FATTR_ATIME,
  FATTR_ATIME_NOW,
  FATTR_CTIME,
  FATTR_FH,
  FATTR_GID,
  FATTR_KILL_SUIDGID,
  FATTR_LOCKOWNER,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  FUSE_FSYNC_FDATASYNC,
  FUSE_GETATTR_FH,
  FUSE_SETXATTR_ACL_KILL_SGID,
  OP,
  OPCODES,
} from './abi.ts';
import type { Message } from './message.ts';
import type { Handlers, Request, SetattrArgs } from './types.ts';

/** What decoding needs to know of the session, and the answers that need no handler. */
export interface DecodeContext {
  /** `fuse_setxattr_in` has 16 bytes instead of 8 (SETXATTR_EXT). */
  readonly setxattrExt: boolean;
  replyOk(req: Request): number;
  replyData(req: Request, data: Buffer): number;
}

export interface Operation {
  readonly opcode: number;
  readonly name: string;
  /** Bytes of the fixed part of the body. */
  readonly bodyBytes: number;
  /** Its handler; null: answered here. When it is missing the answer is ENOSYS. */
  readonly handler: keyof Handlers | null;
  /** The kernel waits for an answer. */
  readonly answered: boolean;
  readonly decode: (m: Message, h: Handlers, req: Request, context: DecodeContext) => number;
}

const MAX = Number.MAX_SAFE_INTEGER;
const NOTHING = Buffer.alloc(0);
const table: (Operation | undefined)[] = new Array(OPCODES).fill(undefined);

function op(
  name: keyof typeof OP,
  bodyBytes: number,
  handler: keyof Handlers | null,
  decode: Operation['decode'],
  answered = true,
): void {
  table[OP[name]] = { opcode: OP[name], name, bodyBytes, handler, answered, decode };
}

/** Answers with this errno, whatever is asked. */
function refuse(name: keyof typeof OP, errno: number): void {
  op(name, 0, null, () => errno);
}

// --- names -----------------------------------------------------------------------------------------

op('LOOKUP', 0, 'lookup', (m, h, req) => {
  const name = m.name(0);
  if (name === null) return EINVAL;
  h.lookup(req, name);
  return 0;
});

op(
  'FORGET',
  8,
  'forget',
  (m, h, req) => {
    h.forget(req.nodeid, m.u64(0));
    return 0;
  },
  false,
);

op(
  'BATCH_FORGET',
  8,
  'forget',
  (m, h) => {
    const count = Math.min(m.u32(0), Math.floor((m.bodyBytes - 8) / 16));
    for (let i = 0; i < count; i++) h.forget(m.u64(8 + i * 16), m.u64(16 + i * 16));
    return 0;
  },
  false,
);

op('READLINK', 0, 'readlink', (_m, h, req) => {
  h.readlink(req);
  return 0;
});

op('SYMLINK', 0, 'symlink', (m, h, req) => {
  const name = m.name(0);
  const target = name === null ? null : m.text(m.next);
  if (name === null || target === null || target.length === 0) return EINVAL;
  h.symlink(req, name, target);
  return 0;
});

op('MKNOD', 16, 'mknod', (m, h, req) => {
  const name = m.name(16);
  if (name === null) return EINVAL;
  h.mknod(req, name, m.u32(0), m.u32(4), m.u32(8));
  return 0;
});

op('MKDIR', 8, 'mkdir', (m, h, req) => {
  const name = m.name(8);
  if (name === null) return EINVAL;
  h.mkdir(req, name, m.u32(0), m.u32(4));
  return 0;
});

op('UNLINK', 0, 'unlink', (m, h, req) => {
  const name = m.name(0);
  if (name === null) return EINVAL;
  h.unlink(req, name);
  return 0;
});

op('RMDIR', 0, 'rmdir', (m, h, req) => {
  const name = m.name(0);
  if (name === null) return EINVAL;
  h.rmdir(req, name);
  return 0;
});

function rename(m: Message, h: Handlers, req: Request, namesAt: number, flags: number): number {
  const name = m.name(namesAt);
  const newName = name === null ? null : m.name(m.next);
  if (name === null || newName === null) return EINVAL;
  h.rename(req, name, m.u64(0), newName, flags);
  return 0;
}

op('RENAME', 8, 'rename', (m, h, req) => rename(m, h, req, 8, 0));
op('RENAME2', 16, 'rename', (m, h, req) => rename(m, h, req, 16, m.u32(8)));

op('LINK', 8, 'link', (m, h, req) => {
  const name = m.name(8);
  if (name === null) return EINVAL;
  h.link(req, m.u64(0), name);
  return 0;
});

// --- attributes --------------------------------------------------------------------------------------

op('GETATTR', 16, 'getattr', (m, h, req) => {
  h.getattr(req, (m.u32(0) & FUSE_GETATTR_FH) !== 0 ? m.u64(8) : undefined);
  return 0;
});

op('STATX', 24, 'statx', (m, h, req) => {
  h.statx!(req, (m.u32(0) & FUSE_GETATTR_FH) !== 0 ? m.u64(8) : undefined, m.u32(16), m.u32(20));
  return 0;
});

/** `fuse_setattr_in`: valid 0, fh 8, size 16, lock_owner 24, times 32, nanoseconds 56, mode 68, uid 76, gid 80. */
export function decodeSetattr(m: Message): SetattrArgs {
  const valid = m.u32(0);
  const has = (bit: number) => (valid & bit) !== 0;
  return {
    valid,
    fh: has(FATTR_FH) ? m.u64(8) : undefined,
    size: has(FATTR_SIZE) ? m.u64(16) : undefined,
    lockOwner: has(FATTR_LOCKOWNER) ? m.big(24) : undefined,
    atime: has(FATTR_ATIME_NOW) ? 'now' : has(FATTR_ATIME) ? { sec: m.i64(32), nsec: m.u32(56) } : undefined,
    mtime: has(FATTR_MTIME_NOW) ? 'now' : has(FATTR_MTIME) ? { sec: m.i64(40), nsec: m.u32(60) } : undefined,
    ctime: has(FATTR_CTIME) ? { sec: m.i64(48), nsec: m.u32(64) } : undefined,
    mode: has(FATTR_MODE) ? m.u32(68) : undefined,
    uid: has(FATTR_UID) ? m.u32(76) : undefined,
    gid: has(FATTR_GID) ? m.u32(80) : undefined,
    killSuidgid: has(FATTR_KILL_SUIDGID),
  };
}

op('SETATTR', 88, 'setattr', (m, h, req) => {
  const args = decodeSetattr(m);
  if (args.size !== undefined && args.size > MAX) return EFBIG;
  h.setattr(req, args);
  return 0;
});

op('ACCESS', 8, 'access', (m, h, req) => {
  h.access!(req, m.u32(0));
  return 0;
});

op('STATFS', 0, 'statfs', (_m, h, req) => {
  h.statfs(req);
  return 0;
});

// --- extended attributes -------------------------------------------------------------------------------

op('SETXATTR', 8, 'setxattr', (m, h, req, context) => {
  const fixed = context.setxattrExt ? 16 : 8;
  if (m.bodyBytes < fixed) return EINVAL;
  const name = m.label(fixed);
  const size = m.u32(0);
  if (name === null || size > m.bodyBytes - m.next) return EINVAL;
  const killSgid = context.setxattrExt && (m.u32(8) & FUSE_SETXATTR_ACL_KILL_SGID) !== 0;
  h.setxattr(req, name, m.data(m.next, size), m.u32(4), killSgid);
  return 0;
});

op('GETXATTR', 8, 'getxattr', (m, h, req) => {
  const name = m.label(8);
  if (name === null) return EINVAL;
  h.getxattr(req, name, m.u32(0));
  return 0;
});

op('LISTXATTR', 8, 'listxattr', (m, h, req) => {
  h.listxattr(req, m.u32(0));
  return 0;
});

op('REMOVEXATTR', 0, 'removexattr', (m, h, req) => {
  const name = m.label(0);
  if (name === null) return EINVAL;
  h.removexattr(req, name);
  return 0;
});

// --- open files ----------------------------------------------------------------------------------------

op('OPEN', 8, 'open', (m, h, req) => {
  h.open(req, m.u32(0), m.u32(4));
  return 0;
});

op('CREATE', 16, 'create', (m, h, req) => {
  const name = m.name(16);
  if (name === null) return EINVAL;
  h.create(req, name, m.u32(0), m.u32(4), m.u32(8), m.u32(12));
  return 0;
});

/** `fuse_create_in` and a name that means nothing. Kernel 6.2. */
op('TMPFILE', 16, 'tmpfile', (m, h, req) => {
  h.tmpfile!(req, m.u32(0), m.u32(4), m.u32(8));
  return 0;
});

op('READ', 40, 'read', (m, h, req, context) => {
  const offset = m.u64(8);
  if (offset > MAX) context.replyData(req, NOTHING);
  else h.read(req, m.u64(0), offset, m.u32(16), m.u32(32));
  return 0;
});

op('WRITE', 40, 'write', (m, h, req) => {
  const offset = m.u64(8);
  const size = m.u32(16);
  if (size > m.bodyBytes - 40) return EINVAL;
  if (offset + size > MAX) return EFBIG;
  h.write(req, m.u64(0), offset, m.data(40, size), m.u32(20), m.u32(32));
  return 0;
});

op('FLUSH', 24, 'flush', (m, h, req) => {
  h.flush!(req, m.u64(0), m.big(16));
  return 0;
});

op('RELEASE', 24, 'release', (m, h, req) => {
  h.release(req, m.u64(0), m.u32(8), m.u32(12));
  return 0;
});

op('FSYNC', 16, 'fsync', (m, h, req) => {
  h.fsync(req, m.u64(0), (m.u32(8) & FUSE_FSYNC_FDATASYNC) !== 0);
  return 0;
});

op('FALLOCATE', 32, 'fallocate', (m, h, req) => {
  const offset = m.u64(8);
  const length = m.u64(16);
  if (offset + length > MAX) return EFBIG;
  h.fallocate(req, m.u64(0), offset, length, m.u32(24));
  return 0;
});

/** Only SEEK_DATA and SEEK_HOLE come here; beyond the end both are ENXIO (lseek(2)). */
op('LSEEK', 24, 'lseek', (m, h, req) => {
  const offset = m.u64(8);
  if (offset > MAX) return ENXIO;
  h.lseek(req, m.u64(0), offset, m.u32(16));
  return 0;
});

function copyFileRange(m: Message, h: Handlers, req: Request): number {
  const offIn = m.u64(8);
  const offOut = m.u64(32);
  if (offIn > MAX) return EINVAL;
  if (offOut > MAX) return EFBIG;
  const length = Math.min(m.u64(40), MAX);
  h.copyFileRange(req, m.u64(0), offIn, m.u64(16), m.u64(24), offOut, length, m.u32(48));
  return 0;
}

op('COPY_FILE_RANGE', 56, 'copyFileRange', copyFileRange);
op('COPY_FILE_RANGE_64', 56, 'copyFileRange', copyFileRange);

op('SYNCFS', 8, 'syncfs', (_m, h, req) => {
  h.syncfs!(req);
  return 0;
});

// --- open directories ------------------------------------------------------------------------------------

op('OPENDIR', 8, 'opendir', (m, h, req) => {
  h.opendir(req, m.u32(0));
  return 0;
});

op('READDIR', 40, 'readdir', (m, h, req) => {
  if (m.u64(8) > MAX) return EINVAL;
  h.readdir(req, m.u64(0), m.u64(8), m.u32(16));
  return 0;
});

op('READDIRPLUS', 40, 'readdirplus', (m, h, req) => {
  if (m.u64(8) > MAX) return EINVAL;
  h.readdirplus(req, m.u64(0), m.u64(8), m.u32(16));
  return 0;
});

op('RELEASEDIR', 24, 'releasedir', (m, h, req) => {
  h.releasedir(req, m.u64(0));
  return 0;
});

op('FSYNCDIR', 16, 'fsyncdir', (m, h, req) => {
  h.fsyncdir(req, m.u64(0), (m.u32(8) & FUSE_FSYNC_FDATASYNC) !== 0);
  return 0;
});

// --- the session -----------------------------------------------------------------------------------------

/**
 * Not answered. EAGAIN would ask the kernel to repeat it, which is for servers that may read an interrupt before
 * its request; we read in order, so an unknown `unique` was answered already.
 */
op(
  'INTERRUPT',
  8,
  'interrupt',
  (m, h) => {
    h.interrupt(m.u64(0));
    return 0;
  },
  false,
);

op('DESTROY', 0, null, (_m, h, req, context) => {
  h.destroy?.();
  context.replyOk(req);
  return 0;
});

/** Answered before the table is asked; a second one is an error. */
op('INIT', 16, null, () => EINVAL);

/** We asked for nothing (NOTIFY_RETRIEVE) and it takes no answer. */
op('NOTIFY_REPLY', 0, null, () => 0, false);

// ENOSYS makes the kernel stop asking; for ioctl(2) it would reach the caller, who expects ENOTTY.
refuse('IOCTL', ENOTTY);
refuse('POLL', ENOSYS);
refuse('BMAP', ENOSYS);
refuse('GETLK', ENOSYS);
refuse('SETLK', ENOSYS);
refuse('SETLKW', ENOSYS);
refuse('SETUPMAPPING', ENOSYS);
refuse('REMOVEMAPPING', ENOSYS);

/** By opcode; holes are opcodes that do not exist. */
export const OPERATIONS: readonly (Operation | undefined)[] = table;

/** `'OPEN'`, or `'opcode 99'`. */
export function opcodeName(opcode: number): string {
  return OPERATIONS[opcode]?.name ?? `opcode ${opcode}`;
}
