/**
 * INIT: what we ask for, of what the kernel offers.
 *
 * Wanted, and why: ATOMIC_O_TRUNC (else `O_RDONLY|O_TRUNC` arrives as a read), PARALLEL_DIROPS, READDIRPLUS (automatic),
 * BIG_WRITES and MAX_PAGES (1 MiB a WRITE), HANDLE_KILLPRIV_V2 and POSIX_ACL and DONT_MASK (modes are the server's business,
 * as on a local disk), AUTO_INVAL_DATA (a changed size or mtime drops cached pages), CACHE_SYMLINKS,
 * DIRECT_IO_ALLOW_MMAP, NO_EXPORT_SUPPORT, PASSTHROUGH when asked.
 *
 * Not wanted: WRITEBACK_CACHE (excludes PASSTHROUGH, and a parked `O_TRUNC` open would freeze its file), EXPORT_SUPPORT,
 * POSIX_LOCKS and FLOCK_LOCKS (the kernel keeps those locks itself, rightly), splice, DAX, idmapped mounts, io_uring.
 */
import {
  CONGESTION_THRESHOLD,
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_KERNEL_VERSION,
  FUSE_MINOR_MIN,
  INIT,
  INIT2,
  MAX_BACKGROUND,
  MAX_WRITE_BYTES,
} from './abi.ts';
import type { InitReply } from './encode.ts';

export const WANTED_FLAGS =
  INIT.ASYNC_READ |
  INIT.ATOMIC_O_TRUNC |
  INIT.BIG_WRITES |
  INIT.DONT_MASK |
  INIT.AUTO_INVAL_DATA |
  INIT.DO_READDIRPLUS |
  INIT.READDIRPLUS_AUTO |
  INIT.ASYNC_DIO |
  INIT.PARALLEL_DIROPS |
  INIT.POSIX_ACL |
  INIT.MAX_PAGES |
  INIT.CACHE_SYMLINKS |
  INIT.HANDLE_KILLPRIV_V2 |
  INIT.SETXATTR_EXT |
  INIT.INIT_EXT;

export const WANTED_FLAGS2 = INIT2.DIRECT_IO_ALLOW_MMAP | INIT2.NO_EXPORT_SUPPORT;

/** `struct fuse_init_in`. */
export interface InitRequest {
  readonly major: number;
  readonly minor: number;
  readonly maxReadahead: number;
  readonly flags: number;
  /** 0 unless the kernel set INIT_EXT. */
  readonly flags2: number;
}

export interface InitOptions {
  /** Ask for PASSTHROUGH. It also takes CAP_SYS_ADMIN, when the first backing file is opened. */
  readonly passthrough: boolean;
  /** 1: the backing file system is an ordinary one, and overlayfs may be stacked on the mount. 2: it is an overlayfs. */
  readonly maxStackDepth: number;
  readonly pageBytes: number;
}

export type InitAnswer =
  | { readonly kind: 'agreed'; readonly reply: InitReply }
  /** The kernel speaks a newer major version; it asks again after this answer. */
  | { readonly kind: 'again'; readonly reply: InitReply }
  | { readonly kind: 'refused'; readonly reason: string };

export function negotiate(request: InitRequest, options: InitOptions): InitAnswer {
  const newer = request.major > FUSE_KERNEL_VERSION;
  if (!newer && (request.major < FUSE_KERNEL_VERSION || request.minor < FUSE_MINOR_MIN)) {
    return {
      kind: 'refused',
      reason: `the kernel speaks FUSE ${request.major}.${request.minor}, and 7.${FUSE_MINOR_MIN} (Linux 5.4) is needed`,
    };
  }
  const flags = request.flags & WANTED_FLAGS;
  const extended = (flags & INIT.INIT_EXT) !== 0;
  const stackable = options.maxStackDepth > 0 && options.maxStackDepth <= 2;
  const wanted2 = WANTED_FLAGS2 | (options.passthrough && stackable ? INIT2.PASSTHROUGH : 0);
  const flags2 = extended ? request.flags2 & wanted2 : 0;
  const reply: InitReply = {
    major: FUSE_KERNEL_VERSION,
    minor: newer ? FUSE_KERNEL_MINOR_VERSION : Math.min(request.minor, FUSE_KERNEL_MINOR_VERSION),
    maxReadahead: request.maxReadahead,
    flags,
    flags2,
    maxBackground: MAX_BACKGROUND,
    congestionThreshold: CONGESTION_THRESHOLD,
    maxWriteBytes: MAX_WRITE_BYTES,
    timeGranNs: 1,
    maxPages:
      (flags & INIT.MAX_PAGES) !== 0 ? Math.max(1, Math.floor(MAX_WRITE_BYTES / options.pageBytes)) : 0,
    maxStackDepth: (flags2 & INIT2.PASSTHROUGH) !== 0 ? options.maxStackDepth : 0,
  };
  return { kind: newer ? 'again' : 'agreed', reply };
}
