/** The body of READDIR and READDIRPLUS answers: `fuse_dirent` and `fuse_direntplus` records, each padded to 8 bytes. */
import { DIRENT_BYTES, DIRENTS_BYTES_MAX, ENTRY_OUT_BYTES, OUT_HEADER_BYTES } from './abi.ts';
import { put64, putEntry, putNoEntry } from './encode.ts';
import type { DirentWriter, Entry, Request } from './types.ts';

const FIRST_BYTES = 64 * 1024;

/**
 * One per session, reused: a listing is filled and sent before the next one is begun. It has a buffer of its own, so
 * other answers may go out meanwhile.
 */
export class DirentBuffer implements DirentWriter {
  #bytes = Buffer.alloc(FIRST_BYTES);
  #words = new Uint32Array(this.#bytes.buffer, this.#bytes.byteOffset, FIRST_BYTES / 4);
  #at = OUT_HEADER_BYTES;
  #end = OUT_HEADER_BYTES;
  #plus = false;
  readonly #send: (req: Request, bytes: Buffer, words: Uint32Array, length: number) => number;

  /** `send` fills in the header and writes the first `length` bytes. */
  constructor(send: (req: Request, bytes: Buffer, words: Uint32Array, length: number) => number) {
    this.#send = send;
  }

  begin(sizeBytes: number, plus: boolean): this {
    const size = Math.min(Math.max(sizeBytes, 0), DIRENTS_BYTES_MAX);
    const needed = OUT_HEADER_BYTES + size;
    if (needed > this.#bytes.length) {
      const length = Math.ceil(needed / 4096) * 4096;
      this.#bytes = Buffer.alloc(length);
      this.#words = new Uint32Array(this.#bytes.buffer, this.#bytes.byteOffset, length / 4);
    }
    this.#at = OUT_HEADER_BYTES;
    this.#end = needed;
    this.#plus = plus;
    return this;
  }

  add(name: Buffer, ino: number | bigint, type: number, next: number): boolean {
    return this.#plus ? this.addPlus(name, ino, type, next, null) : this.#record(name, ino, type, next, 0);
  }

  addPlus(name: Buffer, ino: number | bigint, type: number, next: number, entry: Entry | null): boolean {
    if (!this.#plus) return this.#record(name, ino, type, next, 0);
    const at = this.#at >> 2;
    if (!this.#record(name, ino, type, next, ENTRY_OUT_BYTES)) return false;
    if (entry === null) putNoEntry(this.#words, at);
    else putEntry(this.#words, at, entry);
    return true;
  }

  #record(name: Buffer, ino: number | bigint, type: number, next: number, before: number): boolean {
    const used = before + DIRENT_BYTES + name.length;
    const padded = (used + 7) & ~7;
    if (this.#at + padded > this.#end) return false;
    const at = (this.#at + before) >> 2;
    put64(this.#words, at, ino);
    put64(this.#words, at + 2, next);
    this.#words[at + 4] = name.length;
    this.#words[at + 5] = type;
    this.#bytes.set(name, this.#at + before + DIRENT_BYTES);
    this.#bytes.fill(0, this.#at + used, this.#at + padded);
    this.#at += padded;
    return true;
  }

  /** An empty listing is the end of the directory. */
  send(req: Request): number {
    return this.#send(req, this.#bytes, this.#words, this.#at);
  }
}
