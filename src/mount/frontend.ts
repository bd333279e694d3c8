/**
 * The view over FUSE: one method an opcode. Everything is answered at once, except two requests that may be parked
 * because the kernel holds no lock for them: OPEN, and the GETATTR of a replay (replay.ts).
 *
 * FLUSH is not answered here: ENOSYS spares every close a request, and the kernel writes dirty mappings out at close all the same.
 *
 * Never done here: a synchronous call into the mount itself, a look at /proc that can block (prober.ts), a wait for
 * the broker under a kernel lock.
 */
import type { PathString } from '../base/bytes.ts';
import { FUSE_OPEN_KILL_SUIDGID, FUSE_WRITE_KILL_SUIDGID } from '../fuse/abi.ts';
import type { FuseApi, Handlers, Request, SetattrArgs } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';
import type { Actor } from '../view/actors.ts';
import type { Handle } from '../view/handle.ts';
import type { Grant } from '../view/locks.ts';
import type { Node } from '../view/node.ts';
import { type Opening, opensForWriting } from '../view/opening.ts';
import * as ops from '../view/ops.ts';
import { scratch } from '../view/scratch.ts';
import type { View } from '../view/view.ts';
import { Answers } from './answers.ts';
import { Backing, CACHED, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE } from './backing.ts';
import { Directories } from './directories.ts';
import type { Door, Doors, RemoteKernel } from './doors.ts';
import { keepsPages } from './pages.ts';
import { hasInode, wantsToStop } from './proc.ts';
import { callerOf, Replays, type Run } from './replay.ts';
import { OUTSIDE_MS, type Validity } from './validity.ts';
import { VIRTUAL_DIRECTORY, type VirtualFile, type VirtualFiles } from './virtual.ts';
import type { Watch } from './watch.ts';
import * as xattrs from './xattrs.ts';

/** How often an interrupted wait looks again whether its caller really wants to stop. */
const INTERRUPT_LOOK_MS = 100;
/** One copy_file_range is cut to this, so that it does not hold up everybody; the caller goes on (copy_file_range(2)). */
const COPY_BYTES_MAX = 8 * 1024 * 1024;

export interface FrontendParts {
  readonly view: View;
  readonly api: FuseApi;
  readonly validity: Validity;
  /** Null: changes beside the view are not followed. */
  readonly watch: Watch | null;
  readonly passthrough: boolean;
  /** All front ends of the view. */
  readonly doors: Doors;
  /** Null: the kernel that is served is this machine's. */
  readonly remote: RemoteKernel | null;
  readonly virtual: VirtualFiles;
  /** `user.gate` of the root. */
  readonly about: string;
  /** Has the kernel forget a name, from where that may wait. */
  readonly forgetName: (parent: number, name: PathString) => void;
  readonly forgetPages: (node: number) => void;
  readonly wallMs: () => number;
  /** Runs a slow call elsewhere. */
  readonly slow: (call: 'fsync' | 'fdatasync' | 'syncfs', fd: number, done: (result: number) => void) => void;
  readonly who: (done: (text: string) => void) => void;
}

export class Frontend implements Handlers, Door {
  readonly #view: View;
  readonly #api: FuseApi;
  readonly #parts: FrontendParts;
  readonly #replays: Replays;
  readonly #backing: Backing | null;
  readonly #virtual: VirtualFiles;
  readonly #openings = new Map<number, { req: Request; opening: Opening }>();
  readonly #answers: Answers;
  readonly #directories: Directories;
  readonly #statfs = new sys.StatfsBuf();
  /** Process id of the waker (wake.ts); 0: there is none. */
  waker = 0;

  constructor(parts: FrontendParts) {
    this.#parts = parts;
    this.#view = parts.view;
    this.#api = parts.api;
    this.#virtual = parts.virtual;
    this.#backing = parts.remote === null ? new Backing(parts.view, parts.api, parts.passthrough) : null;
    const isWrittenUnseen = (node: Node) => this.#isWrittenUnseen(node);
    this.#answers = new Answers({ ...parts, isWrittenUnseen }, this.#virtual);
    this.#directories = new Directories(parts.view, parts.api, this.#answers, parts.watch, parts.wallMs);
    this.#replays = new Replays(parts.view, parts.api, (req, node) => this.#answers.getattr(req, node));
    parts.doors.add(this);
    this.#view.onChanged = (node) => {
      node.settledMs = parts.wallMs();
      node.told = null;
      if (node.writers === 0) parts.watch?.settled(node);
      parts.doors.changed(null, node);
    };
    this.#view.onOutdated = (node) => {
      node.told = null;
      parts.doors.changed(null, node);
    };
  }

  get passthrough(): boolean {
    return this.#backing?.possible ?? false;
  }

  // ------------------------------------------------------------ other doors

  attributesChanged(node: Node): void {
    if (node.lookups > 0) this.#api.notifyInvalInode(node.id, -1, 0);
  }

  nameChanged(parent: Node, name: PathString): void {
    if (parent.lookups === 0) return;
    this.#api.notifyInvalInode(parent.id, -1, 0);
    this.#parts.forgetName(parent.id, name);
  }

  /** With passthrough nobody's writes are seen; else those through this door. */
  #isWrittenUnseen(node: Node): boolean {
    if (this.#parts.passthrough) return true;
    let own = 0;
    for (const handle of node.handles) if (handle.writes && handle.door === this) own++;
    return node.writers > own;
  }

  /** Nobody is behind this door any more. */
  end(): void {
    this.#parts.doors.remove(this);
    for (const { opening } of this.#openings.values()) opening.cancel();
    this.#openings.clear();
    this.#replays.end();
    this.#directories.end();
    for (const handle of [...this.#view.handles.values()]) if (handle.door === this) this.#close(handle);
  }

  // ------------------------------------------------------------ names and attributes

  lookup(req: Request, name: PathString): void {
    const parent = this.#node(req);
    if (parent === undefined) return;
    const virtual = this.#virtualIn(parent, name);
    if (virtual !== undefined) {
      if (virtual === null) this.#api.replyError(req, sys.ENOENT);
      else this.#answers.virtual(req, virtual);
      return;
    }
    this.#parts.watch?.ensure(parent);
    const found = this.#view.tree.lookup(parent, name, scratch);
    if (found === -sys.ENOENT) this.#answers.negative(req, parent);
    else this.#answers.entry(req, found);
  }

  forget(nodeid: number, nlookup: number): void {
    const node = this.#view.tree.node(nodeid);
    if (node !== undefined && node.virtual === null) this.#view.tree.forget(node, nlookup);
  }

  getattr(req: Request, fh: number | undefined): void {
    const node = this.#node(req);
    if (node === undefined) return;
    if (fh === undefined && this.#replays.park(req, node)) return;
    this.#answers.getattr(req, node);
  }

  statx(req: Request, fh: number | undefined, _flags: number, _mask: number): void {
    const node = this.#node(req);
    if (node === undefined) return;
    if (fh === undefined && this.#replays.park(req, node)) return;
    this.#answers.statx(req, node);
  }

  setattr(req: Request, args: SetattrArgs): void {
    const node = this.#node(req);
    if (node === undefined) return;
    if (node.virtual !== null) return void this.#api.replyError(req, sys.EACCES);
    if (req.pid === this.waker && req.pid !== 0) return this.#wakes(req, node, args);
    const handle = args.fh === undefined ? undefined : this.#view.handles.get(args.fh);
    if (handle?.door === this) {
      if (args.size !== undefined && handle.grant !== null)
        this.#view.sweeps.cutting(this.#actor(req), node, args.size);
      return void this.#setattr(req, node, args, handle);
    }
    const op = args.size === undefined ? 'setattr' : 'truncate';
    const run: Run = (grant) => {
      const { overwrites } = this.#view;
      const cuts = grant !== null && args.size !== undefined;
      if (cuts && !overwrites.truncating(callerOf(req), node)) this.#api.replyError(req, sys.ESTALE);
      else if (args.size === undefined && args.mtime !== undefined)
        overwrites.touching(callerOf(req), node, () => this.#setattr(req, node, args, undefined));
      else {
        if (cuts) this.#view.sweeps.cutting(this.#actor(req), node, args.size!);
        if (this.#setattr(req, node, args, undefined) && cuts) overwrites.truncated(callerOf(req), node);
      }
      grant?.release();
    };
    // Only ftruncate says itself that it came by a descriptor (FATTR_FH).
    const replayable = () => args.size !== undefined || this.#comesByPath(req, node);
    this.#replays.arrive(req, { op, node }, run, replayable);
  }

  /** The waker's chmod: the kernel tells who watches the node, and that is all. Nothing is locked and nothing changes. */
  #wakes(req: Request, node: Node, args: SetattrArgs): void {
    const { mode, size, uid, gid, atime, mtime } = args;
    const other = [size, uid, gid, atime, mtime].some((each) => each !== undefined);
    if (mode === undefined || other) this.#api.replyError(req, sys.EPERM);
    else this.#answers.changed(req, node);
  }

  /**
   * fchmod, futimens and fsetxattr carry the same bits as chmod, utimens and setxattr, but an error of theirs is not
   * retried. So who has a descriptor of the inode may have come by it and does not wait.
   */
  #comesByPath(req: Request, node: Node): boolean {
    if (node.handles.size === 0 && !node.isDirectory) return true;
    const { remote } = this.#parts;
    if (remote !== null) return !remote.hasInode(req.pid);
    return !hasInode(req.pid, String(this.#view.tree.inoOf(node)));
  }

  /** True when it was done. */
  #setattr(req: Request, node: Node, args: SetattrArgs, handle: Handle | undefined): boolean {
    const fd = handle === undefined || args.size === undefined ? null : this.#view.fdOf(handle);
    const error =
      handle !== undefined && this.#view.isLost(handle)
        ? -sys.ESTALE
        : fd !== null && fd < 0
          ? fd
          : ops.setattr(this.#view, callerOf(req), node, { ...args, killPriv: args.killSuidgid }, fd);
    if (error < 0) this.#api.replyError(req, -error);
    else {
      this.#parts.doors.changed(this, node);
      this.#answers.changed(req, node);
    }
    return error >= 0;
  }

  readlink(req: Request): void {
    const node = this.#node(req);
    if (node === undefined) return;
    const fd = this.#view.tree.fd(node);
    const target = fd < 0 ? fd : sys.readlinkat(fd, '');
    if (typeof target === 'number') this.#api.replyError(req, -target);
    else this.#api.replyData(req, target);
  }

  // ------------------------------------------------------------ changes of names

  mkdir(req: Request, name: PathString, mode: number, umask: number): void {
    this.#make(req, 'mkdir', name, (parent) =>
      ops.mkdir(this.#view, callerOf(req), parent, name, mode, umask),
    );
  }

  mknod(req: Request, name: PathString, mode: number, rdev: number, umask: number): void {
    const run = (parent: Node) => ops.mknod(this.#view, callerOf(req), parent, name, mode, rdev, umask);
    // bind(2) makes a socket and is never retried: its new name is made at once.
    if ((mode & sys.S_IFMT) !== sys.S_IFSOCK) return this.#make(req, 'mknod', name, run);
    const parent = this.#directory(req, name);
    if (parent !== undefined) this.#made(req, parent, name, run(parent));
  }

  symlink(req: Request, name: PathString, target: Buffer): void {
    const copy = Buffer.from(target);
    this.#make(req, 'symlink', name, (parent) => ops.symlink(this.#view, callerOf(req), parent, name, copy));
  }

  #make(
    req: Request,
    op: 'mkdir' | 'mknod' | 'symlink',
    name: PathString,
    run: (parent: Node) => Node | number,
  ): void {
    const parent = this.#directory(req, name);
    if (parent === undefined) return;
    this.#replays.arrive(req, { op, parent, name }, (grant) => {
      this.#made(req, parent, name, run(parent));
      grant?.release();
    });
  }

  #made(req: Request, parent: Node, name: PathString, made: Node | number): void {
    if (typeof made !== 'number') this.#parts.doors.named(this, parent, name);
    this.#answers.entry(req, made);
  }

  unlink(req: Request, name: PathString): void {
    const parent = this.#directory(req, name);
    if (parent === undefined) return;
    this.#replays.arrive(req, { op: 'unlink', parent, name }, (grant) => {
      const undo =
        grant === null ? null : this.#view.sweeps.losing(this.#actor(req), parent, name, 'removed');
      const error = ops.unlink(this.#view, parent, name);
      if (error < 0) undo?.();
      this.#gone(req, parent, name, error);
      grant?.release();
    });
  }

  #gone(req: Request, parent: Node, name: PathString, error: number): void {
    if (error >= 0) this.#parts.doors.named(this, parent, name);
    this.#answers.status(req, error);
  }

  rmdir(req: Request, name: PathString): void {
    const parent = this.#directory(req, name);
    if (parent === undefined) return;
    this.#replays.arrive(req, { op: 'rmdir', parent, name }, (grant) => {
      this.#gone(req, parent, name, ops.rmdir(this.#view, parent, name));
      grant?.release();
    });
  }

  rename(req: Request, name: PathString, newParentId: number, newName: PathString, flags: number): void {
    const parent = this.#directory(req, name);
    if (parent === undefined) return;
    const newParent = this.#view.tree.node(newParentId);
    if (newParent === undefined) return void this.#api.replyError(req, sys.ESTALE);
    if (this.#virtualIn(newParent, newName) !== undefined) return void this.#api.replyError(req, sys.EACCES);
    if ((flags & ~(sys.RENAME_NOREPLACE | sys.RENAME_EXCHANGE | sys.RENAME_WHITEOUT)) !== 0)
      return void this.#api.replyError(req, sys.EINVAL);
    this.#replays.arrive(req, { op: 'rename', parent, name, newParent, newName, flags }, (grant, plan) => {
      const { overwrites } = this.#view;
      const caller = callerOf(req);
      const lands = plan.targets.some((target) => target.path === this.#view.pathIn(newParent, newName));
      const replaces = lands && (flags & ~sys.RENAME_WHITEOUT) === 0;
      if (replaces && !overwrites.replacing(caller, newParent, newName)) {
        grant?.release();
        return void this.#api.replyError(req, sys.ESTALE);
      }
      const undo = replaces
        ? this.#view.sweeps.losing(this.#view.knownActor(caller), newParent, newName, 'replaced')
        : null;
      const error = ops.rename(this.#view, parent, name, newParent, newName, flags, grant, plan.handsOver);
      if (error < 0) undo?.();
      if (error === 0 && lands) overwrites.replaced(caller, newParent, newName);
      if (error === 0) this.#parts.doors.named(this, newParent, newName);
      this.#gone(req, parent, name, error);
    });
  }

  link(req: Request, oldNodeid: number, newName: PathString): void {
    const parent = this.#directory(req, newName);
    if (parent === undefined) return;
    const node = this.#view.tree.node(oldNodeid);
    if (node === undefined || node.virtual !== null) return void this.#api.replyError(req, sys.EXDEV);
    this.#replays.arrive(req, { op: 'link', node, parent, name: newName }, (grant, plan) => {
      this.#made(req, parent, newName, ops.link(this.#view, node, parent, newName, grant, plan.handsOver));
      this.#view.onChanged(node);
    });
  }

  // ------------------------------------------------------------ open files

  open(req: Request, flags: number, openFlags: number): void {
    const node = this.#node(req);
    if (node === undefined) return;
    if (node.virtual !== null) return this.#openVirtual(req, node, flags);
    const dentry = node.dentry;
    if (dentry !== undefined) this.#replays.opened(req.pid, dentry.parent, dentry.name);
    const caller = callerOf(req);
    const killPriv = (openFlags & FUSE_OPEN_KILL_SUIDGID) !== 0;
    const now = this.#view.openNow(caller, node, flags, killPriv);
    if (now !== null) {
      if (typeof now === 'number') this.#api.replyError(req, -now);
      else this.#replyOpen(req, now);
      return;
    }
    let answered = false;
    const opening = this.#view.open(caller, node, flags, killPriv, (error, handle) => {
      answered = true;
      this.#openings.delete(req.unique);
      if (handle === null) this.#api.replyError(req, -error);
      else this.#replyOpen(req, handle);
    });
    if (!answered) this.#openings.set(req.unique, { req, opening });
  }

  #replyOpen(req: Request, handle: Handle): void {
    const { node } = handle;
    const { remote, doors, wallMs } = this.#parts;
    handle.door = this;
    if (handle.writes) doors.changed(this, node);
    // What a mapping writes the kernel is not told: from now on it must ask, see attrValidMs of answers.ts.
    const { validity, watch } = this.#parts;
    const validMs = watch === null ? validity.ms : validity.followedMs;
    if (handle.writes && node.writers === 1 && this.#view.options.passthrough && validMs > OUTSIDE_MS)
      this.#api.notifyInvalInode(node.id, -1, 0);
    const route = this.#backing?.open(handle, callerOf(req)) ?? CACHED;
    const fd = route.backingId === 0 ? this.#view.fdOf(handle) : 0;
    const cache = remote === null ? node : remote.pagesOf(node);
    const keeps = route.backingId === 0 && fd >= 0 && keepsPages(handle, fd, cache, wallMs);
    if (fd >= 0) remote?.opened(req, handle, fd, !keeps);
    const flags = keeps ? route.flags | FOPEN_KEEP_CACHE : route.flags;
    if (fd >= 0 && this.#api.replyOpen(req, { fh: handle.id, flags, backingId: route.backingId }) >= 0)
      return;
    // The kernel refused the answer: its caller is gone, and no RELEASE will come.
    if (fd < 0) this.#api.replyError(req, -fd);
    this.#close(handle);
  }

  create(
    req: Request,
    name: PathString,
    flags: number,
    mode: number,
    umask: number,
    openFlags: number,
  ): void {
    const parent = this.#directory(req, name);
    if (parent === undefined) return;
    this.#replays.arrive(req, { op: 'create', parent, name }, (grant, _plan, second) => {
      const made = ops.create(this.#view, callerOf(req), parent, name, flags, mode, umask);
      if (typeof made === 'number') {
        grant?.release();
        // Somebody made it meanwhile beside the view. A first arrival may come again, as an OPEN.
        const exists = made === -sys.EEXIST && (flags & sys.O_EXCL) === 0;
        this.#api.replyError(req, exists ? (second ? sys.EBUSY : sys.ESTALE) : -made);
        return;
      }
      this.#parts.doors.named(this, parent, name);
      this.#created(req, made, flags, grant, openFlags);
    });
  }

  #created(req: Request, made: ops.Created, flags: number, grant: Grant | null, _openFlags: number): void {
    // `scratch` has the new file's attributes: the answer is filled before anything else is asked.
    this.#answers.fillEntry(made.node);
    made.node.lookups++;
    this.#view.withActor(
      callerOf(req),
      (actor) => {
        const handle = this.#view.addHandle(made.node, flags, actor, grant);
        handle.fd = made.fd;
        handle.made = true;
        handle.door = this;
        this.#view.overwrites.created(handle, actor);
        const route = this.#backing?.open(handle, callerOf(req)) ?? CACHED;
        this.#answers.filled.attrValidMs = this.#answers.attrValidMs(made.node);
        if (this.#api.replyCreate(req, this.#answers.filled, { fh: handle.id, ...route }) >= 0) return;
        this.#close(handle);
        this.#view.tree.forget(made.node, 1);
      },
      true,
    );
  }

  tmpfile(req: Request, flags: number, mode: number, umask: number): void {
    const parent = this.#node(req);
    if (parent === undefined) return;
    const made = ops.tmpfile(this.#view, callerOf(req), parent, flags, mode, umask);
    if (typeof made === 'number') this.#api.replyError(req, -made);
    else this.#created(req, made, flags, null, 0);
  }

  read(req: Request, fh: number, offset: number, size: number, _flags: number): void {
    const handle = this.#handle(req, fh);
    if (handle === undefined) return;
    if (handle.snapshot !== null)
      return void this.#api.replyData(req, handle.snapshot.subarray(offset, offset + size));
    const fd = this.#view.fdOf(handle);
    const place = this.#api.dataBuffer(size);
    const got = fd < 0 ? fd : sys.pread(fd, place, offset);
    if (got < 0) this.#api.replyError(req, -got);
    else this.#api.replyData(req, got === place.length ? place : place.subarray(0, got));
  }

  write(req: Request, fh: number, asked: number, data: Buffer, writeFlags: number, flags: number): void {
    const handle = this.#handle(req, fh);
    if (handle === undefined) return;
    const fd = this.#view.fdOf(handle);
    // Where the end is a kernel does not know while somebody else writes, too.
    const appends = this.#view.shared && (flags & sys.O_APPEND) !== 0;
    const offset = appends && sys.fstatx(fd, scratch) === 0 ? scratch.size : asked;
    if (offset !== asked) this.#parts.forgetPages(handle.node.id);
    const kills = (writeFlags & FUSE_WRITE_KILL_SUIDGID) !== 0;
    const put = fd < 0 ? fd : this.#view.modify(callerOf(req), fd, kills, () => sys.pwrite(fd, data, offset));
    if (put < 0) this.#api.replyError(req, -put);
    else this.#api.replyWrite(req, put);
  }

  release(req: Request, fh: number): void {
    const handle = this.#view.handles.get(fh);
    if (handle?.door === this) this.#close(handle);
    this.#api.replyOk(req);
  }

  #close(handle: Handle): void {
    if (handle.node.virtual === null) this.#backing?.close(handle);
    this.#view.close(handle);
  }

  fsync(req: Request, fh: number, datasync: boolean): void {
    const handle = this.#handle(req, fh);
    if (handle === undefined) return;
    this.#slow(
      req,
      datasync ? 'fdatasync' : 'fsync',
      handle.snapshot === null ? this.#view.fdOf(handle) : -sys.EINVAL,
    );
  }

  fallocate(req: Request, fh: number, offset: number, length: number, mode: number): void {
    const handle = this.#handle(req, fh);
    if (handle === undefined) return;
    const fd = this.#view.fdOf(handle);
    const run = () => sys.fallocate(fd, mode, offset, length);
    // The kernel does not say whether the caller has CAP_FSETID, here and below: root has.
    this.#answers.status(req, fd < 0 ? fd : this.#view.modify(callerOf(req), fd, req.uid !== 0, run));
  }

  lseek(req: Request, fh: number, offset: number, whence: number): void {
    const handle = this.#handle(req, fh);
    if (handle === undefined) return;
    const fd = this.#view.fdOf(handle);
    const at = fd < 0 ? fd : sys.lseek(fd, offset, whence);
    if (at < 0) this.#api.replyError(req, -at);
    else this.#api.replyLseek(req, at);
  }

  copyFileRange(
    req: Request,
    fhIn: number,
    offIn: number,
    _nodeidOut: number,
    fhOut: number,
    offOut: number,
    length: number,
    _flags: number,
  ): void {
    const from = this.#handle(req, fhIn);
    if (from === undefined) return;
    const to = this.#handle(req, fhOut);
    if (to === undefined) return;
    const fdIn = this.#view.fdOf(from);
    const fdOut = this.#view.fdOf(to);
    const error = Math.min(fdIn, fdOut);
    const run = () => sys.copyFileRange(fdIn, offIn, fdOut, offOut, Math.min(length, COPY_BYTES_MAX));
    const copied = error < 0 ? error : this.#view.modify(callerOf(req), fdOut, req.uid !== 0, run);
    if (copied < 0) this.#api.replyError(req, -copied);
    else this.#api.replyWrite(req, copied);
  }

  syncfs(req: Request): void {
    this.#slow(req, 'syncfs', this.#view.reopen(this.#view.tree.root, sys.O_RDONLY | sys.O_DIRECTORY), true);
  }

  // ------------------------------------------------------------ directories

  opendir(req: Request, _flags: number): void {
    const node = this.#node(req);
    if (node !== undefined) this.#directories.open(req, node);
  }

  readdir(req: Request, fh: number, offset: number, size: number): void {
    this.#directories.list(req, fh, offset, size, false);
  }

  readdirplus(req: Request, fh: number, offset: number, size: number): void {
    this.#directories.list(req, fh, offset, size, true);
  }

  releasedir(req: Request, fh: number): void {
    this.#directories.close(fh);
    this.#api.replyOk(req);
  }

  fsyncdir(req: Request, fh: number, datasync: boolean): void {
    this.#slow(req, datasync ? 'fdatasync' : 'fsync', this.#directories.fd(fh));
  }

  statfs(req: Request): void {
    const node = this.#node(req);
    if (node === undefined) return;
    const from = node.virtual === null ? node : this.#view.tree.root;
    const fd = this.#view.tree.fd(from);
    const error = fd < 0 ? fd : sys.fstatfs(fd, this.#statfs);
    if (error < 0) this.#api.replyError(req, -error);
    else this.#api.replyStatfs(req, this.#statfs);
  }

  // ------------------------------------------------------------ extended attributes

  getxattr(req: Request, name: PathString, size: number): void {
    const node = this.#node(req);
    if (node === undefined) return;
    if (node === this.#view.tree.root && name === 'user.gate')
      return xattrs.reply(this.#api, req, Buffer.from(this.#parts.about), size);
    if (node.virtual !== null) return void this.#api.replyError(req, sys.ENODATA);
    xattrs.get(this.#api, req, this.#view.tree.fd(node), name, size);
  }

  listxattr(req: Request, size: number): void {
    const node = this.#node(req);
    if (node === undefined) return;
    if (node.virtual !== null) return xattrs.reply(this.#api, req, Buffer.alloc(0), size);
    xattrs.list(this.#api, req, this.#view.tree.fd(node), size);
  }

  setxattr(req: Request, name: PathString, value: Buffer, flags: number, killSgid: boolean): void {
    const node = this.#node(req);
    if (node === undefined) return;
    const copy = Buffer.from(value);
    this.#changeXattr(req, node, (fd) => xattrs.set(fd, name, copy, flags, killSgid));
  }

  removexattr(req: Request, name: PathString): void {
    const node = this.#node(req);
    if (node === undefined) return;
    this.#changeXattr(req, node, (fd) => xattrs.remove(fd, name));
  }

  #changeXattr(req: Request, node: Node, change: (fd: number) => number): void {
    if (node.virtual !== null) return void this.#api.replyError(req, sys.EACCES);
    const run: Run = (grant) => {
      const error = change(this.#view.tree.fd(node));
      if (error >= 0) this.#parts.doors.changed(this, node);
      this.#answers.status(req, error);
      grant?.release();
    };
    this.#replays.arrive(req, { op: 'setattr', node }, run, () => this.#comesByPath(req, node));
  }

  // ------------------------------------------------------------ interrupts

  /** A signal hit a waiting caller. It gives up only if the signal ends or interrupts it for good; else we look again. */
  interrupt(unique: number): void {
    const stops = (tid: number) => this.#parts.remote?.wantsToStop(tid) ?? wantsToStop(tid);
    const waiting = this.#openings.get(unique);
    const state =
      waiting === undefined
        ? this.#replays.interrupt(unique, stops)
        : stops(waiting.req.pid)
          ? 'stopped'
          : 'goes on';
    if (state === 'goes on') this.#api.setTimer(INTERRUPT_LOOK_MS, () => this.interrupt(unique));
    if (waiting === undefined || state !== 'stopped') return;
    this.#openings.delete(unique);
    waiting.opening.cancel();
    this.#api.replyError(waiting.req, sys.EINTR);
  }

  // ------------------------------------------------------------ helpers

  #actor(req: Request): Actor | null {
    return this.#view.knownActor(callerOf(req));
  }

  #node(req: Request): Node | undefined {
    const node = this.#view.tree.node(req.nodeid);
    if (node === undefined) this.#api.replyError(req, sys.ESTALE);
    return node;
  }

  /** The directory in which `name` is to change; undefined: answered already. */
  #directory(req: Request, name: PathString): Node | undefined {
    const parent = this.#node(req);
    if (parent === undefined || this.#virtualIn(parent, name) === undefined) return parent;
    this.#api.replyError(req, sys.EACCES);
    return undefined;
  }

  /** The virtual node of a name; null: a virtual directory without that name; undefined: an ordinary name. */
  #virtualIn(parent: Node, name: PathString): Node | null | undefined {
    if (parent === this.#view.tree.root)
      return name === VIRTUAL_DIRECTORY ? this.#virtual.directory : undefined;
    return parent.virtual === null ? undefined : (this.#virtual.lookup(name) ?? null);
  }

  #handle(req: Request, fh: number): Handle | undefined {
    const handle = this.#view.handles.get(fh);
    const ours = handle?.door === this;
    if (ours && !this.#view.isLost(handle)) return handle;
    this.#api.replyError(req, ours ? sys.ESTALE : sys.EBADF);
    return undefined;
  }

  #slow(req: Request, call: 'fsync' | 'fdatasync' | 'syncfs', fd: number, closes = false): void {
    if (fd < 0) return void this.#api.replyError(req, -fd);
    this.#parts.slow(call, fd, (result) => {
      if (closes) sys.close(fd);
      this.#answers.status(req, result);
    });
  }

  #openVirtual(req: Request, node: Node, flags: number): void {
    // Root is let through by the mode.
    if (opensForWriting(flags)) return void this.#api.replyError(req, sys.EACCES);
    const open = (text: string) => {
      const handle = this.#view.addHandle(node, sys.O_RDONLY, { owner: '', pid: 0, who: {} }, null);
      handle.snapshot = Buffer.from(text);
      handle.door = this;
      if (this.#api.replyOpen(req, { fh: handle.id, flags: FOPEN_DIRECT_IO }) < 0) this.#close(handle);
    };
    if ((node.virtual as VirtualFile) === 'who') this.#parts.who(open);
    else
      this.#view.withActor(callerOf(req), (actor) =>
        open(this.#view.why.text(actor.owner, this.#view.clock.nowMs())),
      );
  }
}
