/**
 * The bridge to libc: declares a function, hands paths over, and turns a failure into `-errno`.
 *
 * koffi keeps `errno` for us: it reads it on the calling thread, so it must be asked right after the call
 * with no other FFI call between. That is `result()`, and why an *async* call cannot have its errno this way.
 */
import koffi from 'koffi';
import { encodePath, type PathString } from '../base/bytes.ts';
import { ENOSYS } from './errno.ts';

const libc = koffi.load(null);

/** System call numbers, for what an older or other libc does not export. [x86_64, arm64] */
export const SYSCALLS = {
  statx: [332, 291],
  renameat2: [316, 276],
  copy_file_range: [326, 285],
  getdents64: [217, 61],
  openat2: [437, 437],
  pidfd_open: [434, 434],
  pidfd_send_signal: [424, 424],
  pidfd_getfd: [438, 438],
  gettid: [186, 178],
  tgkill: [234, 131],
  capget: [125, 90],
  capset: [126, 91],
  name_to_handle_at: [303, 264],
  fchmodat2: [452, 452],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
} as const satisfies Record<string, readonly [number, number]>;

export type LibcFunction = ReturnType<typeof libc.func>;

function absent(): number {
  koffi.errno(ENOSYS);
  return -1;
}

/**
 * Declares a libc function; `args` are koffi types. A name that libc lacks goes through `syscall(2)` when its
 * number is known, and otherwise fails with ENOSYS. Declaring one costs about 5 µs.
 */
export function bind(name: string, result: string, args: string[]): (...args: unknown[]) => number {
  try {
    return libc.func(name, result, args) as unknown as (...args: unknown[]) => number;
  } catch {
    if (!Object.hasOwn(SYSCALLS, name)) return absent;
    const number = SYSCALLS[name as keyof typeof SYSCALLS][process.arch === 'arm64' ? 1 : 0];
    const call = libc.func('syscall', 'int64', ['long', ...args]) as unknown as (
      ...args: unknown[]
    ) => number;
    return (...rest) => call(number, ...rest);
  }
}

/** The koffi function itself, for `.async`. */
export function bindAsync(name: string, result: string, args: string[]): LibcFunction {
  return libc.func(name, result, args);
}

/** What the last call returned, or `-errno`. */
export function result(value: number): number {
  return value < 0 ? -koffi.errno() : value;
}

/** Longer than PATH_MAX: every call refuses it with ENAMETOOLONG. */
const REFUSED = 'x'.repeat(5000);

/**
 * A path as koffi takes it for `const char *`: the string itself when UTF-8 carries it, else its bytes.
 * A path with a NUL byte would be cut short; it becomes one that every call refuses (ENAMETOOLONG).
 */
export function cPath(path: PathString): string | Buffer {
  if (path.includes('\0')) return REFUSED;
  if (path.isWellFormed()) return path;
  return Buffer.concat([encodePath(path), Buffer.of(0)]);
}

/** Stores a signed integer below 2^53 as 64 bits, little-endian as both architectures are. */
export function putInt64(view: DataView, at: number, value: number): void {
  const low = value >>> 0;
  view.setUint32(at, low, true);
  view.setInt32(at + 4, (value - low) / 0x1_0000_0000, true);
}
