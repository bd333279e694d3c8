import * as sys from '../sys/index.ts';
import type { Node, PagesVersion } from '../view/node.ts';

export interface ListedName {
  readonly name: Buffer;
  readonly ino: number | bigint;
  readonly type: number;
}

const reader = new sys.DirentReader(256 * 1024);

/**
 * The names of a directory, read as a whole: a name's position in them is its cookie, stable for telldir(3) and seekdir(3) whatever is
 * added or removed meanwhile. (The cookies of ext4 are 63-bit hashes.)
 */
export class Names {
  /** Part of their cookies, so that those of others of the same directory are not taken for them. */
  readonly generation: number;
  /** What the directory was like before they were read; null: they are not to be shown to who opens it later. */
  readonly version: PagesVersion | null;
  /** Null: not read yet. */
  list: readonly ListedName[] | null = null;

  constructor(generation: number, version: PagesVersion | null) {
    this.generation = generation;
    this.version = version;
  }

  /** Reads them from `fd`, without the name `hidden`, unless they are known. 0 or -errno. */
  fill(fd: number, hidden: string | null): number {
    if (this.list !== null) return 0;
    const names: ListedName[] = [];
    if (fd >= 0) sys.lseek(fd, 0, sys.SEEK_SET);
    while (fd >= 0) {
      const got = reader.fill(fd);
      if (got < 0) return got;
      if (got === 0) break;
      while (reader.next()) {
        if (hidden !== null && reader.name === hidden) continue;
        names.push({ name: Buffer.from(reader.nameBytes), ino: reader.ino, type: reader.type });
      }
    }
    this.list = names;
    return 0;
  }
}

/** An open directory. */
export class Listing {
  readonly id: number;
  readonly node: Node;
  fd: number;
  /** A name that is not listed. */
  readonly hidden: string | null;
  /** Of the last time that it was read from its start. */
  names = new Names(0, null);
  /** The kernel keeps what it is told by this handle, and shows it what others were told. */
  cached = false;

  constructor(id: number, node: Node, fd: number, hidden: string | null) {
    this.id = id;
    this.node = node;
    this.fd = fd;
    this.hidden = hidden;
  }

  close(): void {
    if (this.fd >= 0) sys.close(this.fd);
    this.fd = -1;
  }
}
