/**
 * Opens that wait. Each is answered when its lock is granted, and everything else goes on meanwhile; but not for ever, and not too many at
 * once, because a client has few threads: see `parkedOpens`, and the wait limit in the view's options. sshfs asks for the attributes of a path
 * right behind its open, and takes the answer for those of the file that it opened: that one is kept back until the open is answered.
 */
import * as sys from '../sys/index.ts';
import type { Actor, Caller } from '../view/actors.ts';
import type { Handle } from '../view/handle.ts';
import type { Node } from '../view/node.ts';
import type { Opening } from '../view/opening.ts';
import * as ops from '../view/ops.ts';
import type { Changes } from './changes.ts';
import { SFTP_LIMITS } from './protocol.ts';
import { callerOf, type Shared } from './shared.ts';

/** A name that leads elsewhere when its lock is granted is looked up again so often. */
const TRIES = 5;

export interface OpenRequest {
  readonly path: Buffer;
  readonly key: string;
  /** open(2) flags. */
  readonly flags: number;
  /** Of a new file; undefined: 0666. */
  readonly mode: number | undefined;
  readonly actor: Actor;
}

/** `handle`, which the receiver closes; or -errno with words. */
export type OpenDone = (result: Handle | number, message: string, caller: Caller) => void;

class Pending {
  readonly request: OpenRequest;
  readonly caller: Caller;
  readonly done: OpenDone;
  opening: Opening | null = null;
  /** Known until it is answered, whoever else forgets it. */
  node: Node | null = null;
  timer: { cancel(): void } | null = null;
  parked = false;
  creates = false;
  /** What follows it: run when it is answered. */
  readonly after: (() => void)[] = [];
  tries = TRIES;

  constructor(request: OpenRequest, caller: Caller, done: OpenDone) {
    this.request = request;
    this.caller = caller;
    this.done = done;
  }
}

export class Opens {
  readonly #shared: Shared;
  readonly #changes: Changes;
  /** By the number of the request's actor. */
  readonly #pending = new Map<number, Pending>();
  readonly #newest = new Map<string, Pending>();

  constructor(shared: Shared, changes: Changes) {
    this.#shared = shared;
    this.#changes = changes;
  }

  get size(): number {
    return this.#pending.size;
  }

  get parked(): number {
    let count = 0;
    for (const pending of this.#pending.values()) if (pending.parked) count++;
    return count;
  }

  start(request: OpenRequest, done: OpenDone): void {
    const tid = this.#shared.actors.add(request.actor);
    const pending = new Pending(request, callerOf(this.#shared, tid), done);
    this.#pending.set(tid, pending);
    this.#newest.set(request.key, pending);
    this.#walk(pending);
    if (!this.#pending.has(tid)) return;
    const { clock, options } = this.#shared.view;
    pending.timer = clock.after((options.waitMs ?? 0) + SFTP_LIMITS.answerMs, () => {
      // A create has its own limit.
      if (pending.opening === null) return;
      this.#stop(pending);
      this.#end(pending, -sys.ENOLCK, 'the broker does not answer');
    });
  }

  /**
   * A request for the attributes of `key` came. True: it belongs behind an open of that path, and `run` is called after that one's
   * answer. Of a parked open that is the first such request; others are for other programs, and must not wait.
   */
  follows(key: string, run: () => void): boolean {
    const pending = this.#newest.get(key);
    if (pending === undefined || (!pending.creates && pending.after.length > 0)) return false;
    pending.after.push(run);
    return true;
  }

  /** The broker says that this one has to wait. False: there is none. */
  queued(tid: number): boolean {
    const pending = this.#pending.get(tid);
    if (pending === undefined) return false;
    if (pending.parked || pending.opening === null) return true;
    if (this.parked < SFTP_LIMITS.parkedOpens) {
      pending.parked = true;
      return true;
    }
    this.#stop(pending);
    this.#end(pending, -sys.EAGAIN, `${SFTP_LIMITS.parkedOpens} opens of this connection wait already`);
    return true;
  }

  /** The connection ended: all leave the queue. */
  close(): void {
    for (const [tid, pending] of this.#pending) {
      this.#stop(pending);
      pending.timer?.cancel();
      this.#shared.view.kept.drop(tid);
      this.#shared.actors.remove(tid);
    }
    this.#pending.clear();
    this.#newest.clear();
  }

  /** Leaves the queue, if it is in one. */
  #stop(pending: Pending): void {
    pending.opening?.cancel();
    pending.opening = null;
    if (pending.node !== null) this.#shared.view.tree.forget(pending.node, 1);
    pending.node = null;
  }

  #walk(pending: Pending): void {
    const { walker } = this.#shared;
    const { flags, path } = pending.request;
    const creates = (flags & sys.O_CREAT) !== 0;
    const exclusive = creates && (flags & sys.O_EXCL) !== 0;
    const place = walker.walk(path, !exclusive);
    if (typeof place === 'number') return this.#end(pending, place, '');
    const { node, parent, name } = place;
    if (node === null) {
      if (creates) this.#create(pending, parent, name);
      else this.#end(pending, -sys.ENOENT, '');
      return;
    }
    if (exclusive) this.#end(pending, -sys.EEXIST, '');
    else if (node.isDirectory) this.#end(pending, -sys.EISDIR, '');
    // What is no regular file could make the server wait: a FIFO, a device.
    else if (!node.isRegular) this.#end(pending, -sys.EPERM, 'it is no regular file');
    else return this.#open(pending, node);
    walker.done(place);
  }

  #open(pending: Pending, node: Node): void {
    const { view } = this.#shared;
    const { caller } = pending;
    const flags = pending.request.flags & ~(sys.O_CREAT | sys.O_EXCL);
    node.lookups++;
    pending.node = node;
    let over = false;
    const done = (error: number, handle: Handle | null) => {
      over = true;
      pending.opening = null;
      pending.node = null;
      node.lookups--;
      if (handle === null) view.tree.release(node);
      if (!this.#pending.has(caller.tid)) {
        view.kept.drop(caller.tid);
        if (handle !== null) view.close(handle);
        return;
      }
      // The name leads to another inode by now. Its grant is kept for the same caller.
      if (error === -sys.ESTALE && --pending.tries > 0) return this.#walk(pending);
      if (handle === null) return this.#end(pending, error, '');
      const fd = view.fdOf(handle);
      if (fd >= 0) return this.#end(pending, handle, '');
      view.close(handle);
      this.#end(pending, fd, '');
    };
    const opening = view.open(caller, node, flags, false, done);
    if (!over) pending.opening = opening;
  }

  #create(pending: Pending, parent: Node, name: string): void {
    const { view, umask } = this.#shared;
    const { caller } = pending;
    const { flags, mode, actor } = pending.request;
    pending.creates = true;
    let made: ops.Created | number = -sys.EBUSY;
    this.#changes.run(
      { op: 'create', parent, name },
      (grant) => {
        made = ops.create(view, caller, parent, name, flags, mode ?? 0o666, umask);
        if (typeof made === 'number') {
          grant?.release();
          return made;
        }
        const handle = view.addHandle(made.node, flags, actor, grant);
        handle.fd = made.fd;
        handle.made = true;
        if (this.#pending.has(caller.tid)) this.#end(pending, handle, '');
        else view.close(handle);
        return 0;
      },
      (error, message) => {
        if (error === 0 || !this.#pending.has(caller.tid)) return;
        // Somebody made it meanwhile: then it is an open like any other.
        if (error === -sys.EEXIST && (flags & sys.O_EXCL) === 0 && --pending.tries > 0) this.#walk(pending);
        else this.#end(pending, error, message);
      },
      caller,
    );
  }

  #end(pending: Pending, result: Handle | number, message: string): void {
    const { request, caller, done, after } = pending;
    pending.timer?.cancel();
    this.#pending.delete(caller.tid);
    if (this.#newest.get(request.key) === pending) this.#newest.delete(request.key);
    // Of a name that led elsewhere, and now leads to nothing that can be opened.
    this.#shared.view.kept.drop(caller.tid);
    done(result, message, caller);
    if (typeof result === 'number') this.#shared.actors.remove(caller.tid);
    for (const run of after) run();
  }
}
