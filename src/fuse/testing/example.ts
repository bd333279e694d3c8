/**
 * A small file system over a directory, for tests and measurements: every operation of the protocol, no policy. Two
 * names are special: the OPEN of `parked` waits until it is interrupted or a message says `release`, and the
 * LOOKUP of `boom` throws.
 */
import type { PathString } from '../../base/bytes.ts';
import * as sys from '../../sys/index.ts';
import {
  type Attr,
  type Entry,
  FOPEN_PASSTHROUGH,
  type FuseApi,
  type Handlers,
  type Negotiated,
  type ReactorTimer,
  type Request,
  type SetattrArgs,
} from '../index.ts';

export interface ExampleOptions {
  readonly root: PathString;
  readonly passthrough: boolean;
  readonly validMs: number;
}

interface Node {
  readonly id: number;
  readonly key: string;
  /** O_PATH. */
  readonly fd: number;
  lookups: number;
  backingId: number;
  opens: number;
}

interface Handle {
  readonly node: Node;
  readonly fd: number;
  names?: { name: Buffer; ino: number | bigint; type: number }[];
}

const { EINTR, ENOENT } = sys;
const own = (node: Node) => `/proc/self/fd/${node.fd}`;

export class ExampleFs implements Handlers {
  readonly #api: FuseApi;
  readonly #options: ExampleOptions;
  readonly #nodes = new Map<number, Node>();
  readonly #byKey = new Map<string, Node>();
  readonly #handles = new Map<number, Handle>();
  readonly #parked = new Map<number, Request>();
  readonly #stat = new sys.StatBuf();
  readonly #statfs = new sys.StatfsBuf();
  #nextId = 2;
  #nextFh = 1;
  negotiated: Negotiated | null = null;
  /** Ticks of a timer that runs from INIT on. */
  ticks = 0;
  timer: ReactorTimer | null = null;

  constructor(api: FuseApi, options: ExampleOptions) {
    this.#api = api;
    this.#options = options;
    const fd = sys.openat(sys.AT_FDCWD, options.root, sys.O_PATH | sys.O_DIRECTORY | sys.O_CLOEXEC);
    sys.fstatx(fd, this.#stat);
    const node: Node = { id: 1, key: this.#key(), fd, lookups: 1, backingId: 0, opens: 0 };
    this.#nodes.set(1, node);
    this.#byKey.set(node.key, node);
  }

  init(negotiated: Negotiated): void {
    this.negotiated = negotiated;
  }

  /** Sets a timer that goes on for ever. */
  tick(everyMs: number): void {
    this.timer = this.#api.setTimer(everyMs, () => {
      this.ticks++;
      this.tick(everyMs);
    });
  }

  get nodeCount(): number {
    return this.#nodes.size;
  }

  get parkedCount(): number {
    return this.#parked.size;
  }

  /** Lets every parked OPEN through. */
  releaseParked(): void {
    for (const [unique, req] of this.#parked) {
      this.#parked.delete(unique);
      this.#open(req, sys.O_RDWR);
    }
  }

  invalidate(name: PathString): number {
    return this.#api.notifyInvalEntry(1, name);
  }

  #key(): string {
    return `${this.#stat.dev}:${this.#stat.ino}`;
  }

  #attr(): Attr {
    const { ino, size, blocks, atimeSec, atimeNsec, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec } = this.#stat;
    const { mode, nlink, uid, gid, rdev, blksize } = this.#stat;
    const times = { atimeSec, atimeNsec, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec };
    return { ino, size, blocks, ...times, mode, nlink, uid, gid, rdev, blksize };
  }

  #node(id: number): Node {
    const node = this.#nodes.get(id);
    if (node === undefined) throw new Error(`no node ${id}`);
    return node;
  }

  #handle(fh: number): Handle {
    const handle = this.#handles.get(fh);
    if (handle === undefined) throw new Error(`no handle ${fh}`);
    return handle;
  }

  /** The entry of a name, with one lookup more, or `-errno`. */
  #entry(parent: Node, name: PathString): Entry | number {
    const fd = sys.openat(parent.fd, name, sys.O_PATH | sys.O_NOFOLLOW | sys.O_CLOEXEC);
    if (fd < 0) return fd;
    sys.fstatx(fd, this.#stat);
    const key = this.#key();
    let node = this.#byKey.get(key);
    if (node === undefined) {
      node = { id: this.#nextId++, key, fd, lookups: 0, backingId: 0, opens: 0 };
      this.#nodes.set(node.id, node);
      this.#byKey.set(key, node);
    } else sys.close(fd);
    node.lookups++;
    const { validMs } = this.#options;
    return {
      nodeid: node.id,
      generation: 0,
      entryValidMs: validMs,
      attrValidMs: validMs,
      attr: this.#attr(),
    };
  }

  #replyEntry(req: Request, parent: Node, name: PathString): void {
    const entry = this.#entry(parent, name);
    if (typeof entry === 'number') this.#api.replyError(req, entry);
    else if (this.#api.replyEntry(req, entry) === -ENOENT) this.forget(entry.nodeid, 1);
  }

  #done(req: Request, code: number): void {
    if (code < 0) this.#api.replyError(req, code);
    else this.#api.replyOk(req);
  }

  /** Runs `make` as the caller, then answers with the entry of the new name. */
  #made(req: Request, name: PathString, make: (parent: Node) => number): void {
    const parent = this.#node(req.nodeid);
    sys.asUser(req.uid, req.gid);
    const code = make(parent);
    sys.asRoot();
    if (code < 0) this.#api.replyError(req, code);
    else this.#replyEntry(req, parent, name);
  }

  lookup(req: Request, name: PathString): void {
    if (name === 'boom') throw new Error('boom');
    this.#replyEntry(req, this.#node(req.nodeid), name);
  }

  forget(nodeid: number, nlookup: number): void {
    const node = this.#nodes.get(nodeid);
    if (node === undefined || nodeid === 1) return;
    node.lookups -= nlookup;
    if (node.lookups > 0) return;
    sys.close(node.fd);
    this.#nodes.delete(nodeid);
    this.#byKey.delete(node.key);
  }

  getattr(req: Request, fh: number | undefined): void {
    const code = sys.fstatx(fh === undefined ? this.#node(req.nodeid).fd : this.#handle(fh).fd, this.#stat);
    if (code < 0) this.#api.replyError(req, code);
    else this.#api.replyAttr(req, this.#attr(), this.#options.validMs);
  }

  statx(req: Request): void {
    sys.fstatx(this.#node(req.nodeid).fd, this.#stat);
    const { mask, btimeSec, btimeNsec } = this.#stat;
    const attrValidMs = this.#options.validMs;
    this.#api.replyStatx(req, { attrValidMs, mask: mask & 0xfff, attr: this.#attr(), btimeSec, btimeNsec });
  }

  setattr(req: Request, args: SetattrArgs): void {
    const node = this.#node(req.nodeid);
    let code = 0;
    if (args.mode !== undefined) code = sys.fchmodat(sys.AT_FDCWD, own(node), args.mode & 0o7777);
    if (code >= 0 && (args.uid !== undefined || args.gid !== undefined)) {
      code = sys.fchownat(node.fd, '', args.uid ?? -1, args.gid ?? -1, sys.AT_EMPTY_PATH);
    }
    if (code >= 0 && args.size !== undefined) code = this.#truncate(node, args.size);
    if (code >= 0 && (args.atime !== undefined || args.mtime !== undefined)) {
      const [atime, mtime] = [args.atime, args.mtime].map((time) =>
        time === undefined
          ? { sec: 0, nsec: sys.UTIME_OMIT }
          : time === 'now'
            ? { sec: 0, nsec: sys.UTIME_NOW }
            : time,
      );
      code = sys.utimensat(node.fd, '', atime!.sec, atime!.nsec, mtime!.sec, mtime!.nsec, sys.AT_EMPTY_PATH);
    }
    if (code < 0) this.#api.replyError(req, code);
    else this.getattr(req, undefined);
  }

  #truncate(node: Node, size: number): number {
    const fd = sys.openat(sys.AT_FDCWD, own(node), sys.O_WRONLY | sys.O_CLOEXEC);
    if (fd < 0) return fd;
    const code = sys.ftruncate(fd, size);
    sys.close(fd);
    return code;
  }

  readlink(req: Request): void {
    const target = sys.readlinkat(this.#node(req.nodeid).fd, '');
    if (typeof target === 'number') this.#api.replyError(req, target);
    else this.#api.replyData(req, target);
  }

  symlink(req: Request, name: PathString, target: Buffer): void {
    this.#made(req, name, (parent) => sys.symlinkat(target, parent.fd, name));
  }

  mknod(req: Request, name: PathString, mode: number, rdev: number, umask: number): void {
    this.#made(req, name, (parent) => sys.mknodat(parent.fd, name, mode & ~umask, rdev));
  }

  mkdir(req: Request, name: PathString, mode: number, umask: number): void {
    this.#made(req, name, (parent) => sys.mkdirat(parent.fd, name, mode & ~umask));
  }

  unlink(req: Request, name: PathString): void {
    this.#done(req, sys.unlinkat(this.#node(req.nodeid).fd, name, 0));
  }

  rmdir(req: Request, name: PathString): void {
    this.#done(req, sys.unlinkat(this.#node(req.nodeid).fd, name, sys.AT_REMOVEDIR));
  }

  rename(req: Request, name: PathString, newParent: number, newName: PathString, flags: number): void {
    this.#done(req, sys.renameat2(this.#node(req.nodeid).fd, name, this.#node(newParent).fd, newName, flags));
  }

  link(req: Request, oldNodeid: number, newName: PathString): void {
    const old = this.#node(oldNodeid);
    this.#made(req, newName, (parent) =>
      sys.linkat(sys.AT_FDCWD, own(old), parent.fd, newName, sys.AT_SYMLINK_FOLLOW),
    );
  }

  open(req: Request, flags: number): void {
    const target = sys.readlinkat(sys.AT_FDCWD, own(this.#node(req.nodeid)));
    if (typeof target !== 'number' && target.toString('latin1').endsWith('/parked'))
      this.#parked.set(req.unique, req);
    else this.#open(req, flags);
  }

  #open(req: Request, flags: number): void {
    const node = this.#node(req.nodeid);
    const kept = flags & (sys.O_ACCMODE | sys.O_TRUNC | sys.O_APPEND | sys.O_DIRECT);
    const fd = sys.openat(sys.AT_FDCWD, own(node), (kept & ~sys.O_APPEND) | sys.O_CLOEXEC);
    if (fd < 0) {
      this.#api.replyError(req, fd);
      return;
    }
    const open = this.#opened(node, fd);
    if (this.#api.replyOpen(req, open) === -ENOENT) this.#close(open.fh);
  }

  #opened(node: Node, fd: number): { fh: number; flags: number; backingId?: number } {
    const fh = this.#nextFh++;
    this.#handles.set(fh, { node, fd });
    node.opens++;
    if (!this.#options.passthrough) return { fh, flags: 0 };
    if (node.backingId === 0) {
      const id = this.#api.backingOpen(node.fd);
      if (id < 0) throw new Error(`BACKING_OPEN: ${sys.errnoName(id)}`);
      node.backingId = id;
    }
    return { fh, flags: FOPEN_PASSTHROUGH, backingId: node.backingId };
  }

  #close(fh: number): void {
    const { node, fd } = this.#handle(fh);
    this.#handles.delete(fh);
    sys.close(fd);
    if (--node.opens > 0 || node.backingId === 0) return;
    this.#api.backingClose(node.backingId);
    node.backingId = 0;
  }

  create(req: Request, name: PathString, flags: number, mode: number, umask: number): void {
    const parent = this.#node(req.nodeid);
    sys.asUser(req.uid, req.gid);
    const kept = flags & (sys.O_ACCMODE | sys.O_TRUNC | sys.O_EXCL);
    const fd = sys.openat(
      parent.fd,
      name,
      kept | sys.O_CREAT | sys.O_NOFOLLOW | sys.O_CLOEXEC,
      mode & ~umask & 0o7777,
    );
    sys.asRoot();
    const entry = fd < 0 ? fd : this.#entry(parent, name);
    if (typeof entry === 'number') {
      if (fd >= 0) sys.close(fd);
      this.#api.replyError(req, entry);
      return;
    }
    const open = this.#opened(this.#node(entry.nodeid), fd);
    if (this.#api.replyCreate(req, entry, open) !== -ENOENT) return;
    this.#close(open.fh);
    this.forget(entry.nodeid, 1);
  }

  read(req: Request, fh: number, offset: number, size: number): void {
    const place = this.#api.dataBuffer(size);
    const code = sys.pread(this.#handle(fh).fd, place, offset);
    if (code < 0) this.#api.replyError(req, code);
    else this.#api.replyData(req, place.subarray(0, code));
  }

  write(req: Request, fh: number, offset: number, data: Buffer): void {
    const code = sys.pwrite(this.#handle(fh).fd, data, offset);
    if (code < 0) this.#api.replyError(req, code);
    else this.#api.replyWrite(req, code);
  }

  flush(req: Request): void {
    this.#api.replyOk(req);
  }

  release(req: Request, fh: number): void {
    this.#close(fh);
    this.#api.replyOk(req);
  }

  fsync(req: Request, fh: number, datasync: boolean): void {
    const { fd } = this.#handle(fh);
    this.#done(req, datasync ? sys.fdatasync(fd) : sys.fsync(fd));
  }

  opendir(req: Request): void {
    const node = this.#node(req.nodeid);
    const fd = sys.openat(node.fd, '.', sys.O_RDONLY | sys.O_DIRECTORY | sys.O_CLOEXEC);
    if (fd < 0) {
      this.#api.replyError(req, fd);
      return;
    }
    const names: Handle['names'] = [];
    const reader = new sys.DirentReader();
    while (reader.fill(fd) > 0) {
      while (reader.next())
        names.push({ name: Buffer.from(reader.nameBytes), ino: reader.ino, type: reader.type });
    }
    const fh = this.#nextFh++;
    this.#handles.set(fh, { node, fd, names });
    this.#api.replyOpen(req, { fh, flags: 0 });
  }

  readdir(req: Request, fh: number, offset: number, size: number): void {
    this.#list(req, fh, offset, size, false);
  }

  readdirplus(req: Request, fh: number, offset: number, size: number): void {
    this.#list(req, fh, offset, size, true);
  }

  #list(req: Request, fh: number, offset: number, size: number, plus: boolean): void {
    const { node, names } = this.#handle(fh);
    const writer = this.#api.dirents(size, plus);
    for (let at = offset; at < names!.length; at++) {
      const { name, ino, type } = names![at]!;
      const text = name.toString('latin1');
      const entry = plus && text !== '.' && text !== '..' ? this.#entry(node, text) : null;
      const found = typeof entry === 'number' ? null : entry;
      if (writer.addPlus(name, ino, type, at + 1, found)) continue;
      if (found !== null) this.forget(found.nodeid, 1);
      break;
    }
    writer.send(req);
  }

  releasedir(req: Request, fh: number): void {
    sys.close(this.#handle(fh).fd);
    this.#handles.delete(fh);
    this.#api.replyOk(req);
  }

  fsyncdir(req: Request): void {
    this.#api.replyOk(req);
  }

  statfs(req: Request): void {
    sys.fstatfs(this.#node(1).fd, this.#statfs);
    this.#api.replyStatfs(req, this.#statfs);
  }

  setxattr(req: Request, name: PathString, value: Buffer, flags: number): void {
    this.#done(req, sys.setxattr(own(this.#node(req.nodeid)), name, value, flags));
  }

  getxattr(req: Request, name: PathString, size: number): void {
    const place = this.#api.dataBuffer(size);
    this.#xattr(req, sys.getxattr(own(this.#node(req.nodeid)), name, place), place);
  }

  listxattr(req: Request, size: number): void {
    const place = this.#api.dataBuffer(size);
    this.#xattr(req, sys.listxattr(own(this.#node(req.nodeid)), place), place);
  }

  #xattr(req: Request, code: number, place: Buffer): void {
    if (code < 0) this.#api.replyError(req, code);
    else if (place.length === 0) this.#api.replyXattrSize(req, code);
    else this.#api.replyData(req, place.subarray(0, code));
  }

  removexattr(req: Request, name: PathString): void {
    this.#done(req, sys.removexattr(own(this.#node(req.nodeid)), name));
  }

  fallocate(req: Request, fh: number, offset: number, length: number, mode: number): void {
    this.#done(req, sys.fallocate(this.#handle(fh).fd, mode, offset, length));
  }

  lseek(req: Request, fh: number, offset: number, whence: number): void {
    const code = sys.lseek(this.#handle(fh).fd, offset, whence);
    if (code < 0) this.#api.replyError(req, code);
    else this.#api.replyLseek(req, code);
  }

  copyFileRange(
    req: Request,
    fhIn: number,
    offIn: number,
    _out: number,
    fhOut: number,
    offOut: number,
    length: number,
  ): void {
    const code = sys.copyFileRange(this.#handle(fhIn).fd, offIn, this.#handle(fhOut).fd, offOut, length);
    if (code < 0) this.#api.replyError(req, code);
    else this.#api.replyWrite(req, code);
  }

  interrupt(unique: number): void {
    const req = this.#parked.get(unique);
    if (req === undefined) return;
    this.#parked.delete(unique);
    this.#api.replyError(req, EINTR);
  }
}
