import { decodePath } from '../base/bytes.ts';
import type { FuseApi, Request } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';
import type { Node } from '../view/node.ts';
import { scratch } from '../view/scratch.ts';
import type { View } from '../view/view.ts';
import type { Answers } from './answers.ts';
import { Listing } from './listing.ts';
import { VIRTUAL_DIRECTORY } from './virtual.ts';
import type { Watch } from './watch.ts';

/** The open directories. */
export class Directories {
  readonly #view: View;
  readonly #api: FuseApi;
  readonly #answers: Answers;
  readonly #watch: Watch | null;
  readonly #listings = new Map<number, Listing>();
  #next = 1;

  constructor(view: View, api: FuseApi, answers: Answers, watch: Watch | null) {
    this.#watch = watch;
    this.#view = view;
    this.#api = api;
    this.#answers = answers;
  }

  open(req: Request, node: Node): void {
    this.#watch?.ensure(node);
    const fd = node.virtual !== null ? -1 : this.#view.reopen(node, sys.O_RDONLY | sys.O_DIRECTORY);
    if (fd < 0 && node.virtual === null) return void this.#api.replyError(req, -fd);
    const hidden = node === this.#view.tree.root ? VIRTUAL_DIRECTORY : null;
    const listing = new Listing(this.#next++, node, fd, hidden);
    this.#listings.set(listing.id, listing);
    if (this.#api.replyOpen(req, { fh: listing.id, flags: 0 }) < 0) this.close(listing.id);
  }

  /** A descriptor of the directory below, or -errno. */
  fd(fh: number): number {
    const fd = this.#listings.get(fh)?.fd ?? -1;
    return fd < 0 ? -sys.EINVAL : fd;
  }

  close(fh: number): void {
    this.#listings.get(fh)?.close();
    this.#listings.delete(fh);
  }

  end(): void {
    for (const fh of [...this.#listings.keys()]) this.close(fh);
  }

  /** READDIR; with `plus` READDIRPLUS, which tells the kernel of a node for each name but the dots. */
  list(req: Request, fh: number, offset: number, size: number, plus: boolean): void {
    const listing = this.#listings.get(fh);
    if (listing === undefined) return void this.#api.replyError(req, sys.EBADF);
    const names = listing.names(offset);
    if (typeof names === 'number') return void this.#api.replyError(req, -names);
    const writer = this.#api.dirents(size, plus);
    const told: Node[] = [];
    for (let at = offset; at < names.length; at++) {
      const { name, ino, type } = names[at]!;
      const node = plus && !isDots(name) ? this.#listed(listing.node, name) : null;
      const fits = plus
        ? writer.addPlus(name, ino, type, at + 1, node === null ? null : this.#answers.filled)
        : writer.add(name, ino, type, at + 1);
      if (!fits) {
        if (node !== null) this.#view.tree.release(node);
        break;
      }
      if (node === null) continue;
      node.lookups++;
      told.push(node);
    }
    if (writer.send(req) < 0) for (const node of told) this.#view.tree.forget(node, 1);
  }

  /** The node behind a listed name, with the entry filled; null: gone meanwhile. */
  #listed(parent: Node, name: Buffer): Node | null {
    const found = this.#view.tree.lookup(parent, decodePath(name), scratch);
    if (typeof found === 'number') return null;
    this.#answers.fillEntry(found);
    return found;
  }
}

function isDots(name: Buffer): boolean {
  return name[0] === 0x2e && (name.length === 1 || (name.length === 2 && name[1] === 0x2e));
}
