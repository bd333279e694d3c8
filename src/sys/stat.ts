/** statx(2) and statfs(2) into objects that are allocated once and read field by field. */
import type { PathString } from '../base/bytes.ts';
import { AT_EMPTY_PATH, STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID } from './constants.ts';
import { bind, cPath, result } from './libc.ts';

const c = {
  statx: bind('statx', 'int', ['int', 'const char *', 'int', 'uint32', 'void *']),
  statfs: bind('statfs', 'int', ['const char *', 'void *']),
  fstatfs: bind('fstatfs', 'int', ['int', 'void *']),
};

const TWO32 = 0x1_0000_0000;
const SAFE_HIGH = 0x20_0000;

/** The kernel's 32-bit dev_t (linux/kdev_t.h new_encode_dev): what FUSE and `fs.Stats.dev` carry. */
export function makeDev(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** Major and minor of such a number. */
export function splitDev(dev: number): { major: number; minor: number } {
  return { major: (dev >>> 8) & 0xfff, minor: (dev & 0xff) | ((dev >>> 12) & 0xfff00) };
}

/** `struct statx` (linux/stat.h, 256 bytes), overwritten by each `statx` call. Read what you need before the next. */
export class StatBuf {
  readonly words = new Uint32Array(64);
  readonly #signed = new Int32Array(this.words.buffer);

  /** STATX_* bits that are filled in. */
  get mask(): number {
    return this.words[0]!;
  }
  get blksize(): number {
    return this.words[1]!;
  }
  get nlink(): number {
    return this.words[4]!;
  }
  get uid(): number {
    return this.words[5]!;
  }
  get gid(): number {
    return this.words[6]!;
  }
  /** Type and permission bits. */
  get mode(): number {
    return this.words[7]! & 0xffff;
  }
  /** A number below 2^53, else a bigint. */
  get ino(): number | bigint {
    const low = this.words[8]!;
    const high = this.words[9]!;
    return high < SAFE_HIGH ? high * TWO32 + low : (BigInt(high) << 32n) | BigInt(low);
  }
  get size(): number {
    return this.words[11]! * TWO32 + this.words[10]!;
  }
  /** In units of 512 bytes. */
  get blocks(): number {
    return this.words[13]! * TWO32 + this.words[12]!;
  }
  get atimeSec(): number {
    return this.#signed[17]! * TWO32 + this.words[16]!;
  }
  get atimeNsec(): number {
    return this.words[18]!;
  }
  /** Birth time; 0 unless `mask` has STATX_BTIME. */
  get btimeSec(): number {
    return this.#signed[21]! * TWO32 + this.words[20]!;
  }
  get btimeNsec(): number {
    return this.words[22]!;
  }
  get ctimeSec(): number {
    return this.#signed[25]! * TWO32 + this.words[24]!;
  }
  get ctimeNsec(): number {
    return this.words[26]!;
  }
  get mtimeSec(): number {
    return this.#signed[29]! * TWO32 + this.words[28]!;
  }
  get mtimeNsec(): number {
    return this.words[30]!;
  }
  /** As `makeDev` gives it. */
  get rdev(): number {
    return makeDev(this.words[32]!, this.words[33]!);
  }
  get dev(): number {
    return makeDev(this.words[34]!, this.words[35]!);
  }
  /** The mount id of /proc/self/mountinfo; 0 before kernel 5.8. */
  get mntId(): number {
    return this.words[37]! * TWO32 + this.words[36]!;
  }
}

const DEFAULT_MASK = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;

/** Fills `into`. `flags`: AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_STATX_*. */
export function statx(
  dirfd: number,
  path: PathString,
  flags: number,
  into: StatBuf,
  mask = DEFAULT_MASK,
): number {
  return result(c.statx(dirfd, cPath(path), flags, mask, into.words));
}

/** statx of a descriptor, O_PATH ones included. */
export function fstatx(fd: number, into: StatBuf, mask = DEFAULT_MASK): number {
  return result(c.statx(fd, '', AT_EMPTY_PATH, mask, into.words));
}

/** `struct statfs` of the 64-bit architectures (asm-generic/statfs.h): 120 bytes. */
export class StatfsBuf {
  readonly words = new Uint32Array(30);

  #u64(at: number): number {
    return this.words[at + 1]! * TWO32 + this.words[at]!;
  }
  /** Magic number, linux/magic.h. */
  get type(): number {
    return this.#u64(0);
  }
  get bsize(): number {
    return this.#u64(2);
  }
  get blocks(): number {
    return this.#u64(4);
  }
  get bfree(): number {
    return this.#u64(6);
  }
  get bavail(): number {
    return this.#u64(8);
  }
  get files(): number {
    return this.#u64(10);
  }
  get ffree(): number {
    return this.#u64(12);
  }
  get namelen(): number {
    return this.#u64(16);
  }
  get frsize(): number {
    return this.#u64(18);
  }
  /** ST_* flags: of statvfs(3), 1 read-only, 2 nosuid, 4 nodev, 8 noexec. */
  get flags(): number {
    return this.#u64(20);
  }
}

export function statfs(path: PathString, into: StatfsBuf): number {
  return result(c.statfs(cPath(path), into.words));
}

/** Works on O_PATH descriptors. */
export function fstatfs(fd: number, into: StatfsBuf): number {
  return result(c.fstatfs(fd, into.words));
}
