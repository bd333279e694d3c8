/**
 * One remote kernel: a FUSE session and a front end of the view's own, whose device is a stream (src/remote/wire.ts). What comes
 * from there is not trusted: lengths, opcodes, nodes and handles that it was never given are refused, not looked at.
 */
import {
  ENTRY_OUT_BYTES,
  FATTR_GID,
  FATTR_UID,
  FuseSession,
  IN_HEADER_BYTES,
  NOTIFY_INC_EPOCH,
  OP,
  OPERATIONS,
  OUT_HEADER_BYTES,
  type Request,
  type TimerQueue,
} from '../fuse/index.ts';
import { Outgoing, read64, write64 } from '../remote/stream.ts';
import { BY_DESCRIPTOR, FRAME, type Hello, REQUEST_PREFIX_BYTES } from '../remote/wire.ts';
import * as sys from '../sys/index.ts';
import type { Handle } from '../view/handle.ts';
import type { Node } from '../view/node.ts';
import { scratch } from '../view/scratch.ts';
import type { RemoteKernel } from './doors.ts';
import type { Frontend } from './frontend.ts';
import type { CachedPages } from './pages.ts';
import { RemoteActors, TIDS } from './remote-actors.ts';

/** Requests without an answer, at most: every one of them is a thread that waits. */
const PENDING_MAX = 65_536;
/** A file that is opened for reading and not larger is sent along with the answer. */
const CONTENT_BYTES_MAX = 128 * 1024;
/** Behind the answer to an OPEN: size u64, modification time u64 and u32, u32: 1 when the whole content follows. */
export const OPENED_BYTES = 24;

/** Where an answer has `struct fuse_attr`, from the start of the message; user and group ids in it. */
const ATTR_UID = 68;
const ATTR_GID = 72;
const ENTRY_ATTR = 40;
const ATTR_OUT_ATTR = 16;

interface Pending {
  readonly opcode: number;
  extra: Buffer | null;
}

interface Known extends CachedPages {
  lookups: number;
}

export interface DoorParts {
  /** From 1 on; never used twice. */
  readonly number: number;
  readonly hello: Hello;
  /** Who owns the view's root. */
  readonly owner: { readonly uid: number; readonly gid: number };
  readonly timers: TimerQueue;
  readonly nowMs: () => number;
  readonly log: (line: string) => void;
  readonly frontend: (door: RemoteDoor) => Frontend;
}

/** Answers without a body that changes anything here. */
const ENTRY_ANSWERS: ReadonlySet<number> = new Set([
  OP.LOOKUP,
  OP.MKNOD,
  OP.MKDIR,
  OP.SYMLINK,
  OP.LINK,
  OP.CREATE,
  OP.TMPFILE,
]);
const ATTR_ANSWERS: ReadonlySet<number> = new Set([OP.GETATTR, OP.SETATTR]);
/** They come as frames of their own, or not at all. */
const NOT_HERE: ReadonlySet<number> = new Set([
  OP.FORGET,
  OP.BATCH_FORGET,
  OP.INTERRUPT,
  OP.NOTIFY_REPLY,
  OP.DESTROY,
]);
/** Bodies with a second node, and where. */
const OTHER_NODE: Readonly<Record<number, number>> = {
  [OP.RENAME]: 0,
  [OP.RENAME2]: 0,
  [OP.LINK]: 0,
  [OP.COPY_FILE_RANGE]: 16,
  [OP.COPY_FILE_RANGE_64]: 16,
};

export class RemoteDoor implements RemoteKernel {
  readonly out = new Outgoing();
  readonly session: FuseSession;
  readonly actors: RemoteActors;
  readonly frontend: Frontend;
  readonly #base: number;
  readonly #uids: readonly [number, number];
  readonly #gids: readonly [number, number];
  readonly #pending = new Map<number, Pending>();
  readonly #known = new Map<number, Known>();
  /** Threads whose last request said that they have a descriptor of its node. */
  readonly #byDescriptor = new Set<number>();
  ended = false;

  constructor(parts: DoorParts) {
    const { hello, owner } = parts;
    this.#base = parts.number * TIDS;
    const maps = hello.idMap === 'user';
    this.#uids = maps ? [hello.uid, owner.uid] : [0, 0];
    this.#gids = maps ? [hello.gid, owner.gid] : [0, 0];
    this.actors = new RemoteActors(
      hello.host,
      this.#base,
      (gid) => swapped(gid, this.#gids),
      (question) => this.out.json(FRAME.ASK, question),
    );
    this.session = new FuseSession({
      device: {
        read: () => -sys.EAGAIN,
        write: (from, length) => this.#answer(from, length),
        ioctl: () => -sys.EPERM,
      },
      timers: parts.timers,
      nowMs: parts.nowMs,
      allowPassthrough: false,
      maxStackDepth: 1,
      pageBytes: sys.getpagesize(),
      pidBase: this.#base,
      log: parts.log,
    });
    this.#known.set(1, { lookups: 1, pages: null });
    this.frontend = parts.frontend(this);
    this.session.attach(this.frontend);
  }

  // ------------------------------------------------------------ what the view asks

  wantsToStop(): boolean {
    return true; // the client looks before it passes an interrupt on
  }

  hasInode(tid: number): boolean {
    return this.#byDescriptor.has(tid);
  }

  pagesOf(node: Node): CachedPages {
    return this.#known.get(node.id) ?? { pages: null };
  }

  opened(req: Request, handle: Handle, fd: number, fresh: boolean): void {
    const pending = this.#pending.get(req.unique);
    if (pending === undefined) return;
    const { size } = scratch;
    const sends = fresh && !handle.writes && size > 0 && size <= CONTENT_BYTES_MAX;
    const extra = Buffer.alloc(OPENED_BYTES + (sends ? size : 0));
    write64(extra, 0, size);
    write64(extra, 8, Math.max(0, scratch.mtimeSec));
    extra.writeUInt32LE(scratch.mtimeNsec, 16);
    const whole = sends && sys.pread(fd, extra.subarray(OPENED_BYTES), 0) === size;
    extra.writeUInt32LE(whole ? 1 : 0, 20);
    pending.extra = whole ? extra : extra.subarray(0, OPENED_BYTES);
  }

  // ------------------------------------------------------------ what comes in

  /** A REQUEST. False: it is none, and this client is not to be listened to any more. */
  request(content: Buffer): boolean {
    const bytes = content.subarray(REQUEST_PREFIX_BYTES);
    if (bytes.length < IN_HEADER_BYTES || bytes.readUInt32LE(0) !== bytes.length) return false;
    const opcode = bytes.readUInt32LE(4);
    const unique = read64(bytes, 8);
    if (NOT_HERE.has(opcode)) return true;
    if (unique === 0 || !Number.isSafeInteger(unique) || this.#pending.has(unique)) return false;
    if (this.#pending.size >= PENDING_MAX) return false;
    this.#pending.set(unique, { opcode, extra: null });
    const errno = this.#translate(bytes, opcode);
    if (errno !== 0) {
      this.#refuse(unique, errno);
      return true;
    }
    const pid = bytes.readUInt32LE(32);
    const number = content.readUInt32LE(0);
    if (pid !== 0) {
      const tid = pid + this.#base;
      if (number !== 0 && !this.actors.acts(tid, number)) return false;
      if ((content.readUInt32LE(4) & BY_DESCRIPTOR) !== 0) this.#byDescriptor.add(tid);
      else if (this.#byDescriptor.size > 0) this.#byDescriptor.delete(tid);
    }
    this.session.feed(bytes);
    return true;
  }

  /** Checks the nodes that a request is about, and puts our users for theirs. An errno, or 0. */
  #translate(bytes: Buffer, opcode: number): number {
    const operation = OPERATIONS[opcode];
    if (operation === undefined) return sys.ENOSYS;
    if (bytes.length < IN_HEADER_BYTES + operation.bodyBytes) return sys.EINVAL;
    if (opcode !== OP.INIT && !this.#known.has(read64(bytes, 16))) return sys.ESTALE;
    const other = OTHER_NODE[opcode];
    if (other !== undefined && !this.#known.has(read64(bytes, IN_HEADER_BYTES + other))) return sys.ESTALE;
    this.#swap(bytes, 24, 28);
    if (opcode === OP.SETATTR) {
      const valid = bytes.readUInt32LE(IN_HEADER_BYTES);
      if ((valid & FATTR_UID) !== 0) this.#swapUid(bytes, IN_HEADER_BYTES + 76);
      if ((valid & FATTR_GID) !== 0) this.#swapGid(bytes, IN_HEADER_BYTES + 80);
    }
    return 0;
  }

  interrupt(unique: number): void {
    if (this.#pending.has(unique)) this.frontend.interrupt(unique);
  }

  forget(content: Buffer): void {
    for (let at = 0; at + 16 <= content.length; at += 16)
      this.#forget(read64(content, at), read64(content, at + 8));
  }

  #forget(id: number, count: number): void {
    const known = this.#known.get(id);
    if (known === undefined || id === 1) return;
    const times = Math.min(count, known.lookups);
    known.lookups -= times;
    if (known.lookups === 0) this.#known.delete(id);
    this.frontend.forget(id, times);
  }

  /** The client is gone for good: its handles are closed, its waiters leave, its nodes are forgotten. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.frontend.end();
    for (const [id, { lookups }] of this.#known) if (id !== 1) this.frontend.forget(id, lookups);
    this.#known.clear();
    this.#pending.clear();
  }

  // ------------------------------------------------------------ what goes out

  #refuse(unique: number, errno: number): void {
    const answer = Buffer.alloc(OUT_HEADER_BYTES);
    answer.writeUInt32LE(OUT_HEADER_BYTES, 0);
    answer.writeInt32LE(-errno, 4);
    write64(answer, 8, unique);
    this.#answer(answer, OUT_HEADER_BYTES);
  }

  /** What the session writes to its device: an answer, or a notification. */
  #answer(from: Buffer, length: number): number {
    if (this.ended) return -sys.ENODEV;
    const unique = read64(from, 8);
    if (unique === 0) return this.#notify(from, length);
    const pending = this.#pending.get(unique);
    if (pending === undefined) return -sys.ENOENT;
    this.#pending.delete(unique);
    const { opcode, extra } = pending;
    // Nobody waits for them.
    if (opcode === OP.RELEASE || opcode === OP.RELEASEDIR) return length;
    const ok = from.readInt32LE(4) === 0;
    const more = ok && extra !== null ? extra.length : 0;
    const frame = this.out.frame(FRAME.REPLY, length + more);
    from.copy(frame, 0, 0, length);
    if (more > 0) extra!.copy(frame, length);
    if (ok) this.#given(opcode, frame.subarray(OUT_HEADER_BYTES, length));
    return length;
  }

  /** A notification for kernels. */
  tell(message: Buffer): void {
    if (this.ended) return;
    if (message.readInt32LE(4) === NOTIFY_INC_EPOCH)
      message.copy(this.out.frame(FRAME.NOTIFY, message.length));
    else if (message.length >= OUT_HEADER_BYTES + 8) this.#notify(message, message.length);
  }

  /** Only what the client knows is of interest to it. */
  #notify(from: Buffer, length: number): number {
    if (!this.#known.has(read64(from, OUT_HEADER_BYTES))) return -sys.ENOENT;
    from.copy(this.out.frame(FRAME.NOTIFY, length), 0, 0, length);
    return length;
  }

  /** A successful answer: counts the nodes in it, and puts their users for ours. */
  #given(opcode: number, body: Buffer): void {
    if (ENTRY_ANSWERS.has(opcode)) this.#entry(body, 0);
    else if (ATTR_ANSWERS.has(opcode)) this.#swap(body, ATTR_OUT_ATTR + ATTR_UID, ATTR_OUT_ATTR + ATTR_GID);
    else if (opcode === OP.STATX) this.#swap(body, 52, 56);
    else if (opcode === OP.READDIRPLUS) {
      for (let at = 0; at + ENTRY_OUT_BYTES + 24 <= body.length; ) {
        this.#entry(body, at);
        at += (ENTRY_OUT_BYTES + 24 + body.readUInt32LE(at + ENTRY_OUT_BYTES + 16) + 7) & ~7;
      }
    }
  }

  #entry(body: Buffer, at: number): void {
    const id = read64(body, at);
    if (id === 0) return;
    const known = this.#known.get(id);
    if (known === undefined) this.#known.set(id, { lookups: 1, pages: null });
    else known.lookups++;
    this.#swap(body, at + ENTRY_ATTR + ATTR_UID, at + ENTRY_ATTR + ATTR_GID);
  }

  #swap(bytes: Buffer, uidAt: number, gidAt: number): void {
    this.#swapUid(bytes, uidAt);
    this.#swapGid(bytes, gidAt);
  }

  #swapUid(bytes: Buffer, at: number): void {
    bytes.writeUInt32LE(swapped(bytes.readUInt32LE(at), this.#uids), at);
  }

  #swapGid(bytes: Buffer, at: number): void {
    bytes.writeUInt32LE(swapped(bytes.readUInt32LE(at), this.#gids), at);
  }
}

/** Each of the two for the other: so nobody becomes somebody who is there already. */
function swapped(id: number, [a, b]: readonly [number, number]): number {
  return id === a ? b : id === b ? a : id;
}
