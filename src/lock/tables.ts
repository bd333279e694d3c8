import { classOf } from './conflict.ts';
import { Entry, type Lock, Owner, Session } from './state.ts';
import { Tree } from './tree.ts';
import type { Target } from './types.ts';

/** All that is known, by name. What is empty is forgotten. */
export class Tables {
  readonly locks = new Map<string, Lock>();
  readonly waiting = new Set<Lock>();
  readonly #owners = new Map<string, Owner>();
  readonly #sessions = new Map<string, Session>();
  readonly #volumes = new Map<string, Tree>();
  readonly work = { visited: 0, examined: 0 };
  #serial = 0;

  owner(name: string): Owner {
    let owner = this.#owners.get(name);
    if (owner === undefined) this.#owners.set(name, (owner = new Owner(name)));
    return owner;
  }

  session(name: string): Session {
    let session = this.#sessions.get(name);
    if (session === undefined) this.#sessions.set(name, (session = new Session(name)));
    return session;
  }

  findSession(name: string): Session | undefined {
    return this.#sessions.get(name);
  }

  findTree(volume: string): Tree | undefined {
    return this.#volumes.get(volume);
  }

  tree(volume: string): Tree {
    let tree = this.#volumes.get(volume);
    if (tree === undefined) this.#volumes.set(volume, (tree = new Tree(this.work)));
    return tree;
  }

  entry(lock: Lock, target: Target): Entry {
    const node = lock.tree.open(target.path);
    return new Entry(lock, target, classOf(target.mode, lock.kind), node, ++this.#serial);
  }

  enter(lock: Lock): void {
    lock.owner.locks++;
    lock.session.locks++;
  }

  leave(lock: Lock): void {
    lock.session.locks--;
    if (--lock.owner.locks === 0) this.#owners.delete(lock.owner.name);
    this.#forgetSession(lock.session);
  }

  /** Forgets the names that only a request which came to nothing had brought up. */
  forget(lock: Lock): void {
    if (lock.owner.locks === 0) this.#owners.delete(lock.owner.name);
    this.#forgetSession(lock.session);
  }

  #forgetSession(session: Session): void {
    if (session.locks === 0 && session.requests.size === 0) this.#sessions.delete(session.name);
  }

  counts() {
    let nodes = 0;
    for (const tree of this.#volumes.values()) nodes += tree.size;
    return { owners: this.#owners.size, sessions: this.#sessions.size, volumes: this.#volumes.size, nodes };
  }
}
