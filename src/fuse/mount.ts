/**
 * Mounting and unmounting. As root with mount(2) itself; as an ordinary user through `fusermount3`, which is
 * setuid, mounts, and hands the device over a Unix socket (`_FUSE_COMMFD`, fusermount3(1)).
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { PathString } from '../base/bytes.ts';
import { umount2Async } from '../sys/async.ts';
import {
  AF_UNIX,
  AT_FDCWD,
  MNT_DETACH,
  MNT_FORCE,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  SOCK_CLOEXEC,
  SOCK_STREAM,
  UMOUNT_NOFOLLOW,
} from '../sys/constants.ts';
import { getegid, geteuid } from '../sys/creds.ts';
import { EINVAL, ENOENT, ENXIO, errnoName, errnoNumber } from '../sys/errno.ts';
import { close, openat } from '../sys/files.ts';
import { mount } from '../sys/mounts.ts';
import { recvFd, socketpair } from '../sys/sockets.ts';
import { mountAt } from './mountinfo.ts';
import { detachUppermost, mountBeneath, stackedAt } from './replace.ts';

const DEVICE = '/dev/fuse';
const HELPER = 'fusermount3';
const CONNECTIONS = '/sys/fs/fuse/connections';

/** What went wrong, and what to do about it. */
export class FuseMountError extends Error {
  override readonly name = 'FuseMountError';
  /** Name of an errno. */
  readonly code: string;
  readonly hint: string;

  constructor(code: string, message: string, hint: string) {
    super(`${message} ${hint}`);
    this.code = code;
    this.hint = hint;
  }
}

export interface MountOptions {
  /** An absolute path to an existing directory. */
  readonly mountPoint: PathString;
  /** What `mount` and `df` show as the source. */
  readonly fsName: string;
  /** The type is `fuse.<subtype>`. */
  readonly subtype: string;
  /** Let other users in. An ordinary user may only where /etc/fuse.conf says `user_allow_other`. */
  readonly allowOther: boolean;
  /** The kernel checks modes and owners. */
  readonly defaultPermissions: boolean;
  readonly readOnly?: boolean;
  readonly nosuid?: boolean;
  readonly nodev?: boolean;
  readonly noexec?: boolean;
  /**
   * A mount of this subtype that is there already, whose server is known to be dead, gives way to the new one. See replace.ts for when the
   * directory below is not seen meanwhile.
   */
  readonly replace?: boolean;
  /** Largest READ; without it the kernel's own limit. */
  readonly maxReadBytes?: number;
}

export interface Mounted {
  /** The device: give it to `runReactor`. Closing it ends the mount's life. */
  readonly fd: number;
  /** Mounted by root: PASSTHROUGH may work. */
  readonly privileged: boolean;
  /** False when it was asked for and /etc/fuse.conf does not allow it. */
  readonly allowOther: boolean;
}

/** True when ordinary users may pass `allow_other`. */
export function userAllowOther(config = '/etc/fuse.conf'): boolean {
  try {
    return /^\s*user_allow_other\s*(#.*)?$/m.test(readFileSync(config, 'utf8'));
  } catch {
    return false;
  }
}

export async function mountFuse(options: MountOptions): Promise<Mounted> {
  if (geteuid() === 0) return mountAsRoot(options);
  return mountAsUser(options);
}

function openDevice(): number {
  const fd = openat(AT_FDCWD, DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) return fd;
  if (fd === -ENOENT || fd === -ENXIO) {
    throw new FuseMountError(
      'ENODEV',
      `${DEVICE} is missing.`,
      'Run `modprobe fuse`; in a container start it with `--device /dev/fuse --cap-add SYS_ADMIN`.',
    );
  }
  throw new FuseMountError(
    errnoName(fd),
    `${DEVICE} cannot be opened: ${errnoName(fd)}.`,
    'Its mode should be 0666; a container needs `--device /dev/fuse`.',
  );
}

function mountAsRoot(options: MountOptions): Mounted {
  const fd = openDevice();
  const data = [`fd=${fd}`, 'rootmode=40000', `user_id=${geteuid()}`, `group_id=${getegid()}`];
  if (options.defaultPermissions) data.push('default_permissions');
  if (options.allowOther) data.push('allow_other');
  if (options.maxReadBytes !== undefined) data.push(`max_read=${options.maxReadBytes}`);
  const flags =
    (options.readOnly ? MS_RDONLY : 0) |
    (options.nosuid ? MS_NOSUID : 0) |
    (options.nodev ? MS_NODEV : 0) |
    (options.noexec ? MS_NOEXEC : 0);
  if (options.replace && replaceDead(options, data))
    return { fd, privileged: true, allowOther: options.allowOther };
  const code = mount(options.fsName, options.mountPoint, `fuse.${options.subtype}`, flags, data.join(','));
  if (code >= 0) return { fd, privileged: true, allowOther: options.allowOther };
  close(fd);
  throw mountError(code, options.mountPoint);
}

/** True when the new mount took the place of the dead one; false when nothing is in the way any more. */
function replaceDead(options: MountOptions, data: readonly string[]): boolean {
  const { mountPoint, fsName, subtype } = options;
  const dead = stackedAt(mountPoint, subtype).length;
  const attributes =
    (options.readOnly ? MOUNT_ATTR_RDONLY : 0) |
    (options.nosuid ? MOUNT_ATTR_NOSUID : 0) |
    (options.nodev ? MOUNT_ATTR_NODEV : 0) |
    (options.noexec ? MOUNT_ATTR_NOEXEC : 0);
  const readOnly = options.readOnly ?? false;
  const slid = dead > 0 && mountBeneath({ mountPoint, fsName, subtype, data, readOnly, attributes }) >= 0;
  detachUppermost(mountPoint, dead);
  return slid;
}

function mountError(code: number, mountPoint: PathString): FuseMountError {
  const name = errnoName(code);
  const hints: Record<string, string> = {
    EPERM:
      'Mounting takes CAP_SYS_ADMIN; a container needs `--cap-add SYS_ADMIN --security-opt apparmor=unconfined`.',
    ENOENT: 'Make the directory first.',
    ENOTDIR: 'The mount point must be a directory.',
    ENODEV: 'The kernel has no FUSE: run `modprobe fuse`.',
    ENOTCONN: 'A dead mount is in the way: `umount -l` it.',
  };
  return new FuseMountError(name, `${mountPoint} cannot be mounted: ${name}.`, hints[name] ?? 'See `dmesg`.');
}

/** A comma or backslash in a value of `-o` is escaped for libfuse's option parser. */
function escapeOption(value: string): string {
  return value.replace(/[\\,]/g, '\\$&');
}

function helperOptions(options: MountOptions, allowOther: boolean): string {
  const list = [`fsname=${escapeOption(options.fsName)}`, `subtype=${escapeOption(options.subtype)}`];
  if (options.defaultPermissions) list.push('default_permissions');
  if (allowOther) list.push('allow_other');
  if (options.maxReadBytes !== undefined) list.push(`max_read=${options.maxReadBytes}`);
  if (options.readOnly) list.push('ro');
  // nosuid and nodev are the helper's own rule for ordinary users.
  if (options.noexec) list.push('noexec');
  return list.join(',');
}

async function mountAsUser(options: MountOptions): Promise<Mounted> {
  if (!existsSync(DEVICE)) close(openDevice());
  if (options.replace)
    for (const _ of stackedAt(options.mountPoint, options.subtype))
      await unmountFuse(options.mountPoint, { lazy: true });
  const allowOther = options.allowOther && userAllowOther();
  const sockets = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC);
  if (typeof sockets === 'number')
    throw new FuseMountError(errnoName(sockets), 'No socket pair.', 'Raise the limit of open files.');
  const [ours, theirs] = sockets;
  try {
    const args = ['-o', helperOptions(options, allowOther), '--', options.mountPoint];
    await runHelper(args, theirs, options.mountPoint);
    close(theirs);
    const fd = recvFd(ours);
    if (fd < 0)
      throw new FuseMountError(
        errnoName(fd),
        `${HELPER} handed no descriptor over.`,
        'Is another program of that name first in PATH?',
      );
    return { fd, privileged: false, allowOther };
  } finally {
    close(ours);
  }
}

function runHelper(args: string[], socket: number, mountPoint: PathString): Promise<void> {
  return new Promise((done, failed) => {
    const child = spawn(HELPER, args, {
      // _FUSE_COMMFD names the descriptor in the child, the fourth entry here.
      stdio: ['ignore', 'ignore', 'pipe', socket],
      env: { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', _FUSE_COMMFD: '3' },
    });
    let said = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString('utf8')).slice(-2000);
    });
    child.once('error', (error: NodeJS.ErrnoException) => {
      close(socket);
      failed(helperError(error, ''));
    });
    child.once('close', (status) => {
      if (status === 0) return done();
      close(socket);
      failed(
        new FuseMountError(
          'EPERM',
          `${mountPoint} cannot be mounted: ${said.trim() || `${HELPER} ended with ${status}`}.`,
          'You must own the directory, and it must not be in use.',
        ),
      );
    });
  });
}

function helperError(error: NodeJS.ErrnoException, said: string): FuseMountError {
  if (error.code === 'ENOENT') {
    return new FuseMountError(
      'ENOENT',
      `${HELPER} is not installed.`,
      'Run `apt-get install fuse3`, or mount as root.',
    );
  }
  return new FuseMountError(
    error.code ?? 'EIO',
    `${HELPER} failed: ${said.trim() || error.message}.`,
    'See `dmesg`.',
  );
}

export interface UnmountOptions {
  /** Take it out of the tree at once; what is in use lives on until it is closed. */
  readonly lazy?: boolean;
  /** Abort what is waiting first. Root only. */
  readonly force?: boolean;
}

/** Throws `FuseMountError`: EBUSY while something is open there, EINVAL when nothing is mounted. */
export async function unmountFuse(mountPoint: PathString, options: UnmountOptions = {}): Promise<void> {
  if (geteuid() === 0) {
    const flags = UMOUNT_NOFOLLOW | (options.lazy ? MNT_DETACH : 0) | (options.force ? MNT_FORCE : 0);
    const code = await umount2Async(mountPoint, flags);
    if (code < 0) throw unmountError(errnoName(code), mountPoint);
    return;
  }
  const args = ['-u', ...(options.lazy ? ['-z'] : []), '--', mountPoint];
  await new Promise<void>((done, failed) => {
    execFile(
      HELPER,
      args,
      { env: { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C' } },
      (error, _out, said) => {
        if (error === null) return done();
        if ((error as NodeJS.ErrnoException).code === 'ENOENT')
          return failed(helperError(error as NodeJS.ErrnoException, said));
        const code = /busy/i.test(said) ? 'EBUSY' : /not found|invalid/i.test(said) ? 'EINVAL' : 'EPERM';
        failed(unmountError(code, mountPoint));
      },
    );
  });
}

function unmountError(code: string, mountPoint: PathString): FuseMountError {
  const hints: Record<string, string> = {
    EBUSY: 'Something is open or works there: `fuser -vm` names it; or unmount lazily.',
    EINVAL: 'Nothing is mounted there.',
    ENOENT: 'There is no such directory.',
    EPERM: 'Only its owner or root may.',
  };
  return new FuseMountError(
    code,
    `${mountPoint} cannot be unmounted: ${code}.`,
    hints[code] ?? 'See `dmesg`.',
  );
}

/**
 * Kills the connection: every request that waits gets ECONNABORTED, every later one ENOTCONN, and the server's read
 * ENODEV. The way out of a hang; it never touches the mount itself, so it cannot hang. 0 or `-errno`: EINVAL when no FUSE is mounted
 * there, EACCES when not its owner, ENOENT without /sys/fs/fuse/connections (the `fusectl` file system), which root mounts at need.
 */
export function connectionAbort(mountPoint: PathString): number {
  const found = mountAt(mountPoint);
  if (found === undefined || !found.fsType.startsWith('fuse')) return -EINVAL;
  const { major, minor } = found.dev;
  // The directory is st_dev as the kernel keeps it: major << 20 | minor; FUSE's anonymous major is 0.
  const id = major * 2 ** 20 + minor;
  const code = writeAbort(id);
  if (code !== -ENOENT) return code;
  // Where no init system has mounted it, as in a bare VM.
  mount('fusectl', CONNECTIONS, 'fusectl', MS_NOSUID | MS_NODEV | MS_NOEXEC, '');
  return writeAbort(id);
}

function writeAbort(id: number): number {
  try {
    writeFileSync(`${CONNECTIONS}/${id}/abort`, '1');
    return 0;
  } catch (error) {
    return -errnoNumber((error as NodeJS.ErrnoException).code ?? '');
  }
}
