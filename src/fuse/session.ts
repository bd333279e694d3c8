/**
 * One FUSE connection: reads requests, calls handlers, writes answers. No thread, no clock and no descriptor of its own:
 * the device is an object with `read` and `write`, so tests run it on bytes.
 */

import type { PathString } from '../base/bytes.ts';
import {
  EAGAIN,
  EINTR,
  EINVAL,
  EIO,
  ENODEV,
  ENOENT,
  ENOSYS,
  EPERM,
  EPROTO,
  errnoName,
} from '../sys/errno.ts';
import {
  ATTR_OUT_BYTES,
  ENTRY_OUT_BYTES,
  FUSE_DEV_IOC_BACKING_CLOSE,
  FUSE_DEV_IOC_BACKING_OPEN,
  INIT,
  INIT2,
  MAX_WRITE_BYTES,
  OP,
  OPCODES,
  OPEN_OUT_BYTES,
  OUT_HEADER_BYTES,
  READ_BUFFER_BYTES,
  STATFS_OUT_BYTES,
  STATX_OUT_BYTES,
} from './abi.ts';
import { DirentBuffer } from './dirents.ts';
import {
  initReplyBytes,
  put64,
  putAttrOut,
  putEntry,
  putInit,
  putOpen,
  putStatfs,
  putStatx,
} from './encode.ts';
import { negotiate } from './init.ts';
import { Message } from './message.ts';
import { encodeInvalEntry, encodeInvalInode } from './notify.ts';
import { type DecodeContext, OPERATIONS, opcodeName } from './opcodes.ts';
import type { TimerQueue } from './timers.ts';
import type {
  Attr,
  DirentWriter,
  Entry,
  FuseApi,
  Handlers,
  Negotiated,
  OpenReply,
  ReactorTimer,
  Request,
  StatfsReply,
  StatxReply,
} from './types.ts';

/** `/dev/fuse`, or a stand-in. All return >= 0 or `-errno`. */
export interface FuseDevice {
  read(into: Buffer): number;
  write(from: Buffer, length: number): number;
  ioctl(request: number, argument: Uint8Array): number;
}

export interface SessionOptions {
  readonly device: FuseDevice;
  readonly timers: TimerQueue;
  /** CLOCK_MONOTONIC milliseconds. */
  readonly nowMs: () => number;
  /** Use PASSTHROUGH if the kernel has it. */
  readonly allowPassthrough: boolean;
  /** 1 or 2: see `InitOptions`. */
  readonly maxStackDepth: number;
  readonly pageBytes: number;
  /** Added to every visible thread id, so that those of several machines differ. Default 0. */
  readonly pidBase?: number;
  /** One line that somebody should read. */
  readonly log: (line: string) => void;
}

/** What a trace hook sees: a request as it comes in, and its answer. */
export interface TraceEvent {
  readonly phase: 'request' | 'reply';
  readonly op: string;
  readonly unique: number;
  readonly nodeid: number;
  readonly pid: number;
  /** Of the answer: 0 for success. */
  readonly errno: number;
  /** From request to answer, in microseconds. */
  readonly latencyUs: number;
}

const HEADER_WORDS = OUT_HEADER_BYTES / 4;
const BODY = HEADER_WORDS;
const ERRNO_MAX = 511;

/** Before INIT. */
const NOTHING_YET: Negotiated = {
  major: 0,
  minor: 0,
  flags: 0,
  flags2: 0,
  passthrough: false,
  maxWriteBytes: 0,
};

export class FuseSession implements FuseApi, DecodeContext {
  negotiated: Negotiated = NOTHING_YET;
  setxattrExt = false;
  /** Requests and error answers by opcode. */
  readonly requests = new Float64Array(OPCODES);
  readonly failures = new Float64Array(OPCODES);

  readonly #options: SessionOptions;
  readonly #device: FuseDevice;
  readonly #in = new Message(READ_BUFFER_BYTES);
  readonly #out = Buffer.alloc(READ_BUFFER_BYTES);
  readonly #words = new Uint32Array(this.#out.buffer, this.#out.byteOffset, READ_BUFFER_BYTES / 4);
  readonly #dirents: DirentBuffer;
  readonly #backing = new Uint8Array(16);
  readonly #pidBase: number;
  #handlers: Handlers | null = null;
  #trace: ((event: TraceEvent) => void) | null = null;
  readonly #startedMs = new Map<number, number>();

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#device = options.device;
    this.#pidBase = options.pidBase ?? 0;
    this.#dirents = new DirentBuffer((req, bytes, words, length) =>
      this.#sendFrom(req, bytes, words, length),
    );
  }

  /** Before the first request. */
  attach(handlers: Handlers): void {
    this.#handlers = handlers;
  }

  /** Reports each request and answer to `hook`, until it is null again. Off, it costs one comparison. */
  setTrace(hook: ((event: TraceEvent) => void) | null): void {
    this.#trace = hook;
    this.#startedMs.clear();
  }

  /** Requests and failures so far, by name; only those that occurred. */
  counters(): Record<string, { requests: number; failures: number }> {
    const all: Record<string, { requests: number; failures: number }> = {};
    for (let opcode = 0; opcode < OPCODES; opcode++) {
      if (this.requests[opcode] === 0) continue;
      all[opcodeName(opcode)] = { requests: this.requests[opcode]!, failures: this.failures[opcode]! };
    }
    return all;
  }

  // --- requests --------------------------------------------------------------------------------------

  /** Reads one request and runs its handler. The length read, or `-errno` of the device. */
  receive(): number {
    const length = this.#device.read(this.#in.bytes);
    if (length > 0) this.#dispatch(length);
    return length;
  }

  /** Runs a request given as bytes. Whatever they are, it does not throw. */
  feed(bytes: Uint8Array): void {
    const length = Math.min(bytes.length, this.#in.bytes.length);
    this.#in.bytes.set(bytes.subarray(0, length));
    this.#dispatch(length);
  }

  #dispatch(length: number): void {
    const message = this.#in;
    if (!message.begin(length)) {
      this.#options.log(`fuse: a message of ${length} bytes is no request`);
      return;
    }
    const opcode = message.opcode;
    const req: Request = {
      opcode,
      unique: message.unique,
      nodeid: message.nodeid,
      uid: message.uid,
      gid: message.gid,
      pid: message.pid === 0 ? 0 : message.pid + this.#pidBase,
    };
    if (opcode < OPCODES) this.requests[opcode]!++;
    if (this.#trace !== null) this.#traceRequest(req);
    if (opcode === OP.INIT && this.negotiated.major === 0) this.#init(req);
    else this.#run(req);
  }

  #run(req: Request): void {
    const operation = OPERATIONS[req.opcode];
    const handlers = this.#handlers;
    let errno: number;
    if (operation === undefined) errno = ENOSYS;
    else if (handlers === null || this.negotiated.major === 0) errno = EIO;
    else if (this.#in.bodyBytes < operation.bodyBytes) errno = EINVAL;
    else if (operation.handler !== null && handlers[operation.handler] === undefined) errno = ENOSYS;
    else {
      try {
        errno = operation.decode(this.#in, handlers, req, this);
      } catch (error) {
        this.#options.log(
          `fuse: ${operation.name} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
        );
        errno = EIO;
      }
    }
    if (errno !== 0 && (operation?.answered ?? true)) this.replyError(req, errno);
  }

  #init(req: Request): void {
    const message = this.#in;
    if (message.bodyBytes < 16) {
      this.replyError(req, EPROTO);
      return;
    }
    const flags = message.u32(12);
    const answer = negotiate(
      {
        major: message.u32(0),
        minor: message.u32(4),
        maxReadahead: message.u32(8),
        flags,
        flags2: (flags & INIT.INIT_EXT) !== 0 && message.bodyBytes >= 20 ? message.u32(16) : 0,
      },
      {
        passthrough: this.#options.allowPassthrough,
        maxStackDepth: this.#options.maxStackDepth,
        pageBytes: this.#options.pageBytes,
      },
    );
    if (answer.kind === 'refused') {
      this.#options.log(`fuse: ${answer.reason}`);
      this.replyError(req, EPROTO);
      return;
    }
    const { reply } = answer;
    if (answer.kind === 'agreed') {
      this.setxattrExt = (reply.flags & INIT.SETXATTR_EXT) !== 0;
      this.negotiated = {
        major: reply.major,
        minor: reply.minor,
        flags: reply.flags,
        flags2: reply.flags2,
        passthrough: (reply.flags2 & INIT2.PASSTHROUGH) !== 0,
        maxWriteBytes: reply.maxWriteBytes,
      };
      try {
        this.#handlers?.init?.(this.negotiated);
      } catch (error) {
        this.#options.log(
          `fuse: INIT failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
        );
      }
    }
    putInit(this.#words, BODY, reply);
    this.#send(req, initReplyBytes(reply.minor));
  }

  // --- answers ---------------------------------------------------------------------------------------

  replyError(req: Request, errno: number): number {
    let code = Math.abs(errno);
    if (code > ERRNO_MAX || !Number.isInteger(code)) {
      this.#options.log(
        `fuse: ${opcodeName(req.opcode)} answered with errno ${errno}, which the kernel refuses`,
      );
      code = EIO;
    }
    if (code !== 0 && req.opcode < OPCODES) this.failures[req.opcode]!++;
    this.#words[0] = OUT_HEADER_BYTES;
    this.#words[1] = -code;
    put64(this.#words, 2, req.unique);
    return this.#written(req, this.#device.write(this.#out, OUT_HEADER_BYTES), code);
  }

  replyOk(req: Request): number {
    return this.#send(req, 0);
  }

  replyEntry(req: Request, entry: Entry): number {
    putEntry(this.#words, BODY, entry);
    return this.#send(req, ENTRY_OUT_BYTES);
  }

  replyAttr(req: Request, attr: Attr, validMs: number): number {
    putAttrOut(this.#words, BODY, attr, validMs);
    return this.#send(req, ATTR_OUT_BYTES);
  }

  replyStatx(req: Request, reply: StatxReply): number {
    putStatx(this.#words, BODY, reply);
    return this.#send(req, STATX_OUT_BYTES);
  }

  replyOpen(req: Request, open: OpenReply): number {
    putOpen(this.#words, BODY, open);
    return this.#send(req, OPEN_OUT_BYTES);
  }

  replyCreate(req: Request, entry: Entry, open: OpenReply): number {
    putEntry(this.#words, BODY, entry);
    putOpen(this.#words, BODY + ENTRY_OUT_BYTES / 4, open);
    return this.#send(req, ENTRY_OUT_BYTES + OPEN_OUT_BYTES);
  }

  dataBuffer(sizeBytes: number): Buffer {
    const size = Math.min(Math.max(sizeBytes, 0), MAX_WRITE_BYTES);
    return this.#out.subarray(OUT_HEADER_BYTES, OUT_HEADER_BYTES + size);
  }

  replyData(req: Request, data: Buffer): number {
    const length = Math.min(data.length, this.#out.length - OUT_HEADER_BYTES);
    const inPlace =
      data.buffer === this.#out.buffer && data.byteOffset === this.#out.byteOffset + OUT_HEADER_BYTES;
    if (!inPlace) data.copy(this.#out, OUT_HEADER_BYTES, 0, length);
    return this.#send(req, length);
  }

  replyWrite(req: Request, sizeBytes: number): number {
    // fuse_write_out is 32 bits and padding; fuse_copy_file_range_out (7.45) 64 bits.
    put64(this.#words, BODY, sizeBytes);
    if (req.opcode !== OP.COPY_FILE_RANGE_64) this.#words[BODY + 1] = 0;
    return this.#send(req, 8);
  }

  replyStatfs(req: Request, st: StatfsReply): number {
    putStatfs(this.#words, BODY, st);
    return this.#send(req, STATFS_OUT_BYTES);
  }

  replyXattrSize(req: Request, sizeBytes: number): number {
    this.#words[BODY] = sizeBytes;
    this.#words[BODY + 1] = 0;
    return this.#send(req, 8);
  }

  replyLseek(req: Request, offset: number): number {
    put64(this.#words, BODY, offset);
    return this.#send(req, 8);
  }

  dirents(size: number, plus: boolean): DirentWriter {
    return this.#dirents.begin(size, plus);
  }

  #send(req: Request, bodyBytes: number): number {
    return this.#sendFrom(req, this.#out, this.#words, OUT_HEADER_BYTES + bodyBytes);
  }

  #sendFrom(req: Request, bytes: Buffer, words: Uint32Array, length: number): number {
    words[0] = length;
    words[1] = 0;
    put64(words, 2, req.unique);
    return this.#written(req, this.#device.write(bytes, length), 0);
  }

  #written(req: Request, code: number, errno: number): number {
    if (this.#trace !== null) this.#traceReply(req, errno);
    if (code >= 0) return 0;
    // ENOENT: the caller was killed, or has its answer. ENODEV: unmounted.
    if (code !== -ENOENT && code !== -ENODEV) {
      this.#options.log(`fuse: the answer to ${opcodeName(req.opcode)} was refused: ${errnoName(code)}`);
      // A malformed answer leaves the request pending: free its caller.
      if (code === -EINVAL && errno === 0) this.replyError(req, EIO);
    }
    return code;
  }

  // --- the kernel's caches, backing files, time --------------------------------------------------------

  notifyInvalInode(nodeid: number, off: number, len: number): number {
    return this.#notify(encodeInvalInode(nodeid, off, len));
  }

  notifyInvalEntry(parent: number, name: PathString): number {
    return this.#notify(encodeInvalEntry(parent, name));
  }

  #notify(message: Buffer): number {
    const code = this.#device.write(message, message.length);
    return code < 0 ? code : 0;
  }

  backingOpen(fd: number): number {
    if (!this.negotiated.passthrough) return -EPERM;
    this.#backing.fill(0);
    new DataView(this.#backing.buffer).setInt32(0, fd, true);
    return this.#device.ioctl(FUSE_DEV_IOC_BACKING_OPEN, this.#backing);
  }

  backingClose(id: number): number {
    new DataView(this.#backing.buffer).setInt32(0, id, true);
    return this.#device.ioctl(FUSE_DEV_IOC_BACKING_CLOSE, this.#backing);
  }

  setTimer(delayMs: number, run: () => void): ReactorTimer {
    return this.#options.timers.set(delayMs, run);
  }

  nowMs(): number {
    return this.#options.nowMs();
  }

  // --- trace -----------------------------------------------------------------------------------------

  #traceRequest(req: Request): void {
    if (OPERATIONS[req.opcode]?.answered ?? true) this.#startedMs.set(req.unique, this.#options.nowMs());
    this.#report('request', req, 0, 0);
  }

  #traceReply(req: Request, errno: number): void {
    const now = this.#options.nowMs();
    const started = this.#startedMs.get(req.unique) ?? now;
    this.#startedMs.delete(req.unique);
    this.#report('reply', req, errno, Math.round((now - started) * 1000));
  }

  #report(phase: TraceEvent['phase'], req: Request, errno: number, latencyUs: number): void {
    const { unique, nodeid, pid } = req;
    this.#trace?.({ phase, op: opcodeName(req.opcode), unique, nodeid, pid, errno, latencyUs });
  }
}

/** A read of the device that ended without a request, but not for good (fuse_dev_read in fs/fuse/dev.c). */
export function isTransient(code: number): boolean {
  return code === -EAGAIN || code === -EINTR || code === -ENOENT;
}
