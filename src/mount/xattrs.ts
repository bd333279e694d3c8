/** Extended attributes of the inode behind an O_PATH descriptor (xattr(7)), through /proc/self/fd. */
import type { FuseApi, Request } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';

/** XATTR_SIZE_MAX and XATTR_LIST_MAX (linux/limits.h). */
const buffer = Buffer.alloc(65536);

function path(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/** Answers with `value` as getxattr(2) does: its length for size 0, ERANGE when it does not fit. */
export function reply(api: FuseApi, req: Request, value: Buffer, size: number): void {
  if (size === 0) api.replyXattrSize(req, value.length);
  else if (value.length > size) api.replyError(req, sys.ERANGE);
  else api.replyData(req, value);
}

export function get(api: FuseApi, req: Request, fd: number, name: string, size: number): void {
  const got = fd < 0 ? fd : sys.getxattr(path(fd), name, buffer);
  if (got < 0) api.replyError(req, -got);
  else reply(api, req, buffer.subarray(0, got), size);
}

export function list(api: FuseApi, req: Request, fd: number, size: number): void {
  const got = fd < 0 ? fd : sys.listxattr(path(fd), buffer);
  if (got < 0) return void api.replyError(req, -got);
  const names = buffer.subarray(0, got);
  reply(api, req, req.uid === 0 ? names : withoutTrusted(names), size);
}

/** `trusted.*` is listed to the privileged only (xattr(7)). */
function withoutTrusted(names: Buffer): Buffer {
  const text = names.toString('latin1');
  if (!text.includes('trusted.')) return names;
  return Buffer.from(text.replace(/(?<=^|\0)trusted\.[^\0]*\0/g, ''), 'latin1');
}

/** `killSgid`: an ACL changed that takes the setgid bit away (FUSE_SETXATTR_ACL_KILL_SGID). */
export function set(fd: number, name: string, value: Buffer, flags: number, killSgid: boolean): number {
  if (fd < 0) return fd;
  const error = sys.setxattr(path(fd), name, value, flags);
  if (error < 0 || !killSgid) return error;
  const stat = new sys.StatBuf();
  if (sys.fstatx(fd, stat) < 0 || (stat.mode & sys.S_ISGID) === 0) return error;
  return sys.fchmodat(sys.AT_FDCWD, path(fd), stat.mode & 0o7777 & ~sys.S_ISGID);
}

export function remove(fd: number, name: string): number {
  return fd < 0 ? fd : sys.removexattr(path(fd), name);
}
