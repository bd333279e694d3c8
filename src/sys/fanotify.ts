/**
 * fanotify(7) with marks on directories: changes of their names and of what the names lead to, each told by the directory's file handle
 * (`nameToHandleAt`) and the name. Since Linux 5.9; for ordinary users since 5.13, on directories that they may read.
 */
import { decodePath, type PathString } from '../base/bytes.ts';
import { bind, cPath, result } from './libc.ts';

const c = {
  init: bind('fanotify_init', 'int', ['uint32', 'uint32']),
  mark: bind('fanotify_mark', 'int', ['int', 'uint32', 'uint64', 'int', 'const char *']),
};

// linux/fanotify.h
export const FAN_MODIFY = 0x2;
export const FAN_ATTRIB = 0x4;
export const FAN_CLOSE_WRITE = 0x8;
export const FAN_MOVED_FROM = 0x40;
export const FAN_MOVED_TO = 0x80;
export const FAN_CREATE = 0x100;
export const FAN_DELETE = 0x200;
export const FAN_Q_OVERFLOW = 0x4000;
export const FAN_EVENT_ON_CHILD = 0x0800_0000;
export const FAN_ONDIR = 0x4000_0000;
export const FAN_CLOEXEC = 0x1;
export const FAN_NONBLOCK = 0x2;
/** Needs CAP_SYS_ADMIN. Without it: fs.fanotify.max_user_marks. */
export const FAN_UNLIMITED_MARKS = 0x20;
export const FAN_REPORT_DFID_NAME = 0xc00;
export const FAN_MARK_ADD = 0x1;
export const FAN_MARK_REMOVE = 0x2;
export const FAN_MARK_ONLYDIR = 0x8;
export const FAN_MARK_IGNORED_MASK = 0x20;
export const FAN_MARK_IGNORED_SURV_MODIFY = 0x40;

/** A group's descriptor, or -errno: EPERM (an ordinary user before Linux 5.13), ENOSYS, EMFILE (fs.fanotify.max_user_groups). */
export function fanotifyInit(flags: number): number {
  return result(c.init(flags, 0));
}

/** `path` relative to `dirfd`, which may be an O_PATH descriptor. -errno: ENOSPC (too many marks), EACCES, EOPNOTSUPP, ENODEV, EXDEV. */
export function fanotifyMark(
  group: number,
  flags: number,
  mask: number,
  dirfd: number,
  path: PathString,
): number {
  return result(c.mark(group, flags, mask, dirfd, cPath(path)));
}

/** `struct fanotify_event_metadata`: length u32, version u8, -, metadata length u16, mask u64, fd i32, pid i32. */
const METADATA_BYTES = 24;
const PID = 20;
/** `struct fanotify_event_info_fid`: type u8, -, length u16, fsid 8 bytes; then `struct file_handle` and the name. */
const HANDLE = 12;
const INFO_DFID_NAME = 2;

/** Moves the events that are not of process `pid` to the front of `bytes`; how many bytes those are. */
export function fanotifyOthers(bytes: Buffer, length: number, pid: number): number {
  let kept = 0;
  for (let at = 0; at + METADATA_BYTES <= length; ) {
    const size = bytes.readUInt32LE(at);
    if (size < METADATA_BYTES) break;
    if (bytes.readInt32LE(at + PID) !== pid) {
      if (kept !== at) bytes.copyWithin(kept, at, at + size);
      kept += size;
    }
    at += size;
  }
  return kept;
}

/** Goes through the events that one read(2) gave. */
export class FanotifyReader {
  #bytes: Buffer = Buffer.alloc(0);
  #next = 0;
  /** FAN_* bits. With FAN_Q_OVERFLOW events were lost, and this one names nothing. */
  mask = 0;
  /** The directory's handle, as `handleKey` has it. */
  key = '';
  /** `.` for the directory itself. */
  name: PathString = '';

  begin(bytes: Buffer): void {
    this.#bytes = bytes;
    this.#next = 0;
  }

  /** False: there is no other. */
  next(): boolean {
    const bytes = this.#bytes;
    const at = this.#next;
    if (at + METADATA_BYTES > bytes.length) return false;
    const size = bytes.readUInt32LE(at);
    if (size < METADATA_BYTES) return false;
    this.#next = at + size;
    this.mask = bytes.readUInt32LE(at + 8);
    this.key = '';
    this.name = '';
    const info = at + bytes.readUInt16LE(at + 6);
    if (info + HANDLE + 8 > at + size || bytes[info] !== INFO_DFID_NAME) return true;
    const end = info + HANDLE + 8 + bytes.readUInt32LE(info + HANDLE);
    this.key = bytes.toString('latin1', info + HANDLE + 4, end);
    const nul = bytes.indexOf(0, end);
    this.name = decodePath(bytes.subarray(end, nul < 0 ? end : nul));
    return true;
  }
}

/** What `nameToHandleAt` gave, as a key of maps. Two file systems may have the same handles. */
export function handleKey(handle: Buffer): string {
  return handle.toString('latin1');
}
