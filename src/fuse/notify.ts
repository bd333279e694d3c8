/**
 * Notifications: what a server tells the kernel unasked. A message of its own, `unique` 0, the code in `error`.
 *
 * Writing one runs inside the kernel and may wait: INVAL_ENTRY and DELETE take the parent directory's lock, so
 * they wait for any CREATE, RENAME, UNLINK, LOOKUP or READDIR in flight there, for ever if the writer is the thread
 * that should answer it. INVAL_INODE with a range waits for the pages' readers and writers; with `off` -1 it
 * touches attributes only and never waits. So: encode here, and write what may wait from another thread
 * (`writeAsync` of src/sys on the main thread). ENOENT only means that the kernel did not have it cached.
 */
import { encodePath, type PathString } from '../base/bytes.ts';
import {
  NOTIFY_DELETE,
  NOTIFY_INC_EPOCH,
  NOTIFY_INVAL_ENTRY,
  NOTIFY_INVAL_INODE,
  OUT_HEADER_BYTES,
} from './abi.ts';

const TWO32 = 0x1_0000_0000;

function message(code: number, bytes: number): DataView {
  const view = new DataView(new ArrayBuffer(bytes));
  view.setUint32(0, bytes, true);
  view.setInt32(4, code, true);
  return view;
}

function set64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / TWO32) >>> 0, true);
}

function bytesOf(view: DataView): Buffer {
  return Buffer.from(view.buffer);
}

/** Attributes of `nodeid` are stale; with `off` >= 0 also its pages from there (`len` 0 or less: to the end). */
export function encodeInvalInode(nodeid: number, off: number, len: number): Buffer {
  const view = message(NOTIFY_INVAL_INODE, OUT_HEADER_BYTES + 24);
  set64(view, 16, nodeid);
  set64(view, 24, off);
  set64(view, 32, len);
  return bytesOf(view);
}

/** Forget the name. `flags`: FUSE_EXPIRE_ONLY. */
export function encodeInvalEntry(parent: number, name: PathString, flags = 0): Buffer {
  const bytes = encodePath(name);
  const view = message(NOTIFY_INVAL_ENTRY, OUT_HEADER_BYTES + 16 + bytes.length + 1);
  set64(view, 16, parent);
  view.setUint32(24, bytes.length, true);
  view.setUint32(28, flags, true);
  const buffer = bytesOf(view);
  bytes.copy(buffer, 32);
  return buffer;
}

/** The name is gone, if it still leads to `child`: also drops a directory that is in use, and tells inotify. */
export function encodeNotifyDelete(parent: number, child: number, name: PathString): Buffer {
  const bytes = encodePath(name);
  const view = message(NOTIFY_DELETE, OUT_HEADER_BYTES + 24 + bytes.length + 1);
  set64(view, 16, parent);
  set64(view, 24, child);
  view.setUint32(32, bytes.length, true);
  const buffer = bytesOf(view);
  bytes.copy(buffer, 40);
  return buffer;
}

/** Every name that the kernel remembers, also that of what does not exist, is looked up again at its next use. Protocol 7.44. */
export function encodeIncEpoch(): Buffer {
  return bytesOf(message(NOTIFY_INC_EPOCH, OUT_HEADER_BYTES));
}
