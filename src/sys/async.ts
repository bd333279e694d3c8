/**
 * Calls that may take long, on libuv's thread pool: promises of >= 0 or `-errno`. They run with the process's
 * own ids (an fsuid belongs to the thread that set it), and need an event loop: a thread that sits in
 * `runReactor` never sees them end.
 *
 * An async FFI call cannot read its errno, which stays on the pool's thread. What Node has itself goes through Node.
 * The others, when they fail, are called again on this thread, where the same failure comes at once.
 */
import nodeFs from 'node:fs';
import type { PathString } from '../base/bytes.ts';
import { EIO, errnoNumber } from './errno.ts';
import { fallocate } from './files.ts';
import { copyFileRange, type PollSet, poll, syncfs } from './io.ts';
import { bindAsync, cPath, type LibcFunction, putInt64 } from './libc.ts';
import { umount2 } from './mounts.ts';

let functions:
  | Record<'copyFileRange' | 'fallocate' | 'syncfs' | 'poll' | 'umount2', LibcFunction>
  | undefined;

function load() {
  functions ??= {
    copyFileRange: bindAsync('copy_file_range', 'int64', [
      'int',
      'void *',
      'int',
      'void *',
      'size_t',
      'uint32',
    ]),
    fallocate: bindAsync('fallocate', 'int', ['int', 'int', 'int64', 'int64']),
    syncfs: bindAsync('syncfs', 'int', ['int']),
    poll: bindAsync('poll', 'int', ['void *', 'uint64', 'int']),
    umount2: bindAsync('umount2', 'int', ['const char *', 'int']),
  };
  return functions;
}

function codeOf(error: NodeJS.ErrnoException | null): number {
  if (error === null) return 0;
  return typeof error.errno === 'number' && error.errno < 0 ? error.errno : -errnoNumber(error.code ?? '');
}

function call(target: LibcFunction, args: unknown[]): Promise<number> {
  return new Promise((done) => {
    try {
      target.async(...args, (error: unknown, value: number) => done(error ? -1 : value));
    } catch {
      done(-1);
    }
  });
}

export function fsyncAsync(fd: number): Promise<number> {
  return new Promise((done) => nodeFs.fsync(fd, (error) => done(codeOf(error))));
}

export function fdatasyncAsync(fd: number): Promise<number> {
  return new Promise((done) => nodeFs.fdatasync(fd, (error) => done(codeOf(error))));
}

/** One write(2) of the whole buffer: for a notification to a FUSE device, which must not be split. */
export function writeAsync(fd: number, from: Uint8Array): Promise<number> {
  return new Promise((done) =>
    nodeFs.write(fd, from, 0, from.length, null, (error, written) => done(error ? codeOf(error) : written)),
  );
}

/** A failure is always reported as EIO: asking twice would lose it (syncfs(2)). */
export async function syncfsAsync(fd: number): Promise<number> {
  const value = await call(load().syncfs, [fd]);
  if (value >= 0) return value;
  const again = syncfs(fd);
  return again < 0 ? again : -EIO;
}

/** Largest piece that is done on the calling thread when the asynchronous call failed. */
const RETRY_BYTES_MAX = 64 * 1024;

export async function copyFileRangeAsync(
  fdIn: number,
  offsetIn: number,
  fdOut: number,
  offsetOut: number,
  length: number,
): Promise<number> {
  const offsets = new DataView(new ArrayBuffer(16));
  putInt64(offsets, 0, offsetIn);
  putInt64(offsets, 8, offsetOut);
  const first = new Uint8Array(offsets.buffer, 0, 8);
  const second = new Uint8Array(offsets.buffer, 8, 8);
  const value = await call(load().copyFileRange, [fdIn, first, fdOut, second, length, 0]);
  if (value >= 0) return value;
  return copyFileRange(fdIn, offsetIn, fdOut, offsetOut, Math.min(length, RETRY_BYTES_MAX));
}

export async function fallocateAsync(
  fd: number,
  mode: number,
  offset: number,
  length: number,
): Promise<number> {
  const value = await call(load().fallocate, [fd, mode, offset, length]);
  return value >= 0 ? value : fallocate(fd, mode, offset, length);
}

/** The set must not be used elsewhere meanwhile. A failure (also EINTR) is looked up by polling once more. */
export async function pollAsync(set: PollSet, timeoutMs: number): Promise<number> {
  const value = await call(load().poll, [set.words, set.count, timeoutMs]);
  return value >= 0 ? value : poll(set, 0);
}

/** Unmounting may wait for the server of a FUSE mount, which this process may be. */
export async function umount2Async(target: PathString, flags: number): Promise<number> {
  const value = await call(load().umount2, [cPath(target), flags]);
  return value >= 0 ? value : umount2(target, flags);
}
