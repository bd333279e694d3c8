/**
 * The few libc calls that Node lacks, through koffi.
 *
 * Each function is named as in libc and returns what it returns, or `-errno`; none throws. Paths are `PathString`s, so
 * any bytes are possible. Structs are filled into objects that the caller keeps (`StatBuf`, `DirentReader`, `PollSet`): no
 * allocation per call. A call costs 0.3 to 0.6 µs more than in C. Everything here is synchronous except `async.ts`.
 *
 * Not here: what Node does as well and off the hot path (`node:fs` is fine there), and any policy.
 */
export * from './async.ts';
export * from './constants.ts';
export * from './creds.ts';
export * from './dirents.ts';
export * from './errno.ts';
export * from './fanotify.ts';
export * from './files.ts';
export * from './io.ts';
export * from './mounts.ts';
export * from './process.ts';
export * from './sockets.ts';
export * from './stat.ts';
export * from './xattr.ts';
