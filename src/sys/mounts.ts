/** mount(2), umount2(2), and the file handles that name an inode without a path. */
import type { PathString } from '../base/bytes.ts';
import { bind, cPath, result } from './libc.ts';

const c = {
  mount: bind('mount', 'int', ['const char *', 'const char *', 'const char *', 'uint64', 'const char *']),
  umount2: bind('umount2', 'int', ['const char *', 'int']),
  nameToHandleAt: bind('name_to_handle_at', 'int', ['int', 'const char *', 'void *', 'void *', 'int']),
};

/** `flags`: MS_*; `data`: the file system's own options. */
export function mount(
  source: PathString,
  target: PathString,
  type: string,
  flags: number,
  data: string,
): number {
  return result(c.mount(cPath(source), cPath(target), type, flags, data));
}

/** `flags`: MNT_FORCE, MNT_DETACH (lazy), UMOUNT_NOFOLLOW. */
export function umount2(target: PathString, flags: number): number {
  return result(c.umount2(cPath(target), flags));
}

const HANDLE_BYTES_MAX = 128;
const handle = Buffer.alloc(8 + HANDLE_BYTES_MAX);
const mountId = new Int32Array(1);

/** `struct file_handle` without its length (type, then bytes): equal exactly for the same inode and generation. */
export function nameToHandleAt(dirfd: number, path: PathString, flags: number): Buffer | number {
  handle.writeUInt32LE(HANDLE_BYTES_MAX, 0);
  const code = result(c.nameToHandleAt(dirfd, cPath(path), handle, mountId, flags));
  return code < 0 ? code : Buffer.from(handle.subarray(4, 8 + handle.readUInt32LE(0)));
}
