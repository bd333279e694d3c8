import { decodePath } from '../base/bytes.ts';
import type { FuseApi, Request } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';
import type { Node } from '../view/node.ts';
import { scratch } from '../view/scratch.ts';
import type { View } from '../view/view.ts';
import type { Answers } from './answers.ts';
import { Listing } from './listing.ts';
import { Listings } from './listings.ts';
import { OUTSIDE_MS } from './validity.ts';
import { VIRTUAL_DIRECTORY } from './virtual.ts';
import type { Watch } from './watch.ts';

/** The open directories. */
export class Directories {
  readonly #view: View;
  readonly #api: FuseApi;
  readonly #answers: Answers;
  readonly #watch: Watch | null;
  readonly #open = new Map<number, Listing>();
  readonly #listings: Listings;
  #next = 1;

  constructor(view: View, api: FuseApi, answers: Answers, watch: Watch | null, wallMs: () => number) {
    this.#watch = watch;
    this.#view = view;
    this.#api = api;
    this.#answers = answers;
    this.#listings = new Listings(wallMs, (node) => view.onOutdated(node));
  }

  open(req: Request, node: Node): void {
    this.#watch?.ensure(node);
    const fd = node.virtual !== null ? -1 : this.#view.reopen(node, sys.O_RDONLY | sys.O_DIRECTORY);
    if (fd < 0 && node.virtual === null) return void this.#api.replyError(req, -fd);
    const hidden = node === this.#view.tree.root ? VIRTUAL_DIRECTORY : null;
    const listing = new Listing(this.#next++, node, fd, hidden);
    this.#open.set(listing.id, listing);
    // With READDIRPLUS the kernel learns of each name anew. Where it forgets them soon, that is worth more than a listing that is kept.
    const keeps = fd >= 0 && this.#answers.namesValidMs(node) > OUTSIDE_MS;
    const flags = keeps ? this.#listings.opened(listing) : 0;
    if (this.#api.replyOpen(req, { fh: listing.id, flags }) < 0) this.close(listing.id);
  }

  /** A descriptor of the directory below, or -errno. */
  fd(fh: number): number {
    const fd = this.#open.get(fh)?.fd ?? -1;
    return fd < 0 ? -sys.EINVAL : fd;
  }

  close(fh: number): void {
    const listing = this.#open.get(fh);
    if (listing === undefined) return;
    this.#open.delete(fh);
    this.#listings.closed(listing);
    listing.close();
  }

  end(): void {
    for (const fh of [...this.#open.keys()]) this.close(fh);
  }

  /** READDIR; with `plus` READDIRPLUS, which tells the kernel of a node for each name but the dots. */
  list(req: Request, fh: number, offset: number, size: number, plus: boolean): void {
    const listing = this.#open.get(fh);
    if (listing === undefined) return void this.#api.replyError(req, sys.EBADF);
    const found = this.#listings.at(listing, offset);
    if (typeof found === 'number') return void this.#api.replyError(req, -found);
    const { names, list } = found;
    const writer = this.#api.dirents(size, plus);
    const told: Node[] = [];
    for (let at = found.position; at < list.length; at++) {
      const { name, ino, type } = list[at]!;
      const next = this.#listings.cookie(names, at);
      const node = plus && !isDots(name) ? this.#listed(listing.node, name) : null;
      const fits = plus
        ? writer.addPlus(name, ino, type, next, node === null ? null : this.#answers.filled)
        : writer.add(name, ino, type, next);
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
