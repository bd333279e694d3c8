/** A non-blocking socket that carries a session's frames for as long as it lasts. */
import * as sys from '../sys/index.ts';
import type { Incoming, Outgoing } from './stream.ts';
import { FRAME, FRAME_BYTES_MAX, FRAME_HEADER_BYTES } from './wire.ts';

/** Received bytes after which the other end is told, so that it can drop them. */
const ACK_BYTES = 256 * 1024;
/** Bytes read in one turn, so that one connection does not keep out everybody else. */
const TURN_BYTES = 4 * 1024 * 1024;

export class Link {
  readonly fd: number;
  readonly #in: Incoming;
  readonly #out: Outgoing;
  #ackedAt = 0;

  /** Owns `fd`. */
  constructor(fd: number, incoming: Incoming, outgoing: Outgoing) {
    this.fd = fd;
    this.#in = incoming;
    this.#out = outgoing;
    this.#ackedAt = incoming.received;
  }

  /** Takes what has arrived, frame by frame. 0: there is no more for now; -errno: it is broken (EPROTO: by what the other end sends; EPIPE: ended). */
  receive(use: (type: number, content: Buffer) => void): number {
    for (let taken = 0; taken < TURN_BYTES; ) {
      const got = sys.read(this.fd, this.#in.room());
      if (got === 0) return -sys.EPIPE;
      if (got < 0) return got === -sys.EAGAIN || got === -sys.EINTR ? 0 : got;
      this.#in.arrived(got);
      taken += got;
      for (;;) {
        const frame = this.#in.take();
        if (frame === undefined) return -sys.EPROTO;
        if (frame === null) break;
        use(frame.type, frame.content);
      }
      if (this.#in.received - this.#ackedAt >= ACK_BYTES) this.acknowledge();
    }
    return 0;
  }

  acknowledge(): void {
    this.#ackedAt = this.#in.received;
    this.#out.frame(FRAME.ACK, 8).writeBigUInt64LE(BigInt(this.#in.received));
  }

  /** Writes what waits, as far as the socket takes it. 0, or -errno when it is broken. */
  flush(): number {
    while (this.#out.unwritten > 0) {
      const put = sys.writev(this.fd, this.#out.next(16));
      if (put < 0) return put === -sys.EAGAIN || put === -sys.EINTR ? 0 : put;
      this.#out.wrote(put);
    }
    return 0;
  }

  close(): void {
    sys.close(this.fd);
  }
}

/** Reads the one frame with which each end begins, no byte more. */
export class Greeting {
  readonly #bytes: Buffer;
  #length = 0;

  constructor(mostBytes = 64 * 1024) {
    this.#bytes = Buffer.alloc(Math.min(mostBytes, FRAME_BYTES_MAX));
  }

  /** The frame's content; null: it is not there yet; -errno: broken, or something else came. */
  receive(fd: number, type: number): Buffer | null | number {
    for (;;) {
      const hasHeader = this.#length >= FRAME_HEADER_BYTES;
      const length = hasHeader ? this.#bytes.readUInt32LE(0) : FRAME_HEADER_BYTES;
      if (length < FRAME_HEADER_BYTES || length > this.#bytes.length) return -sys.EPROTO;
      if (hasHeader && this.#bytes[4] !== type) return -sys.EPROTO;
      if (hasHeader && this.#length === length) return this.#bytes.subarray(FRAME_HEADER_BYTES, length);
      const got = sys.read(fd, this.#bytes.subarray(this.#length, length));
      if (got === 0) return -sys.EPIPE;
      if (got < 0) return got === -sys.EAGAIN || got === -sys.EINTR ? null : got;
      this.#length += got;
    }
  }
}

/** A frame by itself. */
export function greeting(type: number, content: unknown): Buffer {
  const text = Buffer.from(JSON.stringify(content));
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + text.length);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes[4] = type;
  text.copy(bytes, FRAME_HEADER_BYTES);
  return bytes;
}
