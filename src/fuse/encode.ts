/**
 * Encoders of replies. They write 32-bit words into a buffer that the session keeps; a 64-bit field is two of
 * them, low first, so that no BigInt is made. `at` is an index of words.
 */
import { splitDev } from '../sys/stat.ts';
import { ENTRY_OUT_BYTES, INIT_OUT_BYTES } from './abi.ts';
import type { Attr, Entry, OpenReply, StatfsReply, StatxReply } from './types.ts';

const TWO32 = 0x1_0000_0000;

/** A whole number, also a negative one, or a bigint, as 64 bits. Values of 2^53 and more lose nothing as bigint only. */
export function put64(words: Uint32Array, at: number, value: number | bigint): void {
  if (typeof value === 'bigint') {
    words[at] = Number(BigInt.asUintN(32, value));
    words[at + 1] = Number(BigInt.asUintN(32, value >> 32n));
    return;
  }
  words[at] = value;
  words[at + 1] = Math.floor(value / TWO32);
}

const FOREVER_SEC = 0xffff_ffff;

/** A validity as seconds at `at` and nanoseconds at `nsecAt`. Infinity and anything absurd: 136 years. */
function putValid(words: Uint32Array, at: number, nsecAt: number, validMs: number): void {
  const ms = validMs > 0 ? validMs : 0;
  const seconds = Math.min(Math.floor(ms / 1000), FOREVER_SEC);
  words[at] = seconds;
  words[at + 1] = 0;
  words[nsecAt] = seconds === FOREVER_SEC ? 0 : Math.floor((ms - seconds * 1000) * 1e6);
}

/** `struct fuse_attr`, 22 words. */
export function putAttr(words: Uint32Array, at: number, attr: Attr): void {
  put64(words, at, attr.ino);
  put64(words, at + 2, attr.size);
  put64(words, at + 4, attr.blocks);
  put64(words, at + 6, attr.atimeSec);
  put64(words, at + 8, attr.mtimeSec);
  put64(words, at + 10, attr.ctimeSec);
  words[at + 12] = attr.atimeNsec;
  words[at + 13] = attr.mtimeNsec;
  words[at + 14] = attr.ctimeNsec;
  words[at + 15] = attr.mode;
  words[at + 16] = attr.nlink;
  words[at + 17] = attr.uid;
  words[at + 18] = attr.gid;
  words[at + 19] = attr.rdev;
  words[at + 20] = attr.blksize;
  words[at + 21] = 0;
}

/** `struct fuse_entry_out`, 32 words. */
export function putEntry(words: Uint32Array, at: number, entry: Entry): void {
  put64(words, at, entry.nodeid);
  put64(words, at + 2, entry.generation);
  putValid(words, at + 4, at + 8, entry.entryValidMs);
  putValid(words, at + 6, at + 9, entry.attrValidMs);
  putAttr(words, at + 10, entry.attr);
}

/** An entry that says "no attributes here": READDIRPLUS of a name that was not looked up. */
export function putNoEntry(words: Uint32Array, at: number): void {
  words.fill(0, at, at + ENTRY_OUT_BYTES / 4);
}

/** `struct fuse_attr_out`, 26 words. */
export function putAttrOut(words: Uint32Array, at: number, attr: Attr, validMs: number): void {
  putValid(words, at, at + 2, validMs);
  words[at + 3] = 0;
  putAttr(words, at + 4, attr);
}

/** `struct fuse_open_out`, 4 words. */
export function putOpen(words: Uint32Array, at: number, open: OpenReply): void {
  put64(words, at, open.fh);
  words[at + 2] = open.flags;
  words[at + 3] = open.backingId ?? 0;
}

function putSxTime(words: Uint32Array, at: number, sec: number, nsec: number): void {
  put64(words, at, sec);
  words[at + 2] = nsec;
  words[at + 3] = 0;
}

/** `struct fuse_statx_out`, 72 words: 8 of its own and `struct fuse_statx`. */
export function putStatx(words: Uint32Array, at: number, reply: StatxReply): void {
  const { attr } = reply;
  words.fill(0, at, at + 72);
  putValid(words, at, at + 2, reply.attrValidMs);
  const st = at + 8;
  words[st] = reply.mask;
  words[st + 1] = attr.blksize;
  words[st + 4] = attr.nlink;
  words[st + 5] = attr.uid;
  words[st + 6] = attr.gid;
  words[st + 7] = attr.mode & 0xffff;
  put64(words, st + 8, attr.ino);
  put64(words, st + 10, attr.size);
  put64(words, st + 12, attr.blocks);
  putSxTime(words, st + 16, attr.atimeSec, attr.atimeNsec);
  putSxTime(words, st + 20, reply.btimeSec ?? 0, reply.btimeNsec ?? 0);
  putSxTime(words, st + 24, attr.ctimeSec, attr.ctimeNsec);
  putSxTime(words, st + 28, attr.mtimeSec, attr.mtimeNsec);
  const { major, minor } = splitDev(attr.rdev);
  words[st + 32] = major;
  words[st + 33] = minor;
}

/** `struct fuse_kstatfs`, 20 words. */
export function putStatfs(words: Uint32Array, at: number, st: StatfsReply): void {
  put64(words, at, st.blocks);
  put64(words, at + 2, st.bfree);
  put64(words, at + 4, st.bavail);
  put64(words, at + 6, st.files);
  put64(words, at + 8, st.ffree);
  words[at + 10] = st.bsize;
  words[at + 11] = st.namelen;
  words[at + 12] = st.frsize;
  words.fill(0, at + 13, at + 20);
}

/** Everything that INIT answers. */
export interface InitReply {
  readonly major: number;
  readonly minor: number;
  readonly maxReadahead: number;
  readonly flags: number;
  readonly flags2: number;
  readonly maxBackground: number;
  readonly congestionThreshold: number;
  readonly maxWriteBytes: number;
  readonly timeGranNs: number;
  readonly maxPages: number;
  readonly maxStackDepth: number;
}

/** Bytes of `fuse_init_out` that a kernel of this minor version reads (FUSE_COMPAT_*INIT_OUT_SIZE). */
export function initReplyBytes(minor: number): number {
  return minor < 5 ? 8 : minor < 23 ? 24 : INIT_OUT_BYTES;
}

/** `struct fuse_init_out`, 16 words. */
export function putInit(words: Uint32Array, at: number, init: InitReply): void {
  words.fill(0, at, at + 16);
  words[at] = init.major;
  words[at + 1] = init.minor;
  words[at + 2] = init.maxReadahead;
  words[at + 3] = init.flags;
  words[at + 4] = init.maxBackground | (init.congestionThreshold << 16);
  words[at + 5] = init.maxWriteBytes;
  words[at + 6] = init.timeGranNs;
  words[at + 7] = init.maxPages;
  words[at + 8] = init.flags2;
  words[at + 9] = init.maxStackDepth;
}
