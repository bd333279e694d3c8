/** One request as it lies in the input buffer. Reading beyond its end gives 0 or no name, never an exception. */
import { decodePath, type PathString } from '../base/bytes.ts';
import { IN_HEADER_BYTES, NAME_BYTES_MAX } from './abi.ts';

const TWO32 = 0x1_0000_0000;
/** First word of the body, after `fuse_in_header`. */
const BODY = IN_HEADER_BYTES / 4;

export class Message {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
  /** Where the request ends, without the extensions behind it. */
  end = 0;

  /** `sizeBytes`: a multiple of 4. */
  constructor(sizeBytes: number) {
    this.bytes = Buffer.alloc(sizeBytes);
    this.words = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, sizeBytes / 4);
  }

  /**
   * Takes the header of the `length` bytes in the buffer. False when it is not a request: too short, or a length
   * that contradicts itself.
   */
  begin(length: number): boolean {
    if (length < IN_HEADER_BYTES || length > this.bytes.length || this.words[0] !== length) return false;
    this.end = length - (this.words[9]! & 0xffff) * 8;
    return this.end >= IN_HEADER_BYTES;
  }

  get opcode(): number {
    return this.words[1]!;
  }
  get unique(): number {
    return this.words[3]! * TWO32 + this.words[2]!;
  }
  get nodeid(): number {
    return this.words[5]! * TWO32 + this.words[4]!;
  }
  get uid(): number {
    return this.words[6]!;
  }
  get gid(): number {
    return this.words[7]!;
  }
  get pid(): number {
    return this.words[8]!;
  }
  get bodyBytes(): number {
    return this.end - IN_HEADER_BYTES;
  }

  /** The 32-bit field at byte `at` of the body. */
  u32(at: number): number {
    return this.words[BODY + (at >> 2)]!;
  }

  /** The 64-bit field there; exact below 2^53, and above that at least as large as 2^53. */
  u64(at: number): number {
    const index = BODY + (at >> 2);
    return this.words[index + 1]! * TWO32 + this.words[index]!;
  }

  /** The same field, signed. */
  i64(at: number): number {
    const index = BODY + (at >> 2);
    return (this.words[index + 1]! | 0) * TWO32 + this.words[index]!;
  }

  big(at: number): bigint {
    const index = BODY + (at >> 2);
    return (BigInt(this.words[index + 1]!) << 32n) | BigInt(this.words[index]!);
  }

  /** Bytes of the body from `at`, inside the input buffer. */
  data(at: number, length: number): Buffer {
    return this.bytes.subarray(IN_HEADER_BYTES + at, IN_HEADER_BYTES + at + length);
  }

  /** Offset in the body just behind the text read last. */
  next = 0;

  /** The NUL-terminated bytes at `at`, or null when the NUL is missing. */
  text(at: number): Buffer | null {
    const start = IN_HEADER_BYTES + at;
    const nul = this.bytes.indexOf(0, start);
    if (nul < 0 || nul >= this.end) return null;
    this.next = nul + 1 - IN_HEADER_BYTES;
    return this.bytes.subarray(start, nul);
  }

  /** One component of a path: not empty, no dots, no slash, or null. */
  name(at: number): PathString | null {
    const text = this.text(at);
    if (text === null || text.length === 0 || text.length > NAME_BYTES_MAX || text.includes(0x2f))
      return null;
    if (text[0] === 0x2e && (text.length === 1 || (text.length === 2 && text[1] === 0x2e))) return null;
    return decodePath(text);
  }

  /** Any non-empty text: the name of an extended attribute. */
  label(at: number): PathString | null {
    const text = this.text(at);
    return text === null || text.length === 0 ? null : decodePath(text);
  }
}
