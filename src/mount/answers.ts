import type { Attr, Entry, FuseApi, Request } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';
import { type Node, Told } from '../view/node.ts';
import { scratch } from '../view/scratch.ts';
import type { View } from '../view/view.ts';
import type { Validity } from './validity.ts';
import type { VirtualFiles } from './virtual.ts';
import type { Watch } from './watch.ts';

export interface AnswerParts {
  readonly view: View;
  readonly api: FuseApi;
  readonly validity: Validity;
  /** Null: changes beside the view are not followed. */
  readonly watch: Watch | null;
  /** Null: the kernel that is answered is this machine's. */
  readonly remote: unknown;
  /** True while somebody writes to the file in a way that the kernel which we answer does not see. */
  readonly isWrittenUnseen: (node: Node) => boolean;
  readonly wallMs: () => number;
}

/**
 * Answers that carry attributes. They are taken from `scratch`, which the last look into the tree filled, into one
 * object that is used again and again: nothing is allocated.
 */
export class Answers {
  readonly #parts: AnswerParts;
  readonly #virtual: VirtualFiles;
  readonly attr: Attr = emptyAttr();
  readonly filled: Entry = { nodeid: 0, generation: 0, entryValidMs: 0, attrValidMs: 0, attr: this.attr };

  constructor(parts: AnswerParts, virtual: VirtualFiles) {
    this.#parts = parts;
    this.#virtual = virtual;
  }

  /**
   * `scratch` has its attributes. While an operation waits below it, or somebody may write to it through a mapping that passes the kernel's FUSE by, the kernel must
   * ask again. Of writes that do come through FUSE it marks the attributes stale itself.
   */
  attrValidMs(node: Node): number {
    const { validity, watch } = this.#parts;
    if (node.replays > 0 || (node.writers > 0 && this.#parts.isWrittenUnseen(node))) return 0;
    const validMs = watch?.follows(node) ? validity.followedMs : validity.ms;
    if (validMs > 0) this.#tells(node);
    return validMs;
  }

  #tells(node: Node): void {
    // Another kernel may remember something else by now, and be on the way to hear of it.
    if (this.#parts.remote !== null) this.#parts.view.looked(node, scratch);
    node.told ??= new Told();
    node.told.ctimeSec = scratch.ctimeSec;
    node.told.ctimeNsec = scratch.ctimeNsec;
    node.told.size = scratch.size;
    node.told.revoked = false;
  }

  /** How long the kernel may remember names in this directory. */
  namesValidMs(parent: Node | undefined): number {
    const { validity } = this.#parts;
    return parent !== undefined && parent.watchKey !== null ? validity.followedMs : validity.ms;
  }

  /**
   * The attributes after a change of them, which the kernel is not to remember: it takes them over when the caller gets to run, also when
   * it was told to forget them meanwhile. (Those that were only asked for have a version.)
   */
  changed(req: Request, node: Node): void {
    const error = this.#parts.view.tree.stat(node, scratch);
    if (error < 0) return void this.#parts.api.replyError(req, -error);
    this.fillAttr();
    this.#parts.api.replyAttr(req, this.attr, 0);
  }

  getattr(req: Request, node: Node): void {
    const { api, view, wallMs } = this.#parts;
    if (node.virtual !== null) {
      api.replyAttr(req, this.#virtual.attr(node, wallMs()), 0);
      return;
    }
    if (node.isDirectory) this.#parts.watch?.ensure(node);
    const error = view.tree.stat(node, scratch);
    if (error < 0) {
      api.replyError(req, -error);
      return;
    }
    this.fillAttr();
    api.replyAttr(req, this.attr, this.attrValidMs(node));
  }

  fillAttr(): void {
    const a = this.attr;
    a.ino = this.#parts.view.tree.inoOf(scratch);
    a.size = scratch.size;
    a.blocks = scratch.blocks;
    a.atimeSec = scratch.atimeSec;
    a.atimeNsec = scratch.atimeNsec;
    a.mtimeSec = scratch.mtimeSec;
    a.mtimeNsec = scratch.mtimeNsec;
    a.ctimeSec = scratch.ctimeSec;
    a.ctimeNsec = scratch.ctimeNsec;
    a.mode = scratch.mode;
    a.nlink = scratch.nlink;
    a.uid = scratch.uid;
    a.gid = scratch.gid;
    a.rdev = scratch.rdev;
    a.blksize = scratch.blksize;
  }

  /** Fills `filled` for `node`, whose attributes are in `scratch`. */
  fillEntry(node: Node): void {
    this.fillAttr();
    this.filled.nodeid = node.id;
    this.filled.entryValidMs = this.namesValidMs(node.dentry?.parent);
    this.filled.attrValidMs = this.attrValidMs(node);
  }

  /** Answers with an entry for `node`, whose attributes are in `scratch`, or with an error. */
  entry(req: Request, node: Node | number): void {
    const { api, view } = this.#parts;
    if (typeof node === 'number') {
      api.replyError(req, -node);
      return;
    }
    this.fillEntry(node);
    node.lookups++;
    if (api.replyEntry(req, this.filled) < 0) view.tree.forget(node, 1);
  }

  /** The name does not exist in this directory, and the kernel may remember that. */
  negative(req: Request, parent: Node): void {
    const { validity, watch } = this.#parts;
    this.filled.nodeid = 0;
    this.filled.entryValidMs = watch?.negatives ? this.namesValidMs(parent) : validity.ms;
    this.filled.attrValidMs = 0;
    this.#parts.api.replyEntry(req, this.filled);
  }

  virtual(req: Request, node: Node): void {
    const attr = this.#virtual.attr(node, this.#parts.wallMs());
    this.#parts.api.replyEntry(req, {
      nodeid: node.id,
      generation: 0,
      entryValidMs: 0,
      attrValidMs: 0,
      attr,
    });
  }

  /** Success for 0 and more, an error for -errno. */
  status(req: Request, error: number): void {
    if (error < 0) this.#parts.api.replyError(req, -error);
    else this.#parts.api.replyOk(req);
  }

  statx(req: Request, node: Node): void {
    const { api, view, wallMs } = this.#parts;
    if (node.virtual !== null) {
      const attr = this.#virtual.attr(node, wallMs());
      api.replyStatx(req, { attrValidMs: 0, mask: sys.STATX_BASIC_STATS, attr });
      return;
    }
    if (node.isDirectory) this.#parts.watch?.ensure(node);
    const error = view.tree.stat(node, scratch);
    if (error < 0) {
      api.replyError(req, -error);
      return;
    }
    this.fillAttr();
    const mask = scratch.mask & (sys.STATX_BASIC_STATS | sys.STATX_BTIME);
    const { btimeSec, btimeNsec } = scratch;
    api.replyStatx(req, { attrValidMs: this.attrValidMs(node), mask, attr: this.attr, btimeSec, btimeNsec });
  }
}

function emptyAttr(): Attr {
  const zero = { atimeSec: 0, atimeNsec: 0, mtimeSec: 0, mtimeNsec: 0, ctimeSec: 0, ctimeNsec: 0 };
  return { ino: 0, size: 0, blocks: 0, ...zero, mode: 0, nlink: 0, uid: 0, gid: 0, rdev: 0, blksize: 0 };
}
