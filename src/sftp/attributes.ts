import * as sys from '../sys/index.ts';
import type { Attributes } from '../view/ops.ts';
import { type Answer, type Fields, MalformedPacket } from './packets.ts';
import { ATTR } from './protocol.ts';

/** What is written of a file. Times are whole seconds, inodes and links are not told at all: the protocol's limits. */
export interface FileAttributes {
  readonly size: number;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
  readonly atimeSec: number;
  readonly mtimeSec: number;
}

const TIME_MAX = 0xffff_ffff;

function time(seconds: number): number {
  return Math.min(Math.max(seconds, 0), TIME_MAX);
}

export function writeAttributes(answer: Answer, of: FileAttributes): Answer {
  return answer
    .u32(ATTR.SIZE | ATTR.UIDGID | ATTR.PERMISSIONS | ATTR.ACMODTIME)
    .u64(of.size)
    .u32(of.uid)
    .u32(of.gid)
    .u32(of.mode)
    .u32(time(of.atimeSec))
    .u32(time(of.mtimeSec));
}

/** The attributes of a request. The type bits of a mode are left out. */
export function readAttributes(fields: Fields): Attributes {
  const flags = fields.u32();
  const size = (flags & ATTR.SIZE) !== 0 ? fields.u64() : undefined;
  const ids = (flags & ATTR.UIDGID) !== 0 ? { uid: fields.u32(), gid: fields.u32() } : {};
  const mode = (flags & ATTR.PERMISSIONS) !== 0 ? fields.u32() & 0o7777 : undefined;
  const at = (flags & ATTR.ACMODTIME) !== 0;
  const times = at ? { atime: { sec: fields.u32(), nsec: 0 }, mtime: { sec: fields.u32(), nsec: 0 } } : {};
  if ((flags & ATTR.EXTENDED) !== 0) {
    const count = fields.u32();
    if (count > fields.left / 8)
      throw new MalformedPacket('there are fewer extended attributes than it says');
    for (let i = 0; i < count; i++) {
      fields.bytes();
      fields.bytes();
    }
  }
  return {
    ...(size !== undefined && { size }),
    ...ids,
    ...(mode !== undefined && { mode }),
    ...times,
    killPriv: false,
  };
}

/** True when there is nothing to set. */
export function isEmpty({ size, uid, mode, mtime }: Attributes): boolean {
  return size === undefined && uid === undefined && mode === undefined && mtime === undefined;
}

const TYPES: Readonly<Record<number, string>> = {
  [sys.S_IFDIR]: 'd',
  [sys.S_IFLNK]: 'l',
  [sys.S_IFCHR]: 'c',
  [sys.S_IFBLK]: 'b',
  [sys.S_IFIFO]: 'p',
  [sys.S_IFSOCK]: 's',
};
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
/** `ls -l` shows the year of what is older than half a year. */
const RECENT_S = 182 * 86_400;

function permissions(mode: number): string {
  const rwx = (bits: number, special: boolean, letter: string) =>
    `${(bits & 4) !== 0 ? 'r' : '-'}${(bits & 2) !== 0 ? 'w' : '-'}${
      special ? ((bits & 1) !== 0 ? letter : letter.toUpperCase()) : (bits & 1) !== 0 ? 'x' : '-'
    }`;
  return (
    rwx(mode >> 6, (mode & sys.S_ISUID) !== 0, 's') +
    rwx(mode >> 3, (mode & sys.S_ISGID) !== 0, 's') +
    rwx(mode, (mode & 0o1000) !== 0, 't')
  );
}

/** The line of `ls -l` that goes with a name, up to the name. */
export function longLine(of: FileAttributes, nlink: number, nowMs: number): string {
  const date = new Date(of.mtimeSec * 1000);
  const recent = Math.abs(nowMs / 1000 - of.mtimeSec) < RECENT_S;
  const two = (value: number) => String(value).padStart(2, '0');
  const when = recent ? `${two(date.getHours())}:${two(date.getMinutes())}` : ` ${date.getFullYear()}`;
  const day = `${MONTHS[date.getMonth()] ?? '???'} ${String(date.getDate()).padStart(2)}`;
  const type = TYPES[of.mode & sys.S_IFMT] ?? '-';
  return `${type}${permissions(of.mode)} ${String(nlink).padStart(4)} ${String(of.uid).padEnd(8)} ${String(
    of.gid,
  ).padEnd(8)} ${String(of.size).padStart(8)} ${day} ${when} `;
}
