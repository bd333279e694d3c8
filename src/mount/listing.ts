import * as sys from '../sys/index.ts';
import type { Node } from '../view/node.ts';

export interface ListedName {
  readonly name: Buffer;
  readonly ino: number | bigint;
  readonly type: number;
}

const reader = new sys.DirentReader(256 * 1024);

/**
 * An open directory. Its names are read as a whole when it is read from the start, so a name's position is its cookie:
 * stable for telldir(3) and seekdir(3) whatever is added or removed meanwhile, until rewinddir(3) reads anew. (The
 * cookies of ext4 are 63-bit hashes.)
 */
export class Listing {
  readonly id: number;
  readonly node: Node;
  fd: number;
  #names: ListedName[] = [];
  #filled = false;
  readonly #hidden: string | null;

  /** `hidden`: a name that is not listed. */
  constructor(id: number, node: Node, fd: number, hidden: string | null) {
    this.id = id;
    this.node = node;
    this.fd = fd;
    this.#hidden = hidden;
  }

  /** The names from position `from` on, or -errno. */
  names(from: number): readonly ListedName[] | number {
    if (from === 0 || !this.#filled) {
      const error = this.#fill();
      if (error < 0) return error;
    }
    return this.#names;
  }

  #fill(): number {
    if (this.fd < 0) return 0;
    sys.lseek(this.fd, 0, sys.SEEK_SET);
    const names: ListedName[] = [];
    for (;;) {
      const got = reader.fill(this.fd);
      if (got < 0) return got;
      if (got === 0) break;
      while (reader.next()) {
        if (this.#hidden !== null && reader.name === this.#hidden) continue;
        names.push({ name: Buffer.from(reader.nameBytes), ino: reader.ino, type: reader.type });
      }
    }
    this.#names = names;
    this.#filled = true;
    return 0;
  }

  close(): void {
    if (this.fd >= 0) sys.close(this.fd);
    this.fd = -1;
  }
}
