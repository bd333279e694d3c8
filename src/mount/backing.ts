import type { FuseApi } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';
import type { Handle } from '../view/handle.ts';
import type { View } from '../view/view.ts';

/** FOPEN_* (linux/fuse.h). */
export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_NOFLUSH = 1 << 5;
export const FOPEN_PASSTHROUGH = 1 << 7;

/** How an open file's data travels. */
export interface Route {
  readonly flags: number;
  readonly backingId: number;
}

const CACHED: Route = { flags: 0, backingId: 0 };

/**
 * Kernel passthrough: reads and writes go to the file below without us. One inode has one backing id, shared by its opens
 * and closed with the last; passthrough and cached opens of one inode do not mix (EIO), so who came first decides.
 */
export class Backing {
  readonly #view: View;
  readonly #api: FuseApi;
  #possible: boolean;

  constructor(view: View, api: FuseApi, possible: boolean) {
    this.#view = view;
    this.#api = api;
    this.#possible = possible;
  }

  get possible(): boolean {
    return this.#possible;
  }

  open(handle: Handle): Route {
    const node = handle.node;
    if (this.#possible && node.cachedUsers === 0) {
      const id = node.backingId > 0 ? node.backingId : this.#register(handle);
      if (id > 0) {
        node.backingId = id;
        node.backingUsers++;
        handle.passthrough = true;
        return { flags: FOPEN_PASSTHROUGH | FOPEN_NOFLUSH, backingId: id };
      }
    }
    node.cachedUsers++;
    return CACHED;
  }

  /** Also undoes an open whose answer was not delivered. */
  close(handle: Handle): void {
    const node = handle.node;
    if (!handle.passthrough) {
      node.cachedUsers--;
      return;
    }
    if (--node.backingUsers > 0) return;
    this.#api.backingClose(node.backingId);
    node.backingId = 0;
  }

  #register(handle: Handle): number {
    const fd = this.#view.tree.fd(handle.node);
    const id = fd < 0 ? fd : this.#api.backingOpen(fd);
    // Not allowed, or the disk below is stacked too deep: it will not work for the next file either.
    if (id === -sys.EPERM || id === -sys.ELOOP || id === -sys.EOPNOTSUPP || id === -sys.ENOTTY)
      this.#possible = false;
    return id;
  }
}
