/**
 * The Linux FUSE kernel protocol in TypeScript, 7.31 to 7.45, on `/dev/fuse` itself. Knows nothing of Gate.
 *
 *     const { fd, privileged } = await mountFuse({ mountPoint, fsName: 'demo', subtype: 'demo', ... });
 *     // in a worker thread:
 *     runReactor({ fd, wakeFd, create: (api) => new MyFileSystem(api), onWake, allowPassthrough: privileged, log });
 *
 * **Flow.** `reactor.ts` reads a request; `message.ts` looks at its bytes; `opcodes.ts`, the one table, decodes it and calls the
 * handler of `types.ts`; the handler answers, now or later, with a method of `FuseApi` (`session.ts`), which encodes
 * (`encode.ts`, `dirents.ts`) and writes. `notify.ts` is what we tell the kernel unasked, `mount.ts` how it all begins.
 *
 * **One thread.** `runReactor` keeps its worker thread to itself. A handler must return soon: while it runs, nothing else in the
 * mount is served. Whatever may take long is parked (keep the `Request`, return) and answered when its result comes in by
 * `onWake`. No promise ever settles on that thread. What runs long (fsync, big copies) is done by another.
 *
 * **The park rule.** The kernel holds locks while it asks. Park OPEN and OPENDIR freely, also GETATTR and the LOOKUP of a cached
 * name. Never park LOOKUP of an uncached name, READDIR, CREATE, MKDIR, MKNOD, SYMLINK, LINK, UNLINK, RMDIR, RENAME: the
 * directory freezes for everybody. Never park SETATTR or WRITE: the file's writers freeze. To make a path operation wait, answer
 * ESTALE once: the kernel lets go of its locks and runs the call again from the path walk.
 *
 * **Caching.** A name is trusted for `entryValidMs`, attributes for `attrValidMs`, and every answer that carries attributes renews them.
 * `nodeid` 0 in an entry caches that the name does not exist. Pages live until the last close and, with FOPEN_KEEP_CACHE,
 * beyond it. With FOPEN_PASSTHROUGH the kernel reads and writes the backing file and asks us for nothing; one inode
 * has one backing id at a time. Every successful LOOKUP, CREATE, MKNOD, MKDIR, SYMLINK, LINK, TMPFILE and READDIRPLUS entry (not the
 * dots) counts one lookup; FORGET gives counts back. A reply that returns ENOENT was not delivered and counts nothing.
 *
 * **Interrupts.** `interrupt(unique)` says that a signal hit the caller. Answer that request with EINTR, or go on: but a second
 * signal brings no second interrupt, not even SIGKILL (look at /proc/TID/status). After EINTR, or after a kill, the answer may be
 * refused with ENOENT; that is normal.
 *
 * **Known deadlocks.** (1) A synchronous call into the mount from the process's serving thread, also by way of a path that happens
 * to lead there. (2) `notifyInvalEntry`, or NOTIFY_DELETE, while any operation in that directory is in flight: the write takes the
 * directory's lock. Encode it (`encodeInvalEntry`) and let another thread write it. (3) `notifyInvalInode` with `off` >= 0 while pages of that
 * file are being read or written. `off` -1 is always safe. (4) mount(2) users that stat the mount point before the reactor
 * runs wait until it does. The way out of any is `connectionAbort`.
 *
 * **Not here.** File locks (the kernel keeps them locally), ioctl, poll, bmap, DAX, splice, io_uring, CUSE. Offsets end at 2^53 - 1.
 */
export * from './abi.ts';
export { DirentBuffer } from './dirents.ts';
export {
  connectionAbort,
  FuseMountError,
  type Mounted,
  type MountOptions,
  mountFuse,
  type UnmountOptions,
  unmountFuse,
  userAllowOther,
} from './mount.ts';
export { type MountInfo, mountAt, parseMounts } from './mountinfo.ts';
export { encodeIncEpoch, encodeInvalEntry, encodeInvalInode, encodeNotifyDelete } from './notify.ts';
export { OPERATIONS, opcodeName } from './opcodes.ts';
export { type ReactorControl, type ReactorEnd, type ReactorOptions, runReactor } from './reactor.ts';
export { openCovered, stackedAt } from './replace.ts';
export { type FuseDevice, FuseSession, type SessionOptions, type TraceEvent } from './session.ts';
export { TimerQueue } from './timers.ts';
export type * from './types.ts';
