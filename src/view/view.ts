/**
 * The gated view of a directory tree. It knows nodes, handles, actors and which operation takes which lock; it
 * does not know FUSE or SFTP. A front end brings requests and answers them:
 *
 * - What needs no lock (`tree.lookup`, `tree.stat`, ops.ts) is a plain call.
 * - `open` waits for its lock and then calls back; the front end may `cancel` it.
 * - A change of names or attributes is planned (`planner.of`). With no targets it is carried out at once (ops.ts).
 *   Else the front end makes a `Reservation`, waits for it in whatever way its protocol allows, and carries out
 *   the operation with the grant.
 * - `close` ends a handle. Its lock is given back when nobody can write to the file through it any more.
 *
 * Everything runs on one thread and nothing here blocks but the file system below. Not promised: a read-only
 * mapping is not protected after its descriptor is closed.
 */
import type { PathString } from '../base/bytes.ts';
import type { ErrorCode } from '../base/errors.ts';
import { LIMITS } from '../base/limits.ts';
import type { Kind, Target } from '../lock/types.ts';
import * as sys from '../sys/index.ts';
import type { Actor, ActorSource, Caller, ViewClock, ViewEvents } from './actors.ts';
import { Closing } from './closing.ts';
import { Exclusions } from './exclude.ts';
import { Handle } from './handle.ts';
import { KeptGrants } from './kept.ts';
import { Grant, type LockPort, Pending } from './locks.ts';
import type { LostFolder } from './lost/folder.ts';
import { type Node, pathIn, pathOf, type Unwritten } from './node.ts';
import { accessOf, type Opened, Opening, opensForWriting } from './opening.ts';
import { Overwrites } from './overwrites.ts';
import { scratch } from './scratch.ts';
import type { StalePolicy } from './stale.ts';
import { type SweepRescue, Sweeps } from './sweeps.ts';
import { inodeTarget, Planner } from './targets.ts';
import type { Tree } from './tree.ts';
import { type Rescue, UncleanPaths } from './unclean.ts';
import { WhyLog } from './why.ts';

export interface ViewOptions {
  /** Wait limit of opens and path operations; null: none. */
  readonly waitMs: number | null;
  readonly lockIgnored: boolean;
  /** Programs (comm) that wait at most 200 ms to read and then pass without a lock. */
  readonly scanners: readonly string[];
  /** Programs (comm) whose O_NONBLOCK is about FIFOs: they wait like everybody. All others get EAGAIN. */
  readonly nonblockWaiters: readonly string[];
  /** Prefix of request ids: unique to this view's session. */
  readonly requestPrefix: string;
  /** Acts as the caller when it makes files: the daemon is root. */
  readonly privileged: boolean;
  /** The kernel may read and write files below itself, so a mapping may outlive its RELEASE: look before a write lock is given back. */
  readonly passthrough: boolean;
  /** What happens when an actor writes over a change that it has not seen. */
  readonly staleWrites: StalePolicy;
  /** So much is kept of what would be lost. */
  readonly keepBytes: number;
}

/** A change so soon after another may bear the same time: file systems stamp by the timer tick, 10 ms at most. */
const SAME_STAMP_MS = 50;

/** Threads that were sent to resolve a name again and have not come back. */
const RESOLVING_MAX = 1000;

/** How long a scanner waits. */
const SCANNER_WAIT_MS = 200;
/** How long an invisible caller (another pid namespace, an SFTP client) waits. */
const INVISIBLE_WAIT_MS = 5000;

export class View {
  readonly tree: Tree;
  readonly options: ViewOptions;
  readonly clock: ViewClock;
  readonly exclusions: Exclusions;
  readonly planner: Planner;
  readonly kept: KeptGrants;
  readonly locks: LockPort;
  readonly unclean: UncleanPaths;
  readonly why = new WhyLog();
  readonly overwrites: Overwrites;
  readonly sweeps: Sweeps;
  readonly handles = new Map<number, Handle>();
  /** False once the session with the broker may be over, by this machine's clock: what it granted may be somebody else's by now. */
  readonly hasAuthority: () => boolean;
  /** Called when attributes that the front end may have cached are stale. */
  onChanged: (node: Node) => void = () => {};
  /** Called when an open finds other attributes than the front end remembers: something changed beside the view. */
  onOutdated: (node: Node) => void = () => {};
  /** Who was sent to resolve a name again, because it led elsewhere or the inode has none. */
  readonly #resolving = new Set<number>();
  /** There are several front ends: who writes through one is to be told to the others. */
  shared = false;
  readonly #actors: ActorSource;
  readonly #events: ViewEvents;
  #nextHandle = 1;
  #nextRequest = 1;

  constructor(parts: {
    tree: Tree;
    options: ViewOptions;
    clock: ViewClock;
    locks: LockPort;
    actors: ActorSource;
    events: ViewEvents;
    rescue: Rescue & SweepRescue;
    lost: LostFolder;
    hasAuthority: () => boolean;
  }) {
    this.tree = parts.tree;
    this.options = parts.options;
    this.clock = parts.clock;
    this.locks = parts.locks;
    this.#actors = parts.actors;
    this.hasAuthority = parts.hasAuthority;
    this.#events = parts.events;
    this.exclusions = new Exclusions(this.tree, { lockIgnored: parts.options.lockIgnored });
    this.planner = new Planner(this.tree, this.exclusions);
    this.kept = new KeptGrants(this.clock, (tid) => this.isOnItsWay(tid));
    this.overwrites = new Overwrites(this, parts.events, parts.options.staleWrites);
    this.unclean = new UncleanPaths(parts);
    this.sweeps = new Sweeps(this, parts.events, parts.lost, parts.rescue, parts.options.keepBytes);
  }

  pathOf(node: Node): string | null {
    return pathOf(node, this.tree.root);
  }

  pathIn(parent: Node, name: string): string | null {
    return pathIn(parent, name, this.tree.root);
  }

  /** True when something stands at this path now. */
  exists(path: string): boolean {
    return sys.statx(this.tree.root.fd, path, sys.AT_SYMLINK_NOFOLLOW, scratch) === 0;
  }

  /** Finds the caller's actor. `optional`: do not look for it, an unknown one will do (no lock is taken). */
  withActor(caller: Caller, use: (actor: Actor) => void, optional = false): void {
    const known = this.#actors.known(caller);
    if (known !== null) use(known);
    else if (optional) use({ owner: '', pid: 0, who: {} });
    else this.#actors.resolve(caller, use);
  }

  isOnItsWay(tid: number): boolean {
    return this.#actors.isOnItsWay?.(tid) ?? false;
  }

  inGroup(caller: Caller, gid: number): boolean {
    return this.#actors.inGroup(caller, gid);
  }

  /** Wait limit of an open. */
  waitMsOf(actor: Actor, flags: number): number | null {
    const limit = this.options.waitMs;
    if (this.#mustNotWait(actor, flags)) return 0;
    if (actor.pid === 0) return Math.min(limit ?? INVISIBLE_WAIT_MS, INVISIBLE_WAIT_MS);
    return this.#passes(actor, flags) ? SCANNER_WAIT_MS : limit;
  }

  #mustNotWait(actor: Actor, flags: number): boolean {
    return (flags & sys.O_NONBLOCK) !== 0 && !this.options.nonblockWaiters.includes(actor.who.command ?? '');
  }

  #passes(actor: Actor, flags: number): boolean {
    return !opensForWriting(flags) && this.options.scanners.includes(actor.who.command ?? '');
  }

  request(
    caller: Caller,
    owner: string,
    actor: Actor,
    kind: Kind,
    targets: readonly Target[],
    waitMs: number | null,
    answers: ConstructorParameters<typeof Pending>[2],
  ): Pending {
    const requestId = `${this.options.requestPrefix}${this.#nextRequest++}`;
    return new Pending(
      this.locks,
      { requestId, owner, kind, targets, waitMs, who: actor.who, tid: caller.tid },
      answers,
      (over, done) => {
        if (this.unclean.isClean(targets)) return done(null);
        const sinceMs = this.clock.nowMs();
        const untilMs = waitMs === null ? null : sinceMs + waitMs;
        const looked: typeof done = (refusal) =>
          done(refusal === null && this.clock.nowMs() - sinceMs > LIMITS.admitMs ? 'late' : refusal);
        this.unclean.admit({ targets, owner, untilMs, over, done: looked });
      },
    );
  }

  /** The caller's actor when it is known already. */
  knownActor(caller: Caller): Actor | null {
    return this.#actors.known(caller);
  }

  /** A grant that needs no wait and no broker; null when it does, or when the actor is not known yet. */
  tryNow(caller: Caller, kind: Kind, targets: readonly Target[]): Grant | null {
    const actor = this.#actors.known(caller);
    return actor === null ? null : this.#tryAs(actor, caller, kind, targets);
  }

  #tryAs(actor: Actor, caller: Caller, kind: Kind, targets: readonly Target[]): Grant | null {
    if (!this.unclean.isClean(targets)) return null;
    const { owner, who } = actor;
    const requestId = this.options.requestPrefix + this.#nextRequest++;
    const got = this.locks.tryNow({ requestId, owner, kind, targets, waitMs: 0, who, tid: caller.tid });
    return got === null ? null : new Grant(this.locks, got.lockId, owner, targets);
  }

  /** Whose lock on this inode the caller belongs to, because it or an ancestor has the inode open; null: nobody's. */
  joinable(caller: Caller, node: Node, done: (owner: string | null) => void): void {
    this.#actors.ancestorsWithOpen(caller, this.tree.inoOf(node), (pids) => {
      if (pids.length === 0) return done(null);
      const holders = [...node.handles].filter((h) => h.grant !== null);
      const opener = holders.find((h) => pids.includes(h.pid));
      // Who opened it may be gone, and the descriptor inherited (a daemon). Several owners can only be readers.
      const owners = new Set(holders.map((h) => h.grant!.owner));
      const [only] = owners.size === 1 ? owners : [];
      done(opener?.grant?.owner ?? only ?? null);
    });
  }

  /** True when this owner has a lock through an open file of this view. */
  holds(owner: string): boolean {
    for (const handle of this.handles.values()) if (handle.grant?.owner === owner) return true;
    return false;
  }

  /** True when this owner has a lock on this inode to write it. */
  writes(owner: string, node: Node): boolean {
    return [...node.handles].some((handle) => handle.writes && handle.grant?.owner === owner);
  }

  /** Remembers a refusal, for `/.gate/why` and the event log. */
  refused(actor: Actor | null, targets: readonly Target[], code: ErrorCode, message: string): void {
    const path = targets[0]?.path ?? '';
    this.why.add(actor?.owner ?? '', this.clock.nowMs(), `${path}: ${code}: ${message}`);
  }

  /**
   * An open that can be decided here and now, which nearly all can: its handle, or -errno. Null: it cannot, nothing has
   * changed, and `open` is to be called. The name is looked at before the lock is taken, which is the same thing within one turn.
   */
  openNow(caller: Caller, node: Node, flags: number, killPriv: boolean): Handle | number | null {
    const dentry = node.dentry;
    const resolved = this.#resolving.size > 0 && this.#resolving.has(caller.tid);
    // By a name that the caller's side remembers for too long, or by a descriptor.
    if (dentry === undefined && !node.pinned && !resolved) return this.#resolve(caller);
    const actor = this.#actors.known(caller);
    // What is cut may have to be kept first, which takes its time.
    const cuts = (flags & sys.O_TRUNC) !== 0;
    if (actor === null || dentry === undefined || cuts || this.kept.has(caller.tid)) return null;
    const plan = this.planner.ofOpen(node, opensForWriting(flags) ? 'write' : 'read');
    if (plan === null) {
      if (this.tree.leadsTo(dentry.parent, dentry.name, node, scratch)) this.looked(node, scratch);
      else if (!resolved) return this.#resolve(caller);
      this.#resolving.delete(caller.tid);
      return this.#opens(caller, node, flags, killPriv, { actor, grant: null, fd: -1 }, null, null);
    }
    const { nlink } = node;
    // Without passthrough the file is opened anyway, which tells as well where its name leads.
    const opens = !this.options.passthrough;
    const fd = opens ? this.tree.openByName(node, accessOf(flags), scratch) : -1;
    if (fd < 0 && (opens || !this.tree.leadsTo(dentry.parent, dentry.name, node, scratch))) return null;
    this.looked(node, scratch);
    node.nlink = scratch.nlink;
    const grant = nlink > 1 === scratch.nlink > 1 ? this.#tryAs(actor, caller, 'handle', plan.targets) : null;
    if (grant === null) {
      if (fd >= 0) sys.close(fd);
      return null;
    }
    const opened = { actor, grant, fd };
    const version = this.#admitted(node, flags, opened, plan.path);
    if (version === undefined) return -sys.ESTALE;
    if (resolved) this.#resolving.delete(caller.tid);
    return this.#opens(caller, node, flags, killPriv, opened, version, plan.path);
  }

  /** The caller is to resolve the name again, once: who comes back has the inode by other means, such as /proc/self/fd, or came too late. */
  #resolve(caller: Caller): number {
    if (this.#resolving.size === RESOLVING_MAX) this.#resolving.clear();
    this.#resolving.add(caller.tid);
    return -sys.ESTALE;
  }

  /** An open finds these attributes. If the front end remembers others, it is to forget them before its caller goes on. */
  looked(node: Node, stat: sys.StatBuf): void {
    const { told } = node;
    if (told === null) return;
    if (told.ctimeNsec !== stat.ctimeNsec || told.ctimeSec !== stat.ctimeSec || told.size !== stat.size)
      this.onOutdated(node);
  }

  /** Opens a regular file: `done(0, handle)`, or `done(-errno, null)`. The handle has no descriptor yet. */
  open(
    caller: Caller,
    node: Node,
    flags: number,
    killPriv: boolean,
    done: (error: number, handle: Handle | null) => void,
  ): Opening {
    const resolved = this.#resolving.delete(caller.tid);
    const opening = new Opening(this, caller, node, flags, resolved, (error, opened) => {
      if (opened === null && error === -sys.EAGAIN) return this.#timedOut(caller, node, flags, error, done);
      if (opened === null) return done(error, null);
      this.#opened(caller, node, flags, killPriv, opened, done);
    });
    opening.start();
    return opening;
  }

  /** A scanner that waited long enough reads without a lock. */
  #timedOut(
    caller: Caller,
    node: Node,
    flags: number,
    error: number,
    done: (error: number, handle: Handle | null) => void,
  ): void {
    this.withActor(caller, (actor) => {
      if (this.#mustNotWait(actor, flags) || !this.#passes(actor, flags)) return done(error, null);
      this.#events.note(
        this.pathOf(node) ?? '',
        'passed',
        actor.owner,
        `${actor.who.command} read it without a lock`,
      );
      this.#opened(caller, node, flags, false, { actor, grant: null, fd: -1 }, done);
    });
  }

  /** An open has its lock. */
  #opened(
    caller: Caller,
    node: Node,
    flags: number,
    killPriv: boolean,
    opened: Opened,
    done: (error: number, handle: Handle | null) => void,
  ): void {
    const version = this.#admitted(node, flags, opened, null);
    if (version === undefined) return done(-sys.ESTALE, null);
    const go = () => {
      const handle = this.#opens(caller, node, flags, killPriv, opened, version, null);
      if (typeof handle === 'number') done(handle, null);
      else done(0, handle);
    };
    if ((flags & sys.O_TRUNC) !== 0 && opened.grant !== null) this.sweeps.opening(opened.actor, node, go);
    else go();
  }

  /** The version that is opened (overwrites.ts), or undefined when that is refused: then nothing is held any more. */
  #admitted(node: Node, flags: number, opened: Opened, path: PathString | null): string | null | undefined {
    const { actor, grant, fd } = opened;
    const version = grant === null ? null : this.overwrites.opening(actor, node, flags, path);
    if (version !== undefined) return version;
    grant?.release();
    if (fd >= 0) sys.close(fd);
    return undefined;
  }

  /** The handle, or -errno. `path`: the file's, when `scratch` has its attributes. */
  #opens(
    caller: Caller,
    node: Node,
    flags: number,
    killPriv: boolean,
    opened: Opened,
    version: string | null,
    path: PathString | null,
  ): Handle | number {
    const cuts = (flags & sys.O_TRUNC) !== 0;
    const fd = cuts ? this.#truncating(caller, node, flags, killPriv, opened.fd) : opened.fd;
    if (cuts && fd < 0) {
      opened.grant?.release();
      return fd;
    }
    const exec = (flags & sys.FMODE_EXEC) !== 0;
    if (exec) opened.grant?.release();
    if (node.writers === 0 && opensForWriting(flags) && path !== null && !cuts)
      node.unwritten = this.#unwritten();
    const handle = this.addHandle(node, flags, opened.actor, exec ? null : opened.grant);
    handle.fd = fd;
    if (version !== null && handle.writes) handle.writer = { actor: opened.actor, version };
    return handle;
  }

  /**
   * Cuts a file to nothing, through the descriptor that its handle keeps. Closing another one would do for the content, but ext4 writes
   * a file that was cut and rewritten out at the next close of it (auto_da_alloc), so that a crash cannot leave it empty: that
   * close must be the writer's. `open`: that descriptor if there is one already, else -1.
   */
  #truncating(caller: Caller, node: Node, flags: number, killPriv: boolean, open: number): number {
    const fd = open >= 0 ? open : this.reopen(node, accessOf(flags));
    if (fd < 0) return fd;
    const error = this.modify(caller, fd, killPriv, () => sys.ftruncate(fd, 0));
    if (error === 0) return fd;
    sys.close(fd);
    return error;
  }

  /** A handle on a node that was opened or made under `grant`. */
  addHandle(node: Node, flags: number, actor: Actor, grant: Grant | null): Handle {
    const writes = opensForWriting(flags);
    const kept = flags & ~(sys.O_CREAT | sys.O_EXCL | sys.O_TRUNC | sys.O_NOCTTY | sys.FMODE_EXEC);
    const handle = new Handle(this.#nextHandle++, node, kept, writes, actor.owner, actor.pid);
    handle.grant = grant;
    this.handles.set(handle.id, handle);
    node.handles.add(handle);
    if (writes) node.writers++;
    return handle;
  }

  /** A descriptor of the file below for this handle: its own, opened on first use. -errno on failure. */
  fdOf(handle: Handle): number {
    if (handle.fd >= 0) return handle.fd;
    const flags = accessOf(handle.flags);
    const named = this.tree.openByName(handle.node, flags, scratch);
    const fd = named >= 0 ? named : this.reopen(handle.node, flags);
    if (fd >= 0) handle.fd = fd;
    return fd;
  }

  /** Opens a node anew. `flags` as open(2). */
  reopen(node: Node, flags: number): number {
    const path = this.tree.fd(node);
    if (path < 0) return path;
    const fd = sys.openFd(path, flags | sys.O_CLOEXEC);
    // O_NOATIME is the owner's only: others go without (open(2)).
    if (fd === -sys.EPERM && (flags & sys.O_NOATIME) !== 0) return this.reopen(node, flags & ~sys.O_NOATIME);
    return fd;
  }

  /** Sets the length. `killPriv` as in `modify`. */
  truncate(caller: Caller, node: Node, size: number, killPriv: boolean): number {
    const fd = this.reopen(node, sys.O_WRONLY | sys.O_NONBLOCK);
    if (fd < 0) return fd;
    const error = this.modify(caller, fd, killPriv, () => sys.ftruncate(fd, size));
    sys.close(fd);
    return error;
  }

  /**
   * Changes a file's content through `fd`. `killPriv`: the caller lacks CAP_FSETID, so setuid and setgid bits go, as far as the
   * file system below says so for that user (setattr_should_drop_suidgid, fs/attr.c).
   */
  modify(caller: Caller, fd: number, killPriv: boolean, run: () => number): number {
    if (!killPriv || !this.options.privileged) return run();
    if (sys.fstatx(fd, scratch) < 0 || (scratch.mode & (sys.S_ISUID | sys.S_ISGID)) === 0) return run();
    const error = sys.asUser(
      caller.uid,
      this.writesAs(caller, scratch.mode, scratch.gid) ? scratch.gid : caller.gid,
    );
    const result = error < 0 ? error : run();
    sys.asRoot();
    return result;
  }

  /**
   * True when the caller is in the file's group, and the file has a setgid bit that a member's write does
   * not take away: one without execute permission for the group. Such a write is done as that group, since the caller's
   * supplementary groups are not ours.
   */
  writesAs(caller: Caller, mode: number, gid: number): boolean {
    if ((mode & (sys.S_ISGID | sys.S_IXGRP)) !== sys.S_ISGID) return false;
    return caller.uid !== 0 && this.inGroup(caller, gid);
  }

  /** What `scratch` tells of a file, if any change from now on will show in it. */
  #unwritten(): Unwritten | null {
    const { ctimeSec, ctimeNsec, size } = scratch;
    const ageMs = (this.clock.wallMs?.() ?? 0) - (ctimeSec * 1000 + ctimeNsec / 1e6);
    return ageMs > SAME_STAMP_MS ? { ctimeSec, ctimeNsec, size } : null;
  }

  /** True when nobody changed the file while it was open for writing. Says no when it cannot tell. */
  #isUnwritten(node: Node): boolean {
    const before = node.unwritten;
    if (before === null || this.tree.stat(node, scratch) < 0) return false;
    const { ctimeSec, ctimeNsec, size } = scratch;
    return before.ctimeNsec === ctimeNsec && before.ctimeSec === ctimeSec && before.size === size;
  }

  /** Ends a handle: once, when the last descriptor is gone. */
  close(handle: Handle): void {
    if (!this.handles.delete(handle.id)) return;
    if (handle.fd >= 0) sys.close(handle.fd);
    handle.fd = -1;
    const node = handle.node;
    node.handles.delete(handle);
    if (handle.writes) new Closing(this, handle).start();
    else handle.grant?.release();
    this.tree.release(node);
  }

  /** Nobody writes through a closed handle any more. */
  closed(handle: Handle): void {
    const node = handle.node;
    node.writers--;
    this.overwrites.closed(handle);
    handle.grant?.release();
    handle.grant = null;
    const dentry = node.dentry;
    if (dentry !== undefined && this.exclusions.isRuleFile(dentry.parent, dentry.name))
      this.exclusions.changed();
    if (node.writers === 0 && (this.options.passthrough || this.shared)) {
      if (!this.#isUnwritten(node)) this.onChanged(node);
      node.unwritten = null;
    }
    this.tree.release(node);
  }

  /** A second name was made: every hold on the inode covers all its names from now on. */
  shareInode(node: Node): void {
    for (const handle of node.handles) {
      if (handle.grant !== null)
        this.locks.addTarget(handle.grant.lockId, inodeTarget(node, handle.writes ? 'write' : 'read'));
    }
  }

  /** A nameless or excluded file got a locked name: the first writer's handle keeps the grant as its own. */
  handOver(node: Node, grant: Grant): boolean {
    for (const handle of node.handles) {
      if (!handle.writes || handle.grant !== null) continue;
      handle.grant = grant;
      return true;
    }
    return false;
  }

  /** True when the lock of this handle is lost, or may be. */
  isLost(handle: Handle): boolean {
    return handle.lost || (handle.grant !== null && !this.hasAuthority());
  }

  /**
   * One hold was broken: what it guarded is somebody else's now. Who wrote writes no more (a passthrough descriptor goes on, into
   * an inode of its own: unclean.ts); who read keeps the inode, and is merely guarded by nothing any more.
   */
  holdLost(lockId: string): void {
    for (const handle of this.handles.values()) {
      if (handle.grant?.lockId !== lockId) continue;
      handle.lost = handle.writes;
      handle.grant = null;
      this.why.add(
        handle.owner,
        this.clock.nowMs(),
        `${this.pathOf(handle.node) ?? '(nameless)'}: its lock was broken`,
      );
    }
  }

  /** The session with the broker is lost, and with it every lock: handles that had one guard nothing any more. */
  sessionLost(): void {
    for (const handle of this.handles.values()) {
      if (handle.grant === null) continue;
      handle.lost = true;
      handle.grant = null;
    }
  }
}
