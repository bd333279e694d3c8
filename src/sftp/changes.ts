/**
 * Changes of names and attributes by path. They take their lock now or fail: whatever of them waited would hold a path in the
 * client that the lock's holder may need to go on (sshfs locks its paths while it asks).
 */
import * as sys from '../sys/index.ts';
import type { Caller } from '../view/actors.ts';
import type { Handle } from '../view/handle.ts';
import type { Grant } from '../view/locks.ts';
import type { Node } from '../view/node.ts';
import { covers, errnoOf } from '../view/opening.ts';
import * as ops from '../view/ops.ts';
import { Reservation } from '../view/reserve.ts';
import type { PathOp, Plan } from '../view/targets.ts';
import type { View } from '../view/view.ts';
import { SFTP_LIMITS } from './protocol.ts';

/**
 * How long a change waits for a file that this very connection has open: sshfs sends the CLOSE of a file from another thread, so that the
 * rename which a program makes after it may come first.
 */
const CLOSING_MS = 500;
/** The same plan is made anew when what stands at its names has changed while its lock was on its way. */
const TRIES = 3;

/** Carries it out; owns the grant. 0 or -errno. */
export type Run = (grant: Grant | null, plan: Plan) => number;
export type Done = (error: number, message: string) => void;

export class Changes {
  readonly #view: View;
  readonly #caller: Caller;
  /** This connection's open files. */
  readonly #own: (handle: Handle) => boolean;
  readonly #hasOpen: () => boolean;
  /** On their way, each with the nodes that must not be forgotten meanwhile. */
  readonly #open = new Map<Reservation, readonly Node[]>();

  constructor(view: View, caller: Caller, own: (handle: Handle) => boolean, hasOpen: () => boolean) {
    this.#view = view;
    this.#caller = caller;
    this.#own = own;
    this.#hasOpen = hasOpen;
  }

  /** The connection ended: nothing of it is carried out any more, and nobody is told. */
  close(): void {
    for (const [reservation, pinned] of this.#open) {
      reservation.drop();
      for (const node of pinned) this.#view.tree.forget(node, 1);
    }
    this.#open.clear();
  }

  /** Takes the locks of `op` and runs it. `caller`: who, when it is not the connection itself (a create is its handle's). */
  run(op: PathOp, run: Run, done: Done, caller = this.#caller, tries = TRIES): void {
    const view = this.#view;
    const plan = view.planner.of(op);
    if (plan.targets.length === 0) return done(run(null, plan), '');
    const pinned = nodesOf(op);
    for (const node of pinned) node.lookups++;
    const kind = op.op === 'create' || plan.handsOver ? 'handle' : 'name';
    let early = false;
    let reservation: Reservation | undefined;
    const waitMs = this.#waitMs(op);
    const settled = () => {
      if (reservation === undefined) {
        early = true;
        return;
      }
      timer.cancel();
      this.#open.delete(reservation);
      for (const node of pinned) node.lookups--;
      this.#settled(reservation, op, run, done, caller, tries);
      for (const node of pinned) view.tree.release(node);
    };
    reservation = new Reservation(view, caller, plan, kind, { settled, queued() {} }, waitMs);
    this.#open.set(reservation, pinned);
    const timer = view.clock.after(waitMs + SFTP_LIMITS.answerMs, () => {
      if (!this.#open.delete(reservation)) return;
      reservation.drop();
      for (const node of pinned) view.tree.forget(node, 1);
      done(-sys.ENOLCK, 'the broker does not answer');
    });
    if (early) settled();
  }

  #settled(reservation: Reservation, op: PathOp, run: Run, done: Done, caller: Caller, tries: number): void {
    const { refusal, plan } = reservation;
    const grant = reservation.take();
    if (grant === null) {
      const message = refusal === null ? 'its lock cannot be had' : refusal.message;
      return done(refusal === null ? -sys.EBUSY : -errnoOf(refusal.code), message);
    }
    if (!this.#view.hasAuthority()) {
      grant.release();
      return done(-sys.ESTALE, 'the session with the broker may be over');
    }
    const now = this.#view.planner.of(op);
    if (covers(grant.targets, now.targets)) return done(run(grant, plan), '');
    grant.release();
    if (tries > 1) this.run(op, run, done, caller, tries - 1);
    else done(-sys.EBUSY, 'somebody else changes these names');
  }

  #waitMs(op: PathOp): number {
    for (const node of standing(op)) {
      if (node.isDirectory ? this.#hasOpen() : [...node.handles].some(this.#own)) return CLOSING_MS;
    }
    return 0;
  }

  // ------------------------------------------------------------ each of them

  make(op: PathOp & { op: 'mkdir' | 'symlink' }, run: () => Node | number, done: Done): void {
    const make: Run = (grant) => {
      const made = run();
      grant?.release();
      if (typeof made === 'number') return made;
      this.#view.tree.release(made);
      return 0;
    };
    this.run(op, make, done);
  }

  unlink(parent: Node, name: string, done: Done): void {
    const run: Run = (grant) => {
      const error = ops.unlink(this.#view, parent, name);
      grant?.release();
      return error;
    };
    this.run({ op: 'unlink', parent, name }, run, done);
  }

  rmdir(parent: Node, name: string, done: Done): void {
    const run: Run = (grant) => {
      const error = ops.rmdir(this.#view, parent, name);
      grant?.release();
      return error;
    };
    this.run({ op: 'rmdir', parent, name }, run, done);
  }

  rename(op: PathOp & { op: 'rename' }, done: Done): void {
    const { parent, name, newParent, newName, flags } = op;
    const run: Run = (grant, plan) =>
      ops.rename(this.#view, parent, name, newParent, newName, flags, grant, plan.handsOver);
    this.run(op, run, done);
  }

  link(node: Node, parent: Node, name: string, done: Done): void {
    const run: Run = (grant, plan) => {
      const linked = ops.link(this.#view, node, parent, name, grant, plan.handsOver);
      return typeof linked === 'number' ? linked : 0;
    };
    this.run({ op: 'link', node, parent, name }, run, done);
  }

  setattr(node: Node, attributes: ops.Attributes, done: Done): void {
    const set = () => ops.setattr(this.#view, this.#caller, node, attributes, null);
    const op = attributes.size === undefined ? 'setattr' : 'truncate';
    // What comes by a descriptor comes as a path all the same (fchmod, futimens): who has the file open does not wait for itself.
    if (op === 'setattr' && [...node.handles].some(this.#own)) return done(set(), '');
    const run: Run = (grant) => {
      const error = set();
      grant?.release();
      return error;
    };
    this.run({ op, node }, run, done);
  }
}

/** The nodes that an operation names, which must not be forgotten meanwhile. */
function nodesOf(op: PathOp): Node[] {
  if (op.op === 'rename') return [op.parent, op.newParent];
  return [...('parent' in op ? [op.parent] : []), ...('node' in op ? [op.node] : [])];
}

/** What stands where it changes something, as far as it is known. */
function standing(op: PathOp): Node[] {
  const nodes: (Node | undefined)[] = [];
  if ('node' in op) nodes.push(op.node);
  if ('name' in op) nodes.push(op.parent.children?.get(op.name));
  if (op.op === 'rename') nodes.push(op.newParent.children?.get(op.newName));
  return nodes.filter((node) => node !== undefined);
}
