/**
 * One direction each of a session's bytes, independent of the connection that carries them: what was sent is kept until the other
 * end says that it has it, and what arrives is cut into frames. No descriptors, no clock.
 */
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES } from './wire.ts';

const CHUNK_BYTES = 64 * 1024;
/** Buffers of either size that are kept for use again. */
const SPARE_MAX = 16;
const LARGE_BYTES = FRAME_BYTES_MAX + FRAME_HEADER_BYTES;

/** What is to be sent, and what was sent and is not acknowledged yet. Positions count from the session's first byte. */
export class Outgoing {
  readonly #chunks: { bytes: Buffer; used: number }[] = [];
  /** Position of the first chunk's first byte. */
  #base = 0;
  #total = 0;
  #written = 0;
  /** The chunk with the first byte that is not written, and where it starts. */
  #at = 0;
  #atBase = 0;
  readonly #spare: Buffer[] = [];
  readonly #spareLarge: Buffer[] = [];

  /** Bytes so far. */
  get total(): number {
    return this.#total;
  }

  /** Bytes that are not written to the connection. */
  get unwritten(): number {
    return this.#total - this.#written;
  }

  /** Bytes that are kept. */
  get kept(): number {
    return this.#total - this.#base;
  }

  /** A frame's content, to be filled at once and wholly. */
  frame(type: number, bytes: number): Buffer {
    const length = FRAME_HEADER_BYTES + bytes;
    const last = this.#chunks.at(-1);
    let chunk = last;
    if (chunk === undefined || chunk.bytes.length - chunk.used < length) {
      chunk = { bytes: this.#buffer(length), used: 0 };
      this.#chunks.push(chunk);
    }
    const start = chunk.used;
    chunk.used += length;
    this.#total += length;
    chunk.bytes.writeUInt32LE(length, start);
    chunk.bytes.writeUInt32LE(type, start + 4);
    return chunk.bytes.subarray(start + FRAME_HEADER_BYTES, start + length);
  }

  #buffer(bytes: number): Buffer {
    return bytes <= CHUNK_BYTES
      ? (this.#spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES))
      : (this.#spareLarge.pop() ?? Buffer.allocUnsafeSlow(Math.max(bytes, LARGE_BYTES)));
  }

  json(type: number, content: unknown): void {
    const text = Buffer.from(JSON.stringify(content));
    text.copy(this.frame(type, text.length));
  }

  /** Up to `most` buffers to be written next. */
  next(most: number): Buffer[] {
    const buffers: Buffer[] = [];
    let base = this.#atBase;
    for (let i = this.#at; i < this.#chunks.length && buffers.length < most; i++) {
      const { bytes, used } = this.#chunks[i]!;
      const from = Math.max(0, this.#written - base);
      if (from < used) buffers.push(bytes.subarray(from, used));
      base += used;
    }
    return buffers;
  }

  wrote(bytes: number): void {
    this.#written += bytes;
    this.#settle();
  }

  #settle(): void {
    while (this.#at < this.#chunks.length - 1) {
      const end = this.#atBase + this.#chunks[this.#at]!.used;
      if (end > this.#written) break;
      this.#atBase = end;
      this.#at++;
    }
  }

  /** The other end has everything before `position`. False: it cannot have that. */
  acknowledged(position: number): boolean {
    if (!Number.isSafeInteger(position) || position > this.#written) return false;
    // The last chunk stays: it is still being filled.
    while (this.#chunks.length > 1 && this.#base + this.#chunks[0]!.used <= position) {
      const { bytes, used } = this.#chunks.shift()!;
      this.#base += used;
      const spare = bytes.length === CHUNK_BYTES ? this.#spare : this.#spareLarge;
      if (spare.length < SPARE_MAX) spare.push(bytes);
      if (this.#at > 0) this.#at--;
      else this.#atBase = this.#base;
    }
    return true;
  }

  /** A new connection goes on from `position`. False: that is not there any more, or never was. */
  goOn(position: number): boolean {
    if (!Number.isSafeInteger(position) || position < this.#base || position > this.#total) return false;
    this.#written = position;
    this.#at = 0;
    this.#atBase = this.#base;
    this.#settle();
    return true;
  }
}

/** Cuts what arrives into frames. */
export class Incoming {
  #bytes = Buffer.allocUnsafe(256 * 1024);
  #from = 0;
  #to = 0;
  #received = 0;

  /** Bytes so far, those of a frame that is not whole yet too: a new connection goes on in the middle of it. */
  get received(): number {
    return this.#received;
  }

  /** Where the next bytes are to be put; never empty. */
  room(): Buffer {
    if (this.#from === this.#to) {
      this.#from = 0;
      this.#to = 0;
    }
    const needed = this.#to - this.#from >= 4 ? this.#bytes.readUInt32LE(this.#from) : FRAME_HEADER_BYTES;
    const whole = Math.min(Math.max(needed, FRAME_HEADER_BYTES), FRAME_BYTES_MAX);
    if (this.#from > 0 && this.#bytes.length - this.#from < Math.max(whole, this.#bytes.length / 2)) {
      this.#bytes.copyWithin(0, this.#from, this.#to);
      this.#to -= this.#from;
      this.#from = 0;
    }
    if (this.#bytes.length < whole) {
      const larger = Buffer.allocUnsafe(FRAME_BYTES_MAX + 64 * 1024);
      this.#bytes.copy(larger, 0, this.#from, this.#to);
      this.#bytes = larger;
      this.#to -= this.#from;
      this.#from = 0;
    }
    return this.#bytes.subarray(this.#to);
  }

  /** So many bytes were put there. */
  arrived(bytes: number): void {
    this.#to += bytes;
    this.#received += bytes;
  }

  /** The content of the next frame, valid until `room` is called; null: it is not there yet; undefined: this is no frame. */
  take(): { type: number; content: Buffer } | null | undefined {
    const there = this.#to - this.#from;
    if (there < FRAME_HEADER_BYTES) return null;
    const length = this.#bytes.readUInt32LE(this.#from);
    if (length < FRAME_HEADER_BYTES || length > FRAME_BYTES_MAX) return undefined;
    if (there < length) return null;
    const type = this.#bytes[this.#from + 4]!;
    const content = this.#bytes.subarray(this.#from + FRAME_HEADER_BYTES, this.#from + length);
    this.#from += length;
    return { type, content };
  }
}

/** The content of a JSON frame as an object, or null. */
export function jsonOf(content: Buffer): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(content.toString('utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}

const TWO32 = 0x1_0000_0000;

export function read64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + 4) * TWO32 + bytes.readUInt32LE(at);
}

export function write64(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value % TWO32, at);
  bytes.writeUInt32LE(Math.floor(value / TWO32), at + 4);
}
