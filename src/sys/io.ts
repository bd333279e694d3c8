/** Bytes and descriptors: read, write, sync, copy, seek, pipe, poll, fcntl, flock, ioctl. */
import koffi from 'koffi';
import { bind, putInt64, result } from './libc.ts';

const transfer = ['int', 'void *', 'size_t'];
const c = {
  read: bind('read', 'int64', transfer),
  write: bind('write', 'int64', transfer),
  pread: bind('pread', 'int64', [...transfer, 'int64']),
  pwrite: bind('pwrite', 'int64', [...transfer, 'int64']),
  writev: bind('writev', 'int64', ['int', 'void *', 'int']),
  lseek: bind('lseek', 'int64', ['int', 'int64', 'int']),
  copyFileRange: bind('copy_file_range', 'int64', ['int', 'void *', 'int', 'void *', 'size_t', 'uint32']),
  fsync: bind('fsync', 'int', ['int']),
  fdatasync: bind('fdatasync', 'int', ['int']),
  syncfs: bind('syncfs', 'int', ['int']),
  eventfd: bind('eventfd', 'int', ['uint32', 'int']),
  poll: bind('poll', 'int', ['void *', 'uint64', 'int']),
  pipe2: bind('pipe2', 'int', ['void *', 'int']),
  fcntl: bind('fcntl', 'int', ['int', 'int', 'long']),
  flock: bind('flock', 'int', ['int', 'int']),
  ioctl: bind('ioctl', 'int', ['int', 'uint64', 'void *']),
  dup: bind('dup', 'int', ['int']),
};

/** Reads at most `length` bytes into the start of `into`; 0 at the end of the file. */
export function read(fd: number, into: Uint8Array, length = into.length): number {
  return result(c.read(fd, into, length));
}

/** Writes the first `length` bytes; may write fewer. */
export function write(fd: number, from: Uint8Array, length = from.length): number {
  return result(c.write(fd, from, length));
}

export function pread(fd: number, into: Uint8Array, offset: number, length = into.length): number {
  return result(c.pread(fd, into, length, offset));
}

export function pwrite(fd: number, from: Uint8Array, offset: number, length = from.length): number {
  return result(c.pwrite(fd, from, length, offset));
}

const IOV_MAX = 16;
const iov = new BigUint64Array(IOV_MAX * 2);

/** Up to 16 buffers in one write, without copying them together. */
export function writev(fd: number, buffers: readonly Uint8Array[]): number {
  const count = Math.min(buffers.length, IOV_MAX);
  for (let i = 0; i < count; i++) {
    iov[i * 2] = koffi.address(buffers[i]!);
    iov[i * 2 + 1] = BigInt(buffers[i]!.length);
  }
  return result(c.writev(fd, iov, count));
}

/** The new position. `offset` may be a bigint: directory cookies reach 2^63. A position above 2^53 comes back clamped. */
export function lseek(fd: number, offset: number | bigint, whence: number): number {
  const at = c.lseek(fd, offset, whence) as number | bigint;
  return typeof at === 'bigint' ? Number.MAX_SAFE_INTEGER : result(at);
}

const offIn = new DataView(new ArrayBuffer(8));
const offOut = new DataView(new ArrayBuffer(8));
const offInBytes = new Uint8Array(offIn.buffer);
const offOutBytes = new Uint8Array(offOut.buffer);

/** Bytes copied, possibly fewer than `length`; reflinks where the file system can. Positions are not moved. */
export function copyFileRange(
  fdIn: number,
  offsetIn: number,
  fdOut: number,
  offsetOut: number,
  length: number,
): number {
  putInt64(offIn, 0, offsetIn);
  putInt64(offOut, 0, offsetOut);
  return result(c.copyFileRange(fdIn, offInBytes, fdOut, offOutBytes, length, 0));
}

export function fsync(fd: number): number {
  return result(c.fsync(fd));
}
export function fdatasync(fd: number): number {
  return result(c.fdatasync(fd));
}
export function syncfs(fd: number): number {
  return result(c.syncfs(fd));
}

/** `flags`: EFD_*. */
export function eventfd(initial: number, flags: number): number {
  return result(c.eventfd(initial, flags));
}

const one = new Uint8Array(new BigUint64Array([1n]).buffer);
const counter = new Uint8Array(8);

/** Adds 1 to an eventfd. EAGAIN: it is full, which wakes as well. */
export function eventfdSignal(fd: number): number {
  return result(c.write(fd, one, 8));
}

/** Takes everything out of an eventfd. */
export function eventfdDrain(fd: number): number {
  return result(c.read(fd, counter, 8));
}

/** An array of `struct pollfd`, kept between calls. */
export class PollSet {
  readonly words: Int32Array;
  readonly count: number;

  constructor(fds: readonly { fd: number; events: number }[]) {
    this.count = fds.length;
    this.words = new Int32Array(fds.length * 2);
    for (const [index, { fd, events }] of fds.entries()) {
      this.words[index * 2] = fd;
      this.words[index * 2 + 1] = events;
    }
  }

  /** POLL* bits that the last `poll` found. */
  revents(index: number): number {
    return (this.words[index * 2 + 1]! >> 16) & 0xffff;
  }
}

/** How many are ready; 0 after `timeoutMs` (-1: no limit), EINTR after a signal. */
export function poll(set: PollSet, timeoutMs: number): number {
  return result(c.poll(set.words, set.count, timeoutMs));
}

const pair = new Int32Array(2);

/** [read end, write end], or `-errno`. */
export function pipe2(flags: number): [number, number] | number {
  const code = result(c.pipe2(pair, flags));
  return code < 0 ? code : [pair[0]!, pair[1]!];
}

/** F_GETFL, F_SETFL, F_SETLEASE, F_SETSIG, F_SETPIPE_SZ, ...: those whose argument is an integer. */
export function fcntl(fd: number, command: number, argument = 0): number {
  return result(c.fcntl(fd, command, argument));
}

/** `operation`: LOCK_*. */
export function flock(fd: number, operation: number): number {
  return result(c.flock(fd, operation));
}

/** `argument`: the bytes of the struct that the request reads or fills. */
export function ioctl(fd: number, request: number, argument: Uint8Array | null): number {
  return result(c.ioctl(fd, request, argument));
}

export function dup(fd: number): number {
  return result(c.dup(fd));
}
