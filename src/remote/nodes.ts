/** What the client remembers of the nodes that its kernel knows, and how their ids differ from the server's. */
import { ENTRY_OUT_BYTES, IN_HEADER_BYTES, NOTIFY_INVAL_INODE, OP } from '../fuse/index.ts';
import { read64, write64 } from './stream.ts';

/** Behind the answer to an OPEN (OPENED_BYTES of src/mount/remote-door.ts), and codes. */
export const NODE_AT = {
  SIZE: 0,
  MTIME: 8,
  MTIME_NSEC: 16,
  WHOLE: 20,
  CONTENT: 24,
  INVAL_INODE: NOTIFY_INVAL_INODE,
} as const;

/** In `struct fuse_attr`. */
const ATTR = { INO: 0, SIZE: 8, MTIME: 32, MTIME_NSEC: 52, MODE: 60 } as const;
const ENTRY_ATTR = 40;
/** Content that came with opens, of all files together. */
const CONTENT_BYTES_MAX = 64 * 1024 * 1024;

export interface NodeState {
  ino: bigint;
  isDirectory: boolean;
  lookups: number;
  /** Open files of it. */
  opens: number;
  size: number;
  mtimeSec: number;
  mtimeNsec: number;
  /** The whole file, while it is open and unchanged. */
  content: Buffer | null;
  /** False: it has no `security.capability`, and gets none unnoticed. */
  hasCapability: boolean | null;
}

export class Nodes {
  readonly #nodes = new Map<number, NodeState>();
  /** Names in the root that the kernel may remember, of files that are there and of such that are not. */
  readonly rootNames = new Set<string>();
  readonly #withContent = new Set<NodeState>();
  #contentBytes = 0;

  constructor() {
    this.restart();
  }

  get(id: number): NodeState | undefined {
    return this.#nodes.get(id);
  }

  ids(): Iterable<number> {
    return this.#nodes.keys();
  }

  /** An entry for the kernel, at this place of an answer. Its node. */
  entry(body: Buffer, at: number): number {
    const id = read64(body, at);
    if (id === 0) return 0;
    let node = this.#nodes.get(id);
    if (node === undefined) {
      const none = { ino: 0n, isDirectory: false, lookups: 0, opens: 0, size: 0, mtimeSec: 0, mtimeNsec: 0 };
      node = { ...none, content: null, hasCapability: null };
      this.#nodes.set(id, node);
    }
    node.lookups++;
    this.attributes(id, body, at + ENTRY_ATTR);
    return id;
  }

  attributes(id: number, body: Buffer, at: number): void {
    const node = this.#nodes.get(id);
    if (node === undefined || body.length < at + ATTR.MODE + 4) return;
    node.ino = body.readBigUInt64LE(at + ATTR.INO);
    node.size = read64(body, at + ATTR.SIZE);
    node.mtimeSec = read64(body, at + ATTR.MTIME);
    node.mtimeNsec = body.readUInt32LE(at + ATTR.MTIME_NSEC);
    node.isDirectory = (body.readUInt32LE(at + ATTR.MODE) & 0o170000) === 0o040000;
  }

  opened(id: number): void {
    const node = this.#nodes.get(id);
    if (node !== undefined) node.opens++;
  }

  /** It is new, and open. */
  created(id: number): void {
    this.opened(id);
    const node = this.#nodes.get(id);
    if (node !== undefined) node.hasCapability = false;
  }

  closed(id: number): void {
    const node = this.#nodes.get(id);
    if (node === undefined) return;
    node.opens = Math.max(0, node.opens - 1);
    if (node.opens === 0) this.setContent(node, null);
  }

  /** Its content is not what it was. */
  changed(id: number): void {
    const node = this.#nodes.get(id);
    if (node === undefined) return;
    this.setContent(node, null);
    node.mtimeSec = -1;
  }

  /** It may have extended attributes that it had not. */
  attributesChanged(id: number): void {
    const node = this.#nodes.get(id);
    if (node !== undefined) node.hasCapability = null;
  }

  setContent(node: NodeState, content: Buffer | null): void {
    this.#contentBytes += (content?.length ?? 0) - (node.content?.length ?? 0);
    node.content = content;
    this.#withContent.delete(node);
    if (content !== null) this.#withContent.add(node);
    for (const oldest of this.#withContent) {
      if (this.#contentBytes <= CONTENT_BYTES_MAX) break;
      this.setContent(oldest, null);
    }
  }

  forget(id: number, count: number): void {
    const node = this.#nodes.get(id);
    if (node === undefined || id === 1) return;
    node.lookups -= count;
    if (node.lookups > 0) return;
    this.setContent(node, null);
    this.#nodes.delete(id);
  }

  restart(): void {
    for (const node of this.#withContent) this.setContent(node, null);
    this.#nodes.clear();
    this.rootNames.clear();
    const root = { ino: 0n, isDirectory: true, lookups: 1, opens: 0, size: 0, mtimeSec: 0, mtimeNsec: 0 };
    this.#nodes.set(1, { ...root, content: null, hasCapability: null });
  }
}

/** Ids below this are the server's; the n-th session adds n times this, to nodes and to handles. The root is always 1. */
const SESSION = 2 ** 40;
const SESSIONS_MAX = 2 ** 12;

/** Bodies with a second node, and where; with a second handle, and where. */
const OTHER_NODE: Readonly<Record<number, number>> = {
  [OP.RENAME]: 0,
  [OP.RENAME2]: 0,
  [OP.LINK]: 0,
  [OP.COPY_FILE_RANGE]: 16,
  [OP.COPY_FILE_RANGE_64]: 16,
};
const OTHER_HANDLE: Readonly<Record<number, number>> = {
  [OP.COPY_FILE_RANGE]: 24,
  [OP.COPY_FILE_RANGE_64]: 24,
  [OP.GETATTR]: 8,
  [OP.SETATTR]: 8,
};
const ENTRY_ANSWERS: ReadonlySet<number> = new Set([OP.LOOKUP, OP.MKNOD, OP.MKDIR, OP.SYMLINK, OP.LINK]);

/** A server that was started anew counts from the beginning: each session's ids are moved to a range of their own. */
export class Ids {
  #session = 0;

  get #base(): number {
    return this.#session * SESSION;
  }

  restart(): void {
    this.#session = (this.#session + 1) % SESSIONS_MAX;
  }

  /** True for an id of an earlier session. */
  isOld(id: number): boolean {
    return id > 1 && Math.floor(id / SESSION) !== this.#session;
  }

  server(id: number): number {
    return id > 1 ? id - this.#base : id;
  }

  kernel(id: number): number {
    return id > 1 ? id + this.#base : id;
  }

  #move(bytes: Buffer, at: number, by: number, least: number): void {
    if (bytes.length < at + 8) return;
    const id = read64(bytes, at);
    if (id > least) write64(bytes, at, Math.max(0, id + by));
  }

  /** A request's ids, in place. */
  toServer(bytes: Buffer, opcode: number, onHandle: boolean): void {
    const by = -this.#base;
    if (by === 0) return;
    this.#move(bytes, 16, by, 1);
    const node = OTHER_NODE[opcode];
    if (node !== undefined) this.#move(bytes, IN_HEADER_BYTES + node, by, 1);
    if (onHandle) this.#move(bytes, IN_HEADER_BYTES, by, 0);
    const handle = OTHER_HANDLE[opcode];
    if (handle !== undefined) this.#move(bytes, IN_HEADER_BYTES + handle, by, 0);
  }

  /** A successful answer's ids, in place. */
  fromServer(body: Buffer, opcode: number): void {
    const by = this.#base;
    if (by === 0) return;
    if (ENTRY_ANSWERS.has(opcode)) this.#move(body, 0, by, 1);
    else if (opcode === OP.OPEN || opcode === OP.OPENDIR) this.#move(body, 0, by, 0);
    else if (opcode === OP.CREATE || opcode === OP.TMPFILE) {
      this.#move(body, 0, by, 1);
      this.#move(body, ENTRY_OUT_BYTES, by, 0);
    } else if (opcode === OP.READDIRPLUS)
      for (let at = 0; at + ENTRY_OUT_BYTES + 24 <= body.length; ) {
        this.#move(body, at, by, 1);
        at = (at + ENTRY_OUT_BYTES + 24 + body.readUInt32LE(at + ENTRY_OUT_BYTES + 16) + 7) & ~7;
      }
  }
}
