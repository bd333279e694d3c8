/**
 * One client: requests come in as bytes, answers go out as packets. It knows nothing of sockets. Reads and writes are carried out in
 * the order in which they come; what waits (an open for its lock, fsync) is answered when it is done, and nothing waits behind it.
 */
import { encodePath } from '../base/bytes.ts';
import * as sys from '../sys/index.ts';
import type { Actor, Caller } from '../view/actors.ts';
import type { Handle } from '../view/handle.ts';
import type { Node } from '../view/node.ts';
import * as ops from '../view/ops.ts';
import { scratch } from '../view/scratch.ts';
import { isEmpty, readAttributes, writeAttributes } from './attributes.ts';
import { Changes } from './changes.ts';
import { Listing } from './listing.ts';
import { Opens } from './opens.ts';
import { Answer, Fields, Framer, MalformedPacket, ProtocolError } from './packets.ts';
import { EXTENSIONS, FX, FXF, FXP, SFTP_LIMITS, type Status, VERSION } from './protocol.ts';
import { callerOf, type Shared, whyOf } from './shared.ts';
import { type VirtualFile, virtualOf, writeVirtualAttributes } from './virtual.ts';
import type { Place } from './walk.ts';

export interface Transport {
  send(packet: Buffer): void;
  /** Bytes that were sent and not taken yet. */
  readonly queuedBytes: number;
}

interface OpenFile {
  readonly kind: 'file';
  readonly handle: Handle;
  readonly caller: Caller;
  readonly append: boolean;
  /** fsyncs under way: its descriptor must stay. */
  busy: number;
  onIdle: (() => void) | null;
}
interface OpenDirectory {
  readonly kind: 'directory';
  readonly listing: Listing;
}
interface OpenText {
  readonly kind: 'text';
  readonly bytes: Buffer;
}
type Opened = OpenFile | OpenDirectory | OpenText;

type Method = (id: number, fields: Fields) => void;

const WORDS: Readonly<Record<number, string>> = {
  [FX.OK]: 'Success',
  [FX.EOF]: 'End of file',
  [FX.NO_SUCH_FILE]: 'No such file',
  [FX.PERMISSION_DENIED]: 'Permission denied',
  [FX.FAILURE]: 'Failure',
  [FX.BAD_MESSAGE]: 'Bad message',
  [FX.OP_UNSUPPORTED]: 'Operation unsupported',
};
const REFUSALS_KEPT = 20;

/** SSH_FX_* of an errno; version 3 knows few. */
export function statusOf(errno: number): Status {
  switch (errno) {
    case 0:
      return FX.OK;
    case sys.ENOENT:
    case sys.ENOTDIR:
    case sys.ELOOP:
      return FX.NO_SUCH_FILE;
    case sys.EACCES:
    case sys.EPERM:
    case sys.EROFS:
      return FX.PERMISSION_DENIED;
    case sys.EINVAL:
    case sys.ENAMETOOLONG:
      return FX.BAD_MESSAGE;
    case sys.ENOSYS:
    case sys.EOPNOTSUPP:
      return FX.OP_UNSUPPORTED;
    default:
      return FX.FAILURE;
  }
}

export class Connection {
  /** `sftp:N`: owner of what is done by path, and of each file with its number behind it. */
  readonly name: string;
  readonly #shared: Shared;
  readonly #transport: Transport;
  readonly #who: Actor['who'];
  readonly #caller: Caller;
  readonly #framer = new Framer();
  readonly #handles = new Map<number, Opened>();
  readonly #changes: Changes;
  readonly #opens: Opens;
  readonly #refusals: string[] = [];
  #nextHandle = 1;
  #started = false;
  #closed = false;
  /** Requests without an answer. */
  #open = 0;
  #pumping = false;

  constructor(shared: Shared, number: number, who: Actor['who'], transport: Transport) {
    this.#shared = shared;
    this.#transport = transport;
    this.#who = who;
    this.name = `sftp:${number}`;
    const tid = shared.actors.add({ owner: this.name, pid: 0, who });
    this.#caller = callerOf(shared, tid);
    const own = (handle: Handle) => handle.owner.startsWith(`${this.name}:`);
    const hasOpen = () => [...this.#handles.values()].some((opened) => opened.kind === 'file');
    this.#changes = new Changes(shared.view, this.#caller, own, hasOpen);
    this.#opens = new Opens(shared, this.#changes);
  }

  get openFiles(): number {
    return this.#handles.size;
  }

  get parked(): number {
    return this.#opens.parked;
  }

  /** True: read no more until `onReady` is called. */
  get isFull(): boolean {
    return this.#open >= SFTP_LIMITS.requests || this.#transport.queuedBytes > SFTP_LIMITS.outboxBytes;
  }

  /** Called when it takes requests again after it was full. */
  onReady: () => void = () => {};

  /** Bytes from the client. Throws ProtocolError: the connection is to be ended. */
  feed(chunk: Buffer): void {
    this.#framer.push(chunk);
    this.pump();
  }

  /** Takes the requests that are there, as long as it is not full. Throws ProtocolError. */
  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (!this.#closed && !this.isFull) {
        const packet = this.#framer.next();
        if (packet === null) return;
        this.#packet(packet);
      }
    } finally {
      this.#pumping = false;
    }
  }

  /** The broker says that this open has to wait. False: it is none of this connection's. */
  queued(tid: number): boolean {
    return this.#opens.queued(tid);
  }

  /** The client is gone: its waits end, and its files are closed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#opens.close();
    this.#changes.close();
    for (const opened of this.#handles.values()) this.#closeOpened(opened, () => {});
    this.#handles.clear();
    this.#shared.actors.remove(this.#caller.tid);
  }

  // ------------------------------------------------------------ requests and answers

  #packet(packet: Buffer): void {
    const type = packet[0]!;
    const fields = new Fields(packet, 1);
    if (!this.#started || type === FXP.INIT) {
      if (type !== FXP.INIT || this.#started || fields.left < 4)
        throw new ProtocolError('the first packet, and only that, is SSH_FXP_INIT');
      this.#started = true;
      const answer = new Answer(FXP.VERSION, 256).u32(VERSION);
      for (const [name, data] of EXTENSIONS) answer.bytes(name).bytes(data);
      this.#transport.send(answer.finish());
      return;
    }
    if (fields.left < 4) throw new ProtocolError('a request without a number');
    const id = fields.u32();
    this.#open++;
    try {
      const method = this.#methods[type];
      if (method === undefined) this.#status(id, FX.OP_UNSUPPORTED);
      else method(id, fields);
    } catch (error) {
      if (!(error instanceof MalformedPacket)) throw error;
      this.#status(id, FX.BAD_MESSAGE, error.message);
    }
  }

  #send(answer: Answer): void {
    if (this.#closed) return;
    const wasFull = this.isFull;
    this.#open--;
    this.#transport.send(answer.finish());
    if (wasFull && !this.isFull && !this.#pumping) this.onReady();
  }

  #status(id: number, status: Status, message = ''): void {
    const words = message === '' ? (WORDS[status] ?? 'Failure') : message;
    const bytes = encodePath(words);
    this.#send(new Answer(FXP.STATUS, 32 + bytes.length).u32(id).u32(status).bytes(bytes).bytes('en'));
  }

  /** 0 or -errno, with words of its own for a refusal. */
  #result(id: number, error: number, message = ''): void {
    if (error >= 0) return this.#status(id, FX.OK);
    const status = statusOf(-error);
    if (message === '') return this.#status(id, status, status === FX.FAILURE ? sys.errnoName(-error) : '');
    this.#refused(message);
    this.#status(id, FX.FAILURE, message);
  }

  #refused(message: string): void {
    this.#refusals.push(message);
    if (this.#refusals.length > REFUSALS_KEPT) this.#refusals.shift();
  }

  /** The place that a path leads to; undefined: answered already. */
  #place(id: number, path: Buffer, follow: boolean): Place | undefined {
    const place = this.#shared.walker.walk(path, follow);
    if (typeof place !== 'number') return place;
    this.#result(id, place);
    return undefined;
  }

  /** Runs `use` with the node that a path leads to. */
  #withNode(id: number, path: Buffer, follow: boolean, use: (node: Node) => void): void {
    const place = this.#place(id, path, follow);
    if (place === undefined) return;
    if (place.node === null) this.#result(id, -sys.ENOENT);
    else use(place.node);
    this.#shared.walker.done(place);
  }

  /** Runs `use` with the directory and the name that a change is about. */
  #withName(id: number, path: Buffer, use: (place: Place) => void): void {
    const place = this.#place(id, path, false);
    if (place === undefined) return;
    // The root, and what ends in a dot, has no name that could change.
    if (place.name === '') this.#result(id, -sys.EBUSY);
    else use(place);
    this.#shared.walker.done(place);
  }

  #handleOf(fields: Fields): number {
    const bytes = fields.bytes();
    return bytes.length === 4 ? bytes.readUInt32BE(0) : 0;
  }

  /** The open file of a request; undefined: answered already. */
  #file(id: number, fields: Fields): OpenFile | undefined {
    const opened = this.#handles.get(this.#handleOf(fields));
    if (opened?.kind !== 'file') this.#status(id, FX.FAILURE, 'no such open file');
    else if (this.#shared.view.isLost(opened.handle))
      this.#status(id, FX.FAILURE, 'its lock was lost: open the file again');
    else return opened;
    return undefined;
  }

  // ------------------------------------------------------------ methods

  readonly #methods: Readonly<Record<number, Method>> = {
    [FXP.OPEN]: (id, fields) => this.#openFile(id, fields),
    [FXP.CLOSE]: (id, fields) => this.#close(id, fields),
    [FXP.READ]: (id, fields) => this.#read(id, fields),
    [FXP.WRITE]: (id, fields) => this.#write(id, fields),
    [FXP.LSTAT]: (id, fields) => this.#stat(id, fields.path(), false),
    [FXP.STAT]: (id, fields) => this.#stat(id, fields.path(), true),
    [FXP.FSTAT]: (id, fields) => this.#fstat(id, fields),
    [FXP.SETSTAT]: (id, fields) => this.#setstat(id, fields, true),
    [FXP.FSETSTAT]: (id, fields) => this.#fsetstat(id, fields),
    [FXP.OPENDIR]: (id, fields) => this.#openDirectory(id, fields.path()),
    [FXP.READDIR]: (id, fields) => this.#readDirectory(id, fields),
    [FXP.REMOVE]: (id, fields) => this.#remove(id, fields.path()),
    [FXP.MKDIR]: (id, fields) => this.#mkdir(id, fields),
    [FXP.RMDIR]: (id, fields) =>
      this.#withName(id, fields.path(), ({ parent, name }) =>
        this.#changes.rmdir(parent, name, (error, message) => this.#result(id, error, message)),
      ),
    [FXP.REALPATH]: (id, fields) => this.#realpath(id, fields.path()),
    [FXP.RENAME]: (id, fields) => this.#rename(id, fields.path(), fields.path(), sys.RENAME_NOREPLACE),
    [FXP.READLINK]: (id, fields) => this.#readlink(id, fields.path()),
    // OpenSSH's order: first what the link holds, then its name.
    [FXP.SYMLINK]: (id, fields) => this.#symlink(id, fields.path(), fields.path()),
    [FXP.EXTENDED]: (id, fields) => {
      const method = this.#extensions[fields.text()];
      if (method === undefined) this.#status(id, FX.OP_UNSUPPORTED);
      else method(id, fields);
    },
  };

  readonly #extensions: Readonly<Record<string, Method>> = {
    // Looked up by names that a client sends: nothing inherited may be found.
    __proto__: null as never,
    'posix-rename@openssh.com': (id, fields) => this.#rename(id, fields.path(), fields.path(), 0),
    'hardlink@openssh.com': (id, fields) => this.#link(id, fields.path(), fields.path()),
    'fsync@openssh.com': (id, fields) => this.#fsync(id, fields),
    'lsetstat@openssh.com': (id, fields) => this.#setstat(id, fields, false),
    'statvfs@openssh.com': (id, fields) =>
      this.#withNode(id, fields.path(), true, (node) => this.#statvfs(id, this.#shared.view.tree.fd(node))),
    'fstatvfs@openssh.com': (id, fields) => {
      const file = this.#file(id, fields);
      if (file !== undefined) this.#statvfs(id, file.handle.fd);
    },
    'limits@openssh.com': (id) => {
      const { packetBytes, dataBytes, handles } = SFTP_LIMITS;
      const answer = new Answer(FXP.EXTENDED_REPLY).u32(id);
      this.#send(answer.u64(packetBytes).u64(dataBytes).u64(dataBytes).u64(handles));
    },
  };

  // ------------------------------------------------------------ open files

  #openFile(id: number, fields: Fields): void {
    const path = Buffer.from(fields.path());
    const wanted = fields.u32();
    const attributes = readAttributes(fields);
    if (this.#handles.size + this.#opens.size >= SFTP_LIMITS.handles)
      return this.#status(id, FX.FAILURE, `${SFTP_LIMITS.handles} files are open on this connection already`);
    const virtual = virtualOf(path);
    if (virtual !== undefined) return this.#openVirtual(id, virtual, wanted);
    const writes = (wanted & (FXF.WRITE | FXF.APPEND)) !== 0;
    const access = !writes ? sys.O_RDONLY : (wanted & FXF.READ) !== 0 ? sys.O_RDWR : sys.O_WRONLY;
    const flags =
      access |
      ((wanted & FXF.CREAT) !== 0 ? sys.O_CREAT : 0) |
      ((wanted & FXF.EXCL) !== 0 ? sys.O_EXCL : 0) |
      ((wanted & FXF.TRUNC) !== 0 ? sys.O_TRUNC : 0) |
      ((wanted & FXF.APPEND) !== 0 ? sys.O_APPEND : 0);
    const number = this.#nextHandle++;
    const actor: Actor = { owner: `${this.name}:${number}`, pid: 0, who: this.#who };
    const append = (wanted & FXF.APPEND) !== 0;
    this.#opens.start(
      { path, key: path.toString('latin1'), flags, mode: attributes.mode, actor },
      (result, message, caller) => {
        if (typeof result === 'number') {
          const why = message || whyOf(this.#shared.view, actor.owner);
          return this.#result(id, result, why);
        }
        this.#handles.set(number, { kind: 'file', handle: result, caller, append, busy: 0, onIdle: null });
        this.#sendHandle(id, number);
      },
    );
  }

  #sendHandle(id: number, number: number): void {
    this.#send(new Answer(FXP.HANDLE).u32(id).u32(4).u32(number));
  }

  #add(id: number, opened: Opened): void {
    const number = this.#nextHandle++;
    this.#handles.set(number, opened);
    this.#sendHandle(id, number);
  }

  #openVirtual(id: number, file: VirtualFile, wanted: number): void {
    if (file === 'directory') return this.#result(id, -sys.EISDIR);
    if ((wanted & ~FXF.READ) !== 0) return this.#result(id, -sys.EACCES);
    const text = (bytes: string) => this.#add(id, { kind: 'text', bytes: Buffer.from(bytes) });
    if (file === 'about') text(this.#shared.about);
    else if (file === 'why')
      text(this.#refusals.map((line) => `${line}\n`).join('') || 'Nothing was refused to you.\n');
    else this.#shared.who((words) => !this.#closed && text(words));
  }

  #close(id: number, fields: Fields): void {
    const number = this.#handleOf(fields);
    const opened = this.#handles.get(number);
    if (opened === undefined) return this.#status(id, FX.FAILURE, 'no such open file');
    this.#handles.delete(number);
    this.#closeOpened(opened, () => this.#status(id, FX.OK));
  }

  #closeOpened(opened: Opened, done: () => void): void {
    if (opened.kind === 'directory') opened.listing.close();
    if (opened.kind !== 'file') return done();
    const close = () => {
      this.#shared.view.close(opened.handle);
      this.#shared.actors.remove(opened.caller.tid);
      done();
    };
    if (opened.busy > 0) opened.onIdle = close;
    else close();
  }

  #read(id: number, fields: Fields): void {
    const number = this.#handleOf(fields);
    const opened = this.#handles.get(number);
    const offset = fields.u64();
    const length = Math.min(fields.u32(), SFTP_LIMITS.dataBytes);
    if (opened?.kind === 'text') {
      const part = opened.bytes.subarray(offset, offset + length);
      if (part.length === 0) return this.#status(id, FX.EOF);
      return this.#send(new Answer(FXP.DATA, 16 + part.length).u32(id).bytes(part));
    }
    if (opened?.kind !== 'file') return this.#status(id, FX.FAILURE, 'no such open file');
    if (this.#shared.view.isLost(opened.handle))
      return this.#status(id, FX.FAILURE, 'its lock was lost: open the file again');
    const answer = new Answer(FXP.DATA, 16 + length).u32(id).u32(0);
    const got = sys.pread(opened.handle.fd, answer.space(length), offset);
    if (got < 0) return this.#result(id, got);
    if (got === 0 && length > 0) return this.#status(id, FX.EOF);
    this.#send(answer.filled(got));
  }

  #write(id: number, fields: Fields): void {
    const file = this.#file(id, fields);
    if (file === undefined) return;
    const { handle, append } = file;
    let offset = fields.u64();
    const data = fields.bytes();
    if (append) {
      const error = sys.fstatx(handle.fd, scratch);
      if (error < 0) return this.#result(id, error);
      offset = scratch.size;
    }
    for (let at = 0; at < data.length; ) {
      const put = sys.pwrite(handle.fd, data.subarray(at), offset + at);
      if (put < 0) return this.#result(id, put);
      at += put;
    }
    this.#status(id, FX.OK);
  }

  #fsync(id: number, fields: Fields): void {
    const file = this.#file(id, fields);
    if (file === undefined) return;
    file.busy++;
    this.#shared.sync(file.handle.fd, (error) => {
      this.#result(id, error);
      if (--file.busy > 0) return;
      const idle = file.onIdle;
      file.onIdle = null;
      idle?.();
    });
  }

  // ------------------------------------------------------------ attributes

  #sendAttributes(id: number): void {
    this.#send(writeAttributes(new Answer(FXP.ATTRS).u32(id), scratch));
  }

  #stat(id: number, bytes: Buffer, follow: boolean): void {
    const virtual = virtualOf(bytes);
    if (virtual !== undefined)
      return this.#send(
        writeVirtualAttributes(new Answer(FXP.ATTRS).u32(id), virtual, this.#shared.wallMs()),
      );
    const path = Buffer.from(bytes);
    const run = () => this.#withNode(id, path, follow, () => this.#sendAttributes(id));
    if (!this.#opens.follows(path.toString('latin1'), run)) run();
  }

  #fstat(id: number, fields: Fields): void {
    const opened = this.#handles.get(this.#handleOf(fields));
    if (opened?.kind === 'text')
      return this.#send(
        writeVirtualAttributes(new Answer(FXP.ATTRS).u32(id), 'about', this.#shared.wallMs()),
      );
    const fd =
      opened?.kind === 'file' ? opened.handle.fd : opened?.kind === 'directory' ? opened.listing.fd : -1;
    if (fd < 0) return this.#status(id, FX.FAILURE, 'no such open file');
    const error = sys.fstatx(fd, scratch);
    if (error < 0) this.#result(id, error);
    else this.#sendAttributes(id);
  }

  #setstat(id: number, fields: Fields, follow: boolean): void {
    const path = fields.path();
    const attributes = readAttributes(fields);
    this.#withNode(id, path, follow, (node) => {
      if (isEmpty(attributes)) return this.#status(id, FX.OK);
      this.#changes.setattr(node, attributes, (error, message) => this.#result(id, error, message));
    });
  }

  #fsetstat(id: number, fields: Fields): void {
    const file = this.#file(id, fields);
    if (file === undefined) return;
    const attributes = readAttributes(fields);
    if (isEmpty(attributes)) return this.#status(id, FX.OK);
    const { handle, caller } = file;
    this.#result(id, ops.setattr(this.#shared.view, caller, handle.node, attributes, handle.fd));
  }

  #statvfs(id: number, fd: number): void {
    const of = new sys.StatfsBuf();
    const error = fd < 0 ? fd : sys.fstatfs(fd, of);
    if (error < 0) return this.#result(id, error);
    const answer = new Answer(FXP.EXTENDED_REPLY, 128).u32(id);
    answer.u64(of.bsize).u64(of.frsize).u64(of.blocks).u64(of.bfree).u64(of.bavail);
    answer.u64(of.files).u64(of.ffree).u64(of.ffree);
    // f_fsid; then ST_RDONLY and ST_NOSUID, which are 1 and 2 everywhere.
    this.#send(
      answer
        .u64(0)
        .u64(of.flags & 3)
        .u64(of.namelen),
    );
  }

  // ------------------------------------------------------------ directories and names

  #openDirectory(id: number, path: Buffer): void {
    if (this.#handles.size + this.#opens.size >= SFTP_LIMITS.handles)
      return this.#status(id, FX.FAILURE, `${SFTP_LIMITS.handles} files are open on this connection already`);
    if (virtualOf(path) === 'directory')
      return this.#add(id, { kind: 'directory', listing: Listing.virtual() });
    this.#withNode(id, path, true, (node) => {
      if (!node.isDirectory) return this.#result(id, -sys.ENOTDIR);
      const { view } = this.#shared;
      const fd = view.reopen(node, sys.O_RDONLY | sys.O_DIRECTORY);
      if (fd < 0) return this.#result(id, fd);
      this.#add(id, { kind: 'directory', listing: new Listing(fd, node === view.tree.root) });
    });
  }

  #readDirectory(id: number, fields: Fields): void {
    const opened = this.#handles.get(this.#handleOf(fields));
    if (opened?.kind !== 'directory') return this.#status(id, FX.FAILURE, 'no such open directory');
    const answer = new Answer(FXP.NAME, SFTP_LIMITS.listingBytes + 1024).u32(id);
    const count = opened.listing.write(answer, SFTP_LIMITS.listingBytes, this.#shared.wallMs());
    if (count < 0) this.#result(id, count);
    else if (count === 0) this.#status(id, FX.EOF);
    else this.#send(answer);
  }

  #remove(id: number, path: Buffer): void {
    this.#withName(id, path, ({ parent, name, node }) => {
      if (node?.isDirectory) return this.#result(id, -sys.EISDIR);
      this.#changes.unlink(parent, name, (error, message) => this.#result(id, error, message));
    });
  }

  #mkdir(id: number, fields: Fields): void {
    const path = fields.path();
    const { mode } = readAttributes(fields);
    this.#withName(id, path, ({ parent, name }) => {
      const { view, umask } = this.#shared;
      const run = () => ops.mkdir(view, this.#caller, parent, name, mode ?? 0o777, umask);
      this.#changes.make({ op: 'mkdir', parent, name }, run, (error, message) =>
        this.#result(id, error, message),
      );
    });
  }

  #symlink(id: number, target: Buffer, path: Buffer): void {
    const copy = Buffer.from(target);
    this.#withName(id, path, ({ parent, name }) => {
      const run = () => ops.symlink(this.#shared.view, this.#caller, parent, name, copy);
      this.#changes.make({ op: 'symlink', parent, name }, run, (error, message) =>
        this.#result(id, error, message),
      );
    });
  }

  #rename(id: number, from: Buffer, to: Buffer, flags: number): void {
    this.#withName(id, from, ({ parent, name, node }) => {
      if (node === null) return this.#result(id, -sys.ENOENT);
      this.#withName(id, to, (target) => {
        const op = {
          op: 'rename',
          parent,
          name,
          newParent: target.parent,
          newName: target.name,
          flags,
        } as const;
        this.#changes.rename(op, (error, message) => this.#result(id, error, message));
      });
    });
  }

  #link(id: number, from: Buffer, to: Buffer): void {
    this.#withNode(id, from, false, (node) => {
      if (node.isDirectory) return this.#result(id, -sys.EPERM);
      this.#withName(id, to, ({ parent, name }) =>
        this.#changes.link(node, parent, name, (error, message) => this.#result(id, error, message)),
      );
    });
  }

  #readlink(id: number, path: Buffer): void {
    this.#withNode(id, path, false, (node) => {
      const fd = node.isSymlink ? this.#shared.view.tree.fd(node) : -sys.EINVAL;
      const target = fd < 0 ? fd : sys.readlinkat(fd, '');
      if (typeof target === 'number') this.#result(id, target);
      else this.#sendName(id, target);
    });
  }

  #realpath(id: number, path: Buffer): void {
    const virtual = virtualOf(path);
    if (virtual !== undefined)
      return this.#sendName(id, Buffer.from(virtual === 'directory' ? '/.gate' : `/.gate/${virtual}`));
    const place = this.#place(id, path, true);
    if (place === undefined) return;
    this.#shared.walker.done(place);
    this.#sendName(id, encodePath(`/${place.path.join('/')}`));
  }

  /** One name, with no attributes worth anything. */
  #sendName(id: number, name: Buffer): void {
    const answer = new Answer(FXP.NAME, 32 + 2 * name.length).u32(id).u32(1);
    this.#send(answer.bytes(name).bytes(name).u32(0));
  }
}
