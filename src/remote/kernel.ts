/**
 * The client's end of a session: what this machine's kernel asks goes to the server, and the answers back. It looks into the
 * messages only as far as needed: who asks, which nodes and handles there are, and what must not be left behind when the kernel
 * refuses an answer, or when the connection breaks.
 *
 * A broken connection is nobody's business for as long as the session lives (its TTL): requests wait and go on. When the session is lost,
 * every request gets an error, every open file answers ESTALE, and the next session starts with new ids for everything, so that
 * nothing of the old one can be taken for something of the new.
 */

import { decodePath } from '../base/bytes.ts';
import {
  ENTRY_OUT_BYTES,
  encodeInvalEntry,
  encodeInvalInode,
  FOPEN_NOFLUSH,
  FUSE_WRITE_CACHE,
  IN_HEADER_BYTES,
  NOTIFY_INC_EPOCH,
  OP,
  OUT_HEADER_BYTES,
  type ReactorTimer,
  type TimerQueue,
} from '../fuse/index.ts';
import * as sys from '../sys/index.ts';
import type { Actor, Caller } from '../view/actors.ts';
import { Ids, NODE_AT, type Nodes } from './nodes.ts';
import { Outgoing, read64, write64 } from './stream.ts';
import { BY_DESCRIPTOR, FRAME, REQUEST_PREFIX_BYTES } from './wire.ts';

/** How often an interrupted wait looks again whether its caller really wants to stop. */
const INTERRUPT_LOOK_MS = 100;
const ACTOR_NUMBERS = 2048;
/** Writes are answered at once while no more than this is on its way. */
const BEHIND_BYTES = 4 * 1024 * 1024;
const FAR_BYTES = 2 ** 40;
/** Who opened a file with these wants to know that it is written, or where. */
const NOT_BEHIND = sys.O_SYNC | sys.O_DSYNC | sys.O_DIRECT;
const CAPABILITY = Buffer.from('security.capability\0');

export interface KernelParts {
  /** Writes to the device: >= 0 or -errno. */
  readonly write: (from: Buffer, length: number) => number;
  /** Has another thread write a notification that may wait for this one. */
  readonly tellKernel: (message: Buffer) => void;
  readonly actors: {
    known(caller: Caller): Actor | null;
    resolve(caller: Caller, done: (actor: Actor) => void): void;
    ancestorsWithOpen(caller: Caller, ino: string, done: (pids: readonly number[]) => void): void;
  };
  readonly groupsOf: (tid: number) => readonly number[];
  readonly wantsToStop: (tid: number) => boolean;
  /** True when a descriptor of this thread's process leads to an inode with this number. */
  readonly hasInode: (tid: number, ino: string) => boolean;
  readonly timers: TimerQueue;
  readonly log: (level: 'info' | 'warn', line: string) => void;
}

/** `live`: connected. `broken`: the connection is; the session may go on. `away`: there is no session. */
export type State = 'live' | 'broken' | 'away';

/** What was written to an open file and answered before the server had it. */
interface WriteBehind {
  /** Writes without the server's answer. */
  underWay: number;
  /** The first error among them, until somebody was told. */
  errno: number;
  /** FLUSHes that wait for the answers. */
  flushes: number[];
}

interface Pending {
  /** It was answered already. */
  readonly behind: WriteBehind | null;
  readonly opcode: number;
  readonly nodeid: number;
  readonly tid: number;
  /** Of LOOKUP and the like, in the root. */
  readonly rootName: string | null;
  /** Bytes of a WRITE. */
  readonly size: number;
  /** Of FSYNC: what its file has on the way. */
  readonly fsync: WriteBehind | undefined;
  readonly asksCapability: boolean;
  /** An OPEN for reading only. */
  readonly reads: boolean;
  timer: ReactorTimer | null;
}

const set = (...opcodes: number[]): ReadonlySet<number> => new Set(opcodes);
/** Requests that locks may be taken for: the server must know who asks. */
const ACTS = set(
  OP.OPEN,
  OP.CREATE,
  OP.TMPFILE,
  OP.SETATTR,
  OP.MKDIR,
  OP.MKNOD,
  OP.SYMLINK,
  OP.UNLINK,
  OP.RMDIR,
  OP.RENAME,
  OP.RENAME2,
  OP.LINK,
  OP.SETXATTR,
  OP.REMOVEXATTR,
);
/** Whose caller may have come by a descriptor, which changes how it waits. */
const BY_PATH_OR_NOT = set(OP.SETATTR, OP.SETXATTR, OP.REMOVEXATTR);
/** On an open file, whose number begins the body. */
const ON_HANDLE = set(
  OP.READ,
  OP.WRITE,
  OP.FSYNC,
  OP.FALLOCATE,
  OP.LSEEK,
  OP.COPY_FILE_RANGE,
  OP.COPY_FILE_RANGE_64,
  OP.READDIR,
  OP.READDIRPLUS,
  OP.FSYNCDIR,
);
const HAS_HANDLE = set(...ON_HANDLE, OP.RELEASE, OP.RELEASEDIR);
const CHANGES_CONTENT = set(OP.WRITE, OP.SETATTR, OP.FALLOCATE);
const ENTRY_ANSWERS = set(OP.LOOKUP, OP.MKNOD, OP.MKDIR, OP.SYMLINK, OP.LINK, OP.CREATE, OP.TMPFILE);
/** Change nothing: who gives up while the connection is broken may be let go. */
const HARMLESS = set(
  OP.LOOKUP,
  OP.GETATTR,
  OP.STATX,
  OP.OPEN,
  OP.OPENDIR,
  OP.READ,
  OP.READDIR,
  OP.READDIRPLUS,
  OP.READLINK,
  OP.GETXATTR,
  OP.LISTXATTR,
  OP.STATFS,
  OP.LSEEK,
);
/** Names in the body of requests whose node is their directory, and where. */
const NAME_AT: Readonly<Record<number, number>> = {
  [OP.LOOKUP]: 0,
  [OP.MKNOD]: 16,
  [OP.MKDIR]: 8,
  [OP.SYMLINK]: 0,
  [OP.LINK]: 8,
  [OP.CREATE]: 16,
};

export class RemoteKernel {
  out = new Outgoing();
  state: State = 'live';
  readonly #parts: KernelParts;
  readonly #nodes: Nodes;
  readonly #ids = new Ids();
  readonly #pending = new Map<number, Pending>();
  /** Requests whose caller was let go, and whose answer must leave nothing behind. */
  readonly #letGo = new Map<number, Pending>();
  /** By handle. */
  readonly #behind = new Map<number, WriteBehind>();
  readonly #numbers = new Map<Actor, number>();
  #forgets: number[] = [];
  #nextNumber = 0;
  /** Of requests of our own: odd, the kernel's are even. */
  #nextOwn = 1;
  #init: Buffer | null = null;

  constructor(parts: KernelParts, nodes: Nodes) {
    this.#parts = parts;
    this.#nodes = nodes;
  }

  get pending(): number {
    return this.#pending.size;
  }

  // ------------------------------------------------------------ from the kernel

  /** A request, in a buffer that may be changed but not kept. */
  request(bytes: Buffer): void {
    const opcode = bytes.readUInt32LE(4);
    switch (opcode) {
      case OP.FORGET:
        return this.#forget(read64(bytes, 16), read64(bytes, IN_HEADER_BYTES));
      case OP.BATCH_FORGET:
        for (let at = IN_HEADER_BYTES + 8; at + 16 <= bytes.length; at += 16)
          this.#forget(read64(bytes, at), read64(bytes, at + 8));
        return;
      case OP.INTERRUPT:
        return this.#interrupt(read64(bytes, IN_HEADER_BYTES));
      case OP.DESTROY:
        this.#error(read64(bytes, 8), 0);
        return;
      case OP.NOTIFY_REPLY:
        return;
      case OP.INIT:
        this.#init = Buffer.from(bytes);
        break;
      case OP.RELEASE:
      case OP.RELEASEDIR:
        this.#error(read64(bytes, 8), 0);
        return this.#release(bytes, opcode);
    }
    this.#forward(bytes, opcode);
  }

  #forward(bytes: Buffer, opcode: number): void {
    const unique = read64(bytes, 8);
    const nodeid = read64(bytes, 16);
    if (opcode === OP.READ && this.#readHere(bytes, unique, nodeid)) return;
    if (opcode === OP.FLUSH) return this.#flush(unique, read64(bytes, IN_HEADER_BYTES));
    if (opcode === OP.GETXATTR && this.#hasNoCapability(bytes, nodeid))
      return this.#error(unique, sys.ENODATA);
    const old =
      this.#ids.isOld(nodeid) || (ON_HANDLE.has(opcode) && this.#ids.isOld(read64(bytes, IN_HEADER_BYTES)));
    if (this.state === 'away') return this.#error(unique, ON_HANDLE.has(opcode) ? sys.ESTALE : sys.ENOTCONN);
    if (old) return this.#error(unique, sys.ESTALE);
    const tid = bytes.readUInt32LE(32);
    const behind = opcode === OP.WRITE ? this.#writeBehind(bytes) : null;
    if (behind !== null && behind.errno !== 0) {
      const { errno } = behind;
      behind.errno = 0;
      return this.#error(unique, errno);
    }
    const pending: Pending = {
      behind,
      opcode,
      nodeid,
      tid,
      rootName: this.#rootName(bytes, opcode, nodeid),
      size: opcode === OP.WRITE ? bytes.readUInt32LE(IN_HEADER_BYTES + 16) : 0,
      fsync: opcode === OP.FSYNC ? this.#behind.get(read64(bytes, IN_HEADER_BYTES)) : undefined,
      asksCapability: opcode === OP.GETXATTR && isCapability(bytes),
      reads: opcode === OP.OPEN && (bytes.readUInt32LE(IN_HEADER_BYTES) & sys.O_ACCMODE) === sys.O_RDONLY,
      timer: null,
    };
    this.#pending.set(unique, pending);
    if (opcode === OP.SETXATTR) this.#nodes.attributesChanged(nodeid);
    if (CHANGES_CONTENT.has(opcode)) this.#nodes.changed(nodeid);
    else if (opcode === OP.COPY_FILE_RANGE || opcode === OP.COPY_FILE_RANGE_64)
      this.#nodes.changed(read64(bytes, IN_HEADER_BYTES + 16));
    if (behind !== null) {
      behind.underWay++;
      this.#send(bytes, opcode, 0, 0);
      return this.#answerWrite(unique, bytes.readUInt32LE(IN_HEADER_BYTES + 16));
    }
    if (!ACTS.has(opcode) || tid === 0) return this.#send(bytes, opcode, 0, 0);
    const caller = { tid, uid: bytes.readUInt32LE(24), gid: bytes.readUInt32LE(28) };
    const known = this.#parts.actors.known(caller);
    if (known !== null) return this.#sendFor(known, bytes, opcode, tid);
    const copy = Buffer.from(bytes);
    this.#parts.actors.resolve(caller, (actor) => {
      if (this.#pending.get(unique) === pending) this.#sendFor(actor, copy, opcode, tid);
    });
  }

  /** When a WRITE may be answered before the server has it: what its file has on the way. Errors are told by the next call, at the latest by close. */
  #writeBehind(bytes: Buffer): WriteBehind | null {
    const cached = (bytes.readUInt32LE(IN_HEADER_BYTES + 20) & FUSE_WRITE_CACHE) !== 0;
    const waits = (bytes.readUInt32LE(IN_HEADER_BYTES + 32) & NOT_BEHIND) !== 0;
    // Where the limits of files may lie the server is asked first.
    const far = read64(bytes, IN_HEADER_BYTES + 8) > FAR_BYTES;
    if (cached || waits || far || this.state !== 'live') return null;
    const fh = read64(bytes, IN_HEADER_BYTES);
    const known = this.#behind.get(fh);
    if (known?.errno) return known;
    if (this.out.kept > BEHIND_BYTES) return null;
    const behind = known ?? { underWay: 0, errno: 0, flushes: [] };
    if (known === undefined) this.#behind.set(fh, behind);
    return behind;
  }

  #answerWrite(unique: number, size: number): void {
    const answer = Buffer.alloc(OUT_HEADER_BYTES + 8);
    answer.writeUInt32LE(answer.length, 0);
    write64(answer, 8, unique);
    answer.writeUInt32LE(size, OUT_HEADER_BYTES);
    this.#parts.write(answer, answer.length);
  }

  /** The server's answer to a WRITE that was answered already: an errno, or 0. */
  #written(behind: WriteBehind, errno: number): void {
    behind.underWay--;
    if (errno !== 0 && behind.errno === 0) behind.errno = errno;
    if (behind.underWay > 0) return;
    for (const unique of behind.flushes.splice(0)) this.#flushed(unique, behind);
  }

  /** close(2): waits for what was written through this file, and tells what went wrong. */
  #flush(unique: number, fh: number): void {
    const behind = this.#behind.get(fh);
    if (behind !== undefined && behind.underWay > 0) behind.flushes.push(unique);
    else this.#flushed(unique, behind);
  }

  #flushed(unique: number, behind: WriteBehind | undefined): void {
    const errno = behind?.errno ?? 0;
    if (behind !== undefined) behind.errno = 0;
    this.#error(unique, errno);
  }

  /** The kernel asks before every write whether the file has capabilities to be taken away. */
  #hasNoCapability(bytes: Buffer, nodeid: number): boolean {
    if (this.#nodes.get(nodeid)?.hasCapability !== false) return false;
    return isCapability(bytes);
  }

  #sendFor(actor: Actor, bytes: Buffer, opcode: number, tid: number): void {
    let flags = 0;
    if (BY_PATH_OR_NOT.has(opcode)) {
      const node = this.#nodes.get(read64(bytes, 16));
      if (
        node !== undefined &&
        (node.opens > 0 || node.isDirectory) &&
        this.#parts.hasInode(tid, String(node.ino))
      )
        flags |= BY_DESCRIPTOR;
    }
    this.#send(bytes, opcode, this.#numberOf(actor, tid), flags);
  }

  #send(bytes: Buffer, opcode: number, number: number, flags: number): void {
    const frame = this.out.frame(FRAME.REQUEST, REQUEST_PREFIX_BYTES + bytes.length);
    frame.writeUInt32LE(number, 0);
    frame.writeUInt32LE(flags, 4);
    bytes.copy(frame, REQUEST_PREFIX_BYTES);
    this.#ids.toServer(frame.subarray(REQUEST_PREFIX_BYTES), opcode, HAS_HANDLE.has(opcode));
  }

  /** The number by which the server knows an actor; it is told when it does not. */
  #numberOf(actor: Actor, tid: number): number {
    const known = this.#numbers.get(actor);
    if (known !== undefined) return known;
    const number = (this.#nextNumber++ % ACTOR_NUMBERS) + 1;
    if (this.#numbers.size >= ACTOR_NUMBERS) this.#numbers.delete(this.#numbers.keys().next().value!);
    this.#numbers.set(actor, number);
    const { owner, pid, who, agent } = actor;
    const groups = this.#parts.groupsOf(tid);
    this.out.json(FRAME.ACTOR, { number, owner: owner.slice(0, 300), pid, groups, who, agent });
    return number;
  }

  /** The name that a kernel will remember in the root: all that a new session has to make it forget. */
  #rootName(bytes: Buffer, opcode: number, nodeid: number): string | null {
    if (opcode === OP.RENAME || opcode === OP.RENAME2) {
      if (read64(bytes, IN_HEADER_BYTES) !== 1) return null;
      const first = textAt(bytes, IN_HEADER_BYTES + (opcode === OP.RENAME ? 8 : 16));
      return decodePath(textAt(bytes, first.byteOffset - bytes.byteOffset + first.length + 1));
    }
    const at = nodeid === 1 ? NAME_AT[opcode] : undefined;
    return at === undefined ? null : decodePath(textAt(bytes, IN_HEADER_BYTES + at));
  }

  #release(bytes: Buffer, opcode: number): void {
    const nodeid = read64(bytes, 16);
    if (opcode === OP.RELEASE) {
      this.#nodes.closed(nodeid);
      this.#behind.delete(read64(bytes, IN_HEADER_BYTES));
    }
    if (this.state === 'away' || this.#ids.isOld(read64(bytes, IN_HEADER_BYTES))) return;
    this.#send(bytes, opcode, 0, 0);
  }

  #forget(nodeid: number, count: number): void {
    this.#nodes.forget(nodeid, count);
    if (this.state !== 'away' && !this.#ids.isOld(nodeid))
      this.#forgets.push(this.#ids.server(nodeid), count);
  }

  /** At the end of a turn. */
  endTurn(): void {
    if (this.#forgets.length === 0) return;
    const forgets = this.#forgets;
    this.#forgets = [];
    for (let from = 0; from < forgets.length; from += 8192) {
      const part = forgets.slice(from, from + 8192);
      const frame = this.out.frame(FRAME.FORGET, part.length * 8);
      for (const [i, value] of part.entries()) write64(frame, i * 8, value);
    }
  }

  /** A READ of what came with the answer to the OPEN. */
  #readHere(bytes: Buffer, unique: number, nodeid: number): boolean {
    const content = this.#nodes.get(nodeid)?.content ?? null;
    if (content === null) return false;
    const offset = read64(bytes, IN_HEADER_BYTES + 8);
    const data = content.subarray(offset, offset + bytes.readUInt32LE(IN_HEADER_BYTES + 16));
    const answer = Buffer.allocUnsafe(OUT_HEADER_BYTES + data.length);
    answer.writeUInt32LE(answer.length, 0);
    answer.writeInt32LE(0, 4);
    write64(answer, 8, unique);
    data.copy(answer, OUT_HEADER_BYTES);
    this.#parts.write(answer, answer.length);
    return true;
  }

  /** A signal hit the caller of a request. Who does not want to stop is asked again. */
  #interrupt(unique: number): void {
    const pending = this.#pending.get(unique);
    if (pending === undefined) return;
    if (this.#parts.wantsToStop(pending.tid)) {
      if (this.state !== 'away') write64(this.out.frame(FRAME.INTERRUPT, 8), 0, unique);
      if (this.state === 'broken' && HARMLESS.has(pending.opcode)) {
        this.#pending.delete(unique);
        this.#letGo.set(unique, pending);
        return this.#error(unique, sys.EINTR);
      }
    }
    pending.timer?.cancel();
    pending.timer = this.#parts.timers.set(INTERRUPT_LOOK_MS, () => this.#interrupt(unique));
  }

  #error(unique: number, errno: number): void {
    const answer = Buffer.alloc(OUT_HEADER_BYTES);
    answer.writeUInt32LE(OUT_HEADER_BYTES, 0);
    answer.writeInt32LE(-errno, 4);
    write64(answer, 8, unique);
    this.#parts.write(answer, OUT_HEADER_BYTES);
  }

  // ------------------------------------------------------------ from the server

  reply(bytes: Buffer): void {
    if (bytes.length < OUT_HEADER_BYTES) return;
    const length = bytes.readUInt32LE(0);
    if (length < OUT_HEADER_BYTES || length > bytes.length) return;
    const unique = read64(bytes, 8);
    const pending = this.#pending.get(unique);
    const refused = pending === undefined;
    const request = pending ?? this.#letGo.get(unique);
    this.#pending.delete(unique);
    this.#letGo.delete(unique);
    if (request === undefined) return;
    request.timer?.cancel();
    const { opcode, nodeid } = request;
    const errno = -bytes.readInt32LE(4);
    const ok = errno === 0;
    if (request.behind !== null) {
      // Less than was asked for: there is no room for the rest.
      const short =
        ok && length >= OUT_HEADER_BYTES + 4 && bytes.readUInt32LE(OUT_HEADER_BYTES) < request.size;
      return this.#written(request.behind, short ? sys.ENOSPC : errno);
    }
    if (opcode === OP.FSYNC && ok && request.fsync?.errno) {
      bytes.writeInt32LE(-request.fsync.errno, 4);
      request.fsync.errno = 0;
    }
    if (errno === sys.ENODATA && request.asksCapability) {
      const node = this.#nodes.get(nodeid);
      if (node !== undefined) node.hasCapability = false;
    }
    const body = bytes.subarray(OUT_HEADER_BYTES, length);
    if (ok) this.#ids.fromServer(body, opcode);
    if (ok && opcode === OP.OPEN) {
      this.#opening(nodeid, bytes.subarray(length));
      // Nothing is written through it: its close need not ask.
      if (request.reads) body.writeUInt32LE(body.readUInt32LE(8) | FOPEN_NOFLUSH, 8);
    }
    const delivered = !refused && this.#parts.write(bytes, length) >= 0;
    if (!ok) return;
    if (!delivered) return this.#takeBack(opcode, nodeid, body);
    if (request.rootName !== null) this.#nodes.rootNames.add(request.rootName);
    this.#delivered(opcode, nodeid, body);
  }

  /** Before the answer to an OPEN: what the kernel knows of the file must not be older than what is opened. */
  #opening(nodeid: number, tail: Buffer): void {
    const node = this.#nodes.get(nodeid);
    if (node === undefined || tail.length < NODE_AT.CONTENT) return;
    const size = read64(tail, NODE_AT.SIZE);
    const sec = read64(tail, NODE_AT.MTIME);
    const nsec = tail.readUInt32LE(NODE_AT.MTIME_NSEC);
    if (node.size !== size || node.mtimeSec !== sec || node.mtimeNsec !== nsec) {
      const stale = encodeInvalInode(nodeid, -1, 0);
      this.#parts.write(stale, stale.length);
    }
    const whole = tail.readUInt32LE(NODE_AT.WHOLE) === 1;
    this.#nodes.setContent(node, whole ? Buffer.from(tail.subarray(NODE_AT.CONTENT)) : null);
  }

  #delivered(opcode: number, nodeid: number, body: Buffer): void {
    const nodes = this.#nodes;
    if (ENTRY_ANSWERS.has(opcode)) {
      const id = nodes.entry(body, 0);
      if (opcode === OP.CREATE || opcode === OP.TMPFILE) nodes.created(id);
    } else if (opcode === OP.GETATTR || opcode === OP.SETATTR) nodes.attributes(nodeid, body, 16);
    else if (opcode === OP.OPEN) nodes.opened(nodeid);
    else if (opcode === OP.READDIRPLUS)
      for (const { at, name } of entriesOf(body)) {
        nodes.entry(body, at);
        if (nodeid === 1) nodes.rootNames.add(name());
      }
  }

  /** The kernel did not take an answer: its caller is gone. What the answer gave is given back. */
  #takeBack(opcode: number, nodeid: number, body: Buffer): void {
    const forget = (at: number) => {
      const id = read64(body, at);
      if (id !== 0) this.#forgets.push(this.#ids.server(id), 1);
    };
    if (ENTRY_ANSWERS.has(opcode)) forget(0);
    if (opcode === OP.OPEN) this.#giveUp(OP.RELEASE, nodeid, read64(body, 0));
    else if (opcode === OP.OPENDIR) this.#giveUp(OP.RELEASEDIR, nodeid, read64(body, 0));
    else if (opcode === OP.CREATE || opcode === OP.TMPFILE)
      this.#giveUp(OP.RELEASE, read64(body, 0), read64(body, ENTRY_OUT_BYTES));
    else if (opcode === OP.READDIRPLUS) for (const { at } of entriesOf(body)) forget(at);
  }

  /** A RELEASE of our own. */
  #giveUp(opcode: number, nodeid: number, fh: number): void {
    const bytes = Buffer.alloc(IN_HEADER_BYTES + 24);
    bytes.writeUInt32LE(bytes.length, 0);
    bytes.writeUInt32LE(opcode, 4);
    write64(bytes, 8, this.#nextOwn);
    this.#nextOwn += 2;
    write64(bytes, 16, nodeid);
    write64(bytes, IN_HEADER_BYTES, fh);
    this.#send(bytes, opcode, 0, 0);
  }

  /** What the server has the kernel forget. */
  notify(bytes: Buffer): void {
    // Kernels before Linux 6.17 do not know it.
    if (bytes.length === OUT_HEADER_BYTES && bytes.readInt32LE(4) === NOTIFY_INC_EPOCH)
      return this.#forgetNames();
    if (bytes.length < OUT_HEADER_BYTES + 8) return;
    const id = this.#ids.kernel(read64(bytes, OUT_HEADER_BYTES));
    write64(bytes, OUT_HEADER_BYTES, id);
    const code = bytes.readInt32LE(4);
    if (code === NODE_AT.INVAL_INODE && bytes.length >= OUT_HEADER_BYTES + 24) {
      this.#nodes.changed(id);
      this.#nodes.attributesChanged(id);
      if (bytes.readInt32LE(OUT_HEADER_BYTES + 12) < 0) this.#parts.write(bytes, bytes.length);
      else this.#parts.tellKernel(Buffer.from(bytes));
    } else this.#parts.tellKernel(Buffer.from(bytes));
  }

  /** Which processes of a caller have an inode open? */
  asked(frame: Record<string, unknown>): void {
    const { id, tid, ino } = frame;
    if (typeof id !== 'number' || typeof tid !== 'number' || typeof ino !== 'string') return;
    const { out } = this;
    this.#parts.actors.ancestorsWithOpen({ tid, uid: 0, gid: 0 }, ino, (pids) => {
      if (out === this.out) out.json(FRAME.ANSWER, { id, pids });
    });
  }

  // ------------------------------------------------------------ sessions

  /** The session is lost: nothing of it counts any more. */
  lost(): void {
    this.state = 'away';
    const pending = [...this.#pending];
    this.#pending.clear();
    this.#letGo.clear();
    this.#forgets = [];
    this.out = new Outgoing();
    this.#numbers.clear();
    this.#ids.restart();
    for (const [unique, { opcode, timer, behind }] of pending) {
      timer?.cancel();
      if (behind !== null) this.#written(behind, sys.ESTALE);
      else this.#error(unique, ON_HANDLE.has(opcode) ? sys.ESTALE : sys.ENOTCONN);
    }
    for (const id of this.#nodes.ids()) {
      const stale = encodeInvalInode(id, -1, 0);
      this.#parts.write(stale, stale.length);
    }
    this.#forgetNames();
    this.#nodes.restart();
  }

  /** A name in the root takes all that is below along. */
  #forgetNames(): void {
    for (const name of this.#nodes.rootNames) this.#parts.tellKernel(encodeInvalEntry(1, name));
  }

  /** There is a session, and it is a new one: the server hears once more what this kernel can do. */
  begin(): void {
    this.state = 'live';
    if (this.#init === null) return;
    const again = Buffer.from(this.#init);
    write64(again, 8, this.#nextOwn);
    this.#nextOwn += 2;
    this.#send(again, OP.INIT, 0, 0);
  }
}

/** A GETXATTR of what setcap(8) sets. */
function isCapability(bytes: Buffer): boolean {
  const at = IN_HEADER_BYTES + 8;
  return bytes.subarray(at, at + CAPABILITY.length).equals(CAPABILITY);
}

/** The bytes up to a NUL. */
function textAt(bytes: Buffer, start: number): Buffer {
  const end = bytes.indexOf(0, start);
  return bytes.subarray(start, end < 0 ? bytes.length : end);
}

/** The entries of a READDIRPLUS that bear a node. */
function* entriesOf(body: Buffer): Generator<{ at: number; name: () => string }> {
  for (let at = 0; at + ENTRY_OUT_BYTES + 24 <= body.length; ) {
    const start = at + ENTRY_OUT_BYTES + 24;
    const length = body.readUInt32LE(at + ENTRY_OUT_BYTES + 16);
    if (read64(body, at) !== 0) yield { at, name: () => decodePath(body.subarray(start, start + length)) };
    at = (start + length + 7) & ~7;
  }
}
