import type { PathString } from '../base/bytes.ts';
import type { Request } from '../fuse/types.ts';
import type { Handle } from '../view/handle.ts';
import type { Node } from '../view/node.ts';
import type { CachedPages } from './pages.ts';

/** A front end with a memory of its own: of names and attributes that somebody may change through another one. */
export interface Door {
  attributesChanged(node: Node): void;
  /** What stands at `name`, if anything, is new; and with it the directory's times. */
  nameChanged(parent: Node, name: PathString): void;
}

/** The front ends of one view, each of which is told what changes through the others. */
export class Doors {
  readonly #doors = new Set<Door>();

  get size(): number {
    return this.#doors.size;
  }

  add(door: Door): void {
    this.#doors.add(door);
  }

  remove(door: Door): void {
    this.#doors.delete(door);
  }

  /** `from` changed it, and knows; null: nobody does. */
  changed(from: Door | null, node: Node): void {
    for (const door of this.#doors) if (door !== from) door.attributesChanged(node);
  }

  named(from: Door | null, parent: Node, name: PathString): void {
    for (const door of this.#doors) if (door !== from) door.nameChanged(parent, name);
  }
}

/** A kernel on another machine, whose processes are not in our /proc. */
export interface RemoteKernel {
  /** True when this thread, whose wait was interrupted, wants to give up. */
  wantsToStop(tid: number): boolean;
  /** True when a descriptor of this thread's process leads to the node that its request is about. */
  hasInode(tid: number): boolean;
  pagesOf(node: Node): CachedPages;
  /** A file is open, and `scratch` has its attributes: the answer follows. `fresh`: cached pages of it are dropped. */
  opened(req: Request, handle: Handle, fd: number, fresh: boolean): void;
}
