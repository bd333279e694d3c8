import type { FuseApi } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';
import type { Caller } from '../view/actors.ts';
import type { Handle } from '../view/handle.ts';
import type { Node } from '../view/node.ts';
import { scratch } from '../view/scratch.ts';
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

/** Through the kernel's page cache, and us. */
export const CACHED: Route = { flags: 0, backingId: 0 };

/** BACKING_OPEN asks for it. */
const USER_BACKING_CAPS = sys.USER_CAPS | (1 << sys.CAP_SYS_ADMIN);

/**
 * Kernel passthrough: reads and writes go to the file below without us. One inode has one backing id, shared by its opens, and
 * kept for later ones of the same user as long as the inode's O_PATH descriptor, from which it was made. Passthrough and
 * cached opens of one inode do not mix (EIO), so who came first decides.
 *
 * The file below is written with the credentials under which its id was made. An ordinary user's write must clear
 * setuid and setgid bits and root's must not (CAP_FSETID), nor a member's of the group that a setgid file without execute permission
 * for the group belongs to. So an id is made under the first opener's ids. A writer of another kind who comes while that id is in use
 * reads and writes through us (FOPEN_DIRECT_IO goes with passthrough, and is coherent with it).
 */
export class Backing {
  readonly #view: View;
  readonly #api: FuseApi;
  #possible: boolean;

  constructor(view: View, api: FuseApi, possible: boolean) {
    this.#view = view;
    this.#api = api;
    this.#possible = possible;
    view.tree.onDescriptorDropped((node) => this.#end(node));
  }

  get possible(): boolean {
    return this.#possible;
  }

  open(handle: Handle, caller: Caller): Route {
    const node = handle.node;
    if (this.#possible && node.cachedUsers === 0) {
      if (node.backingUsers === 0 && node.backingId > 0 && !this.#serves(node, caller)) this.#end(node);
      const id = node.backingId > 0 ? node.backingId : this.#register(node, caller);
      if (id > 0) {
        node.backingId = id;
        node.backingUsers++;
        handle.passthrough = true;
        const direct = handle.writes && node.backingOf !== this.#kindOf(node, caller) ? FOPEN_DIRECT_IO : 0;
        return { flags: FOPEN_PASSTHROUGH | FOPEN_NOFLUSH | direct, backingId: id };
      }
    }
    node.cachedUsers++;
    return CACHED;
  }

  /** True when the id that is kept was made for this very caller. */
  #serves(node: Node, caller: Caller): boolean {
    const kind = this.#kindOf(node, caller);
    if (kind === 'member' || kind !== node.backingOf) return false;
    return node.backingUid === caller.uid && node.backingGid === caller.gid;
  }

  /** Also undoes an open whose answer was not delivered. */
  close(handle: Handle): void {
    const node = handle.node;
    if (!handle.passthrough) {
      node.cachedUsers--;
      return;
    }
    node.backingUsers--;
    // Without its descriptor nothing would end it later.
    if (node.backingUsers === 0 && node.fd < 0) this.#end(node);
  }

  #end(node: Node): void {
    if (node.backingId > 0) this.#api.backingClose(node.backingId);
    node.backingId = 0;
  }

  #register(node: Node, caller: Caller): number {
    const fd = this.#view.tree.fd(node);
    if (fd < 0) return fd;
    const kind = this.#kindOf(node, caller);
    node.backingOf = kind;
    node.backingUid = caller.uid;
    node.backingGid = caller.gid;
    const gid = kind === 'member' ? scratch.gid : caller.gid;
    const error = kind === 'root' ? 0 : sys.asUser(caller.uid, gid, USER_BACKING_CAPS);
    const id = error < 0 ? error : this.#api.backingOpen(fd);
    sys.asRoot();
    // Not allowed, or the disk below is stacked too deep: it will not work for the next file either.
    if (id === -sys.EPERM || id === -sys.ELOOP || id === -sys.EOPNOTSUPP || id === -sys.ENOTTY)
      this.#possible = false;
    return id;
  }

  /** Of a member `scratch` has the attributes of the file. */
  #kindOf(node: Node, caller: Caller): 'root' | 'user' | 'member' {
    if (caller.uid === 0) return 'root';
    // Hardly any file has this bit without the other: nobody else pays for the look.
    if ((node.mode & (sys.S_ISGID | sys.S_IXGRP)) !== sys.S_ISGID) return 'user';
    if (this.#view.tree.stat(node, scratch) < 0) return 'user';
    return this.#view.writesAs(caller, scratch.mode, scratch.gid) ? 'member' : 'user';
  }
}
