import * as sys from '../sys/index.ts';
import type { Handle } from '../view/handle.ts';
import type { PagesVersion } from '../view/node.ts';
import { scratch } from '../view/scratch.ts';

/** A file system's clock ticks every 10 ms at worst (CONFIG_HZ_100): within one tick two changes leave the same time. */
export const TICK_MS = 100;
const MASK = sys.STATX_BASIC_STATS;

/**
 * Whether the kernel may keep the pages of a file that it has cached when the file is opened anew (FOPEN_KEEP_CACHE; without it all
 * are dropped): when the file below is as it was at an earlier open, and everything that happened to it since shows.
 *
 * A write shows by the change time, unless it came within the same tick as the one before. A store to a mapping shows only when it
 * is the first to that page, so nobody may have the file open for writing when its version is taken: whoever comes later shows.
 * `scratch` has the file's attributes afterwards.
 *
 * Writes through the view change the version too, so they cost the pages, although those are right; with AUTO_INVAL_DATA the kernel
 * drops them anyway when it sees the new modification time.
 */
export function keepsPages(handle: Handle, fd: number, cache: CachedPages, wallMs: () => number): boolean {
  if (sys.fstatx(fd, scratch, MASK) < 0) {
    cache.pages = null;
    return false;
  }
  if (cache.pages !== null && isSame(cache.pages)) return true;
  cache.pages = null;
  const changedMs = scratch.ctimeSec * 1000 + scratch.ctimeNsec / 1e6;
  if (handle.node.writers === 0 && changedMs < wallMs() - TICK_MS && isUnwritten(fd)) cache.pages = version();
  return false;
}

/** What a kernel has cached of one file. */
export interface CachedPages {
  pages: PagesVersion | null;
}

/** Whether what `scratch` has is this version. */
export function isSame(pages: PagesVersion): boolean {
  return (
    pages.ctimeNsec === scratch.ctimeNsec &&
    pages.mtimeNsec === scratch.mtimeNsec &&
    pages.ctimeSec === scratch.ctimeSec &&
    pages.mtimeSec === scratch.mtimeSec &&
    pages.size === scratch.size
  );
}

/** Of what `scratch` has. */
export function version(): PagesVersion {
  const { ctimeSec, ctimeNsec, mtimeSec, mtimeNsec, size } = scratch;
  return { ctimeSec, ctimeNsec, mtimeSec, mtimeNsec, size };
}

/**
 * True when nobody has the file open or mapped for writing: then, and only then, it can be leased for reading (fcntl(2), F_SETLEASE).
 * False also where that cannot be found out: the file is another user's, or its file system has no leases.
 */
function isUnwritten(fd: number): boolean {
  if (sys.fcntl(fd, sys.F_SETLEASE, sys.F_RDLCK) < 0) return false;
  sys.fcntl(fd, sys.F_SETLEASE, sys.F_UNLCK);
  return true;
}
