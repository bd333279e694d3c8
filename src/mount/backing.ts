import type { FuseApi } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';
import type { Handle } from '../view/handle.ts';
import type { Node } from '../view/node.ts';
import type { View } from '../view/view.ts';

/** FOPEN_* (linux/fuse.h). */
export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_NOFLUSH = 1 << 5;
export const FOPEN_PASSTHROUGH = 1 << 7;

/** How an open file's data travels. */
export interface Route {
  readonly flags: number;
  readonly backingId: number;
}

const CACHED: Route = { flags: 0, backingId: 0 };

/** BACKING_OPEN asks for it. */
const USER_BACKING_CAPS = sys.USER_CAPS | (1 << sys.CAP_SYS_ADMIN);

/**
 * Kernel passthrough: reads and writes go to the file below without us. One inode has one backing id, shared by its opens
 * and closed with the last; passthrough and cached opens of one inode do not mix (EIO), so who came first decides.
 *
 * The file below is written with the credentials under which its id was made. An ordinary user's write must clear
 * setuid and setgid bits and root's must not (CAP_FSETID), so an id is made under the first opener's ids. A writer of the other kind
 * who comes while that id is in use reads and writes through us (FOPEN_DIRECT_IO goes with passthrough, and is coherent with it).
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

  /** `uid`, `gid`: of the opener. */
  open(handle: Handle, uid: number, gid: number): Route {
    const node = handle.node;
    if (this.#possible && node.cachedUsers === 0) {
      const id = node.backingId > 0 ? node.backingId : this.#register(handle.node, uid, gid);
      if (id > 0) {
        node.backingId = id;
        node.backingUsers++;
        handle.passthrough = true;
        const direct = handle.writes && node.backingOfRoot !== (uid === 0) ? FOPEN_DIRECT_IO : 0;
        return { flags: FOPEN_PASSTHROUGH | FOPEN_NOFLUSH | direct, backingId: id };
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

  #register(node: Node, uid: number, gid: number): number {
    const fd = this.#view.tree.fd(node);
    if (fd < 0) return fd;
    node.backingOfRoot = uid === 0;
    const error = uid === 0 ? 0 : sys.asUser(uid, gid, USER_BACKING_CAPS);
    const id = error < 0 ? error : this.#api.backingOpen(fd);
    sys.asRoot();
    // Not allowed, or the disk below is stacked too deep: it will not work for the next file either.
    if (id === -sys.EPERM || id === -sys.ELOOP || id === -sys.EOPNOTSUPP || id === -sys.ENOTTY)
      this.#possible = false;
    return id;
  }
}
