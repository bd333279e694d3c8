/** getdents64(2) and its records (`struct linux_dirent64`: ino, off, reclen, type, name). */
import { decodePath, type PathString } from '../base/bytes.ts';
import { bind, result } from './libc.ts';

const c = { getdents64: bind('getdents64', 'int64', ['int', 'void *', 'size_t']) };

/** Bytes of whole records put into `buffer`; 0 at the end of the directory. */
export function getdents64(fd: number, buffer: Buffer): number {
  return result(c.getdents64(fd, buffer, buffer.length));
}

/**
 * Walks a directory with one buffer that is reused. `fill` fetches a batch, `next` steps to its next record;
 * the fields are of that record. Order and the dots are the file system's.
 */
export class DirentReader {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  #end = 0;
  #following = 0;
  #at = 0;
  #nameEnd = 0;

  constructor(sizeBytes = 64 * 1024) {
    this.#bytes = Buffer.alloc(sizeBytes);
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, sizeBytes);
  }

  /** Bytes fetched, 0 at the end, or `-errno`. */
  fill(fd: number): number {
    const length = getdents64(fd, this.#bytes);
    this.#end = Math.max(length, 0);
    this.#following = 0;
    return length;
  }

  /** False when the batch is used up. */
  next(): boolean {
    if (this.#following >= this.#end) return false;
    this.#at = this.#following;
    this.#following += this.#view.getUint16(this.#at + 16, true);
    const nul = this.#bytes.indexOf(0, this.#at + 19);
    this.#nameEnd = nul;
    return true;
  }

  get ino(): number | bigint {
    const high = this.#view.getUint32(this.#at + 4, true);
    const low = this.#view.getUint32(this.#at, true);
    return high < 0x20_0000 ? high * 0x1_0000_0000 + low : this.#view.getBigUint64(this.#at, true);
  }
  /** DT_*; DT_UNKNOWN on some file systems. */
  get type(): number {
    return this.#bytes[this.#at + 18]!;
  }
  /** Position of the next record for lseek(2): opaque, up to 2^63 on ext4. */
  get offset(): bigint {
    return this.#view.getBigInt64(this.#at + 8, true);
  }
  get isDots(): boolean {
    if (this.#bytes[this.#at + 19] !== 0x2e) return false;
    const length = this.#nameEnd - this.#at - 19;
    return length === 1 || (length === 2 && this.#bytes[this.#at + 20] === 0x2e);
  }
  /** The name's bytes inside the reader's buffer: valid until the next `fill`. */
  get nameBytes(): Buffer {
    return this.#bytes.subarray(this.#at + 19, this.#nameEnd);
  }
  get name(): PathString {
    return decodePath(this.nameBytes);
  }
}
