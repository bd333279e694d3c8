/**
 * Extended attributes, xattr(7): by path, by path without following a last symlink (l), by descriptor (f).
 * For an O_PATH descriptor N use the first form on `/proc/self/fd/N`. An empty buffer asks for the length.
 */
import type { PathString } from '../base/bytes.ts';
import { bind, cPath, result } from './libc.ts';

const byPath = (name: string) => bind(name, 'int64', ['const char *', 'const char *', 'void *', 'size_t']);
const c = {
  getxattr: byPath('getxattr'),
  lgetxattr: byPath('lgetxattr'),
  fgetxattr: bind('fgetxattr', 'int64', ['int', 'const char *', 'void *', 'size_t']),
  setxattr: bind('setxattr', 'int', ['const char *', 'const char *', 'void *', 'size_t', 'int']),
  lsetxattr: bind('lsetxattr', 'int', ['const char *', 'const char *', 'void *', 'size_t', 'int']),
  fsetxattr: bind('fsetxattr', 'int', ['int', 'const char *', 'void *', 'size_t', 'int']),
  listxattr: bind('listxattr', 'int64', ['const char *', 'void *', 'size_t']),
  llistxattr: bind('llistxattr', 'int64', ['const char *', 'void *', 'size_t']),
  flistxattr: bind('flistxattr', 'int64', ['int', 'void *', 'size_t']),
  removexattr: bind('removexattr', 'int', ['const char *', 'const char *']),
  lremovexattr: bind('lremovexattr', 'int', ['const char *', 'const char *']),
  fremovexattr: bind('fremovexattr', 'int', ['int', 'const char *']),
};

/** Bytes of the value. ERANGE when `into` is too small, ENODATA when there is none. */
export function getxattr(path: PathString, name: PathString, into: Buffer): number {
  return result(c.getxattr(cPath(path), cPath(name), into, into.length));
}
export function lgetxattr(path: PathString, name: PathString, into: Buffer): number {
  return result(c.lgetxattr(cPath(path), cPath(name), into, into.length));
}
export function fgetxattr(fd: number, name: PathString, into: Buffer): number {
  return result(c.fgetxattr(fd, cPath(name), into, into.length));
}

/** `flags`: 0, XATTR_CREATE or XATTR_REPLACE. */
export function setxattr(path: PathString, name: PathString, value: Buffer, flags: number): number {
  return result(c.setxattr(cPath(path), cPath(name), value, value.length, flags));
}
export function lsetxattr(path: PathString, name: PathString, value: Buffer, flags: number): number {
  return result(c.lsetxattr(cPath(path), cPath(name), value, value.length, flags));
}
export function fsetxattr(fd: number, name: PathString, value: Buffer, flags: number): number {
  return result(c.fsetxattr(fd, cPath(name), value, value.length, flags));
}

/** Names, each followed by a NUL. */
export function listxattr(path: PathString, into: Buffer): number {
  return result(c.listxattr(cPath(path), into, into.length));
}
export function llistxattr(path: PathString, into: Buffer): number {
  return result(c.llistxattr(cPath(path), into, into.length));
}
export function flistxattr(fd: number, into: Buffer): number {
  return result(c.flistxattr(fd, into, into.length));
}

export function removexattr(path: PathString, name: PathString): number {
  return result(c.removexattr(cPath(path), cPath(name)));
}
export function lremovexattr(path: PathString, name: PathString): number {
  return result(c.lremovexattr(cPath(path), cPath(name)));
}
export function fremovexattr(fd: number, name: PathString): number {
  return result(c.fremovexattr(fd, cPath(name)));
}
