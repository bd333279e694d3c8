import { SFTP_LIMITS } from './protocol.ts';

/** A packet that is not what the protocol allows: the connection ends. */
export class ProtocolError extends Error {}

/** A field that ends before it should, or is too long: SSH_FX_BAD_MESSAGE. */
export class MalformedPacket extends Error {}

/** Cuts a stream into packets, however it is split. */
export class Framer {
  #parts: Buffer[] = [];
  #bytes = 0;

  /** Bytes that wait for the rest of their packet, or to be taken. */
  get buffered(): number {
    return this.#bytes;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#parts.push(chunk);
    this.#bytes += chunk.length;
  }

  /** The next packet without its length; null: not all of it is there. Throws ProtocolError. */
  next(): Buffer | null {
    if (this.#bytes < 4) return null;
    const length = this.#peekLength();
    if (length < 1 || length > SFTP_LIMITS.packetBytes)
      throw new ProtocolError(`a packet of ${length} bytes; at most ${SFTP_LIMITS.packetBytes} are taken`);
    if (this.#bytes < 4 + length) return null;
    return this.#take(4 + length).subarray(4);
  }

  #peekLength(): number {
    const first = this.#parts[0]!;
    if (first.length >= 4) return first.readUInt32BE(0);
    // Few bytes: a chunk ended within the length.
    this.#parts = [Buffer.concat(this.#parts)];
    return this.#parts[0]!.readUInt32BE(0);
  }

  #take(count: number): Buffer {
    this.#bytes -= count;
    const first = this.#parts[0]!;
    if (first.length === count) return this.#parts.shift()!;
    if (first.length > count) {
      this.#parts[0] = first.subarray(count);
      return first.subarray(0, count);
    }
    const taken = Buffer.allocUnsafe(count);
    let at = 0;
    let used = 0;
    while (at < count) {
      const part = this.#parts[used]!;
      const size = part.copy(taken, at, 0, count - at);
      at += size;
      if (size < part.length) this.#parts[used] = part.subarray(size);
      else used++;
    }
    this.#parts.splice(0, used);
    return taken;
  }
}

/** Reads the fields of one packet. Every method throws MalformedPacket at its end. */
export class Fields {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  #step(count: number): number {
    const at = this.#at;
    if (count > this.#bytes.length - at) throw new MalformedPacket('the packet is too short');
    this.#at = at + count;
    return at;
  }

  u32(): number {
    return this.#bytes.readUInt32BE(this.#step(4));
  }

  /** A number of 64 bits; above 2^53 it is no offset or size that a file can have. */
  u64(): number {
    const at = this.#step(8);
    const value = this.#bytes.readUInt32BE(at) * 2 ** 32 + this.#bytes.readUInt32BE(at + 4);
    if (!Number.isSafeInteger(value)) throw new MalformedPacket('a number of 64 bits is too large');
    return value;
  }

  /** The bytes of a string, inside the packet's buffer. */
  bytes(): Buffer {
    const length = this.u32();
    const at = this.#step(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** A path's bytes. A NUL ends paths for the kernel, so there may be none. */
  path(): Buffer {
    const bytes = this.bytes();
    if (bytes.length > SFTP_LIMITS.pathBytes) throw new MalformedPacket('the path is too long');
    if (bytes.includes(0)) throw new MalformedPacket('a path has a NUL in it');
    return bytes;
  }

  text(): string {
    return this.bytes().toString('latin1');
  }
}

/** Builds one answer; the buffer grows as it must. */
export class Answer {
  #bytes: Buffer;
  #at = 4;

  constructor(type: number, sizeHint = 64) {
    this.#bytes = Buffer.allocUnsafe(Math.max(sizeHint, 16));
    this.u8(type);
  }

  get length(): number {
    return this.#at;
  }

  #room(count: number): number {
    const at = this.#at;
    this.#at = at + count;
    if (this.#at > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#at));
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    return at;
  }

  u8(value: number): this {
    const at = this.#room(1);
    this.#bytes[at] = value;
    return this;
  }

  u32(value: number): this {
    const at = this.#room(4);
    this.#bytes.writeUInt32BE(value >>> 0, at);
    return this;
  }

  u64(value: number): this {
    this.u32(Math.floor(value / 2 ** 32));
    return this.u32(value % 2 ** 32);
  }

  bytes(value: Buffer | string): this {
    const bytes = typeof value === 'string' ? Buffer.from(value) : value;
    this.u32(bytes.length);
    const at = this.#room(bytes.length);
    bytes.copy(this.#bytes, at);
    return this;
  }

  /** Room for `count` bytes that somebody else puts there; then `filled` says how many, in the number before them. */
  space(count: number): Buffer {
    const at = this.#room(count);
    this.#at = at;
    return this.#bytes.subarray(at, at + count);
  }

  filled(count: number): this {
    this.patch(this.#at - 4, count);
    this.#at += count;
    return this;
  }

  /** Sets a number that was written before, at `at`. */
  patch(at: number, value: number): void {
    this.#bytes.writeUInt32BE(value, at);
  }

  /** The packet, with its length before it. */
  finish(): Buffer {
    this.#bytes.writeUInt32BE(this.#at - 4, 0);
    return this.#bytes.subarray(0, this.#at);
  }
}
