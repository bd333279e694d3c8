import { decodePath } from '../base/bytes.ts';
import * as sys from '../sys/index.ts';
import { longLine, writeAttributes } from './attributes.ts';
import type { Answer } from './packets.ts';
import { VIRTUAL_FILES, writeVirtualAttributes } from './virtual.ts';
import { VIRTUAL_DIRECTORY } from './walk.ts';

const reader = new sys.DirentReader(32 * 1024);
const stat = new sys.StatBuf();

/** An open directory, read from its start to its end, once. */
export class Listing {
  /** Of the directory below; -1: the virtual one. */
  fd: number;
  readonly #isRoot: boolean;
  /** Names that were read and not sent yet. */
  #names: Buffer[] = [];
  #at = 0;
  #virtual = false;

  constructor(fd: number, isRoot: boolean) {
    this.fd = fd;
    this.#isRoot = isRoot;
  }

  static virtual(): Listing {
    const listing = new Listing(-1, false);
    listing.#names = VIRTUAL_FILES.map((name) => Buffer.from(name));
    listing.#virtual = true;
    return listing;
  }

  /**
   * Writes the count and about as many names as fit: name, line of `ls -l`, attributes. How many; 0: the end; or -errno.
   * A name that is gone by now is left out.
   */
  write(answer: Answer, maxBytes: number, nowMs: number): number {
    const countAt = answer.length;
    answer.u32(0);
    let count = 0;
    while (answer.length < maxBytes) {
      if (this.#at === this.#names.length) {
        const more = this.#fill();
        if (more < 0) return count > 0 ? this.#counted(answer, countAt, count) : more;
        if (more === 0) break;
      }
      const name = this.#names[this.#at++]!;
      if (this.#entry(answer, name, nowMs)) count++;
    }
    return this.#counted(answer, countAt, count);
  }

  #counted(answer: Answer, at: number, count: number): number {
    answer.patch(at, count);
    return count;
  }

  #entry(answer: Answer, name: Buffer, nowMs: number): boolean {
    if (this.#virtual) {
      answer.bytes(name).bytes(name);
      writeVirtualAttributes(answer, 'about', nowMs);
      return true;
    }
    // Above the root there is nothing to be told of.
    const asked = this.#isRoot && name.equals(Buffer.from('..')) ? '.' : decodePath(name);
    if (sys.statx(this.fd, asked, sys.AT_SYMLINK_NOFOLLOW, stat) < 0) return false;
    answer.bytes(name).bytes(Buffer.concat([Buffer.from(longLine(stat, stat.nlink, nowMs)), name]));
    writeAttributes(answer, stat);
    return true;
  }

  /** Names read, 0 at the end, or -errno. */
  #fill(): number {
    if (this.fd < 0) return 0;
    const got = reader.fill(this.fd);
    if (got <= 0) return got;
    this.#names = [];
    this.#at = 0;
    while (reader.next())
      if (!(this.#isRoot && reader.name === VIRTUAL_DIRECTORY))
        this.#names.push(Buffer.from(reader.nameBytes));
    return this.#names.length === 0 ? this.#fill() : this.#names.length;
  }

  close(): void {
    if (this.fd >= 0) sys.close(this.fd);
    this.fd = -1;
  }
}
