/**
 * Putting a new mount in the place of one whose server died, over a directory that must not be seen meanwhile.
 *
 * Unmounting first would uncover the directory for a moment, and whoever opened a file then would go on working there beside the new
 * mount. As root on Linux 6.5 and later the new mount is slid in *beneath* the dead one (MOVE_MOUNT_BENEATH, move_mount(2)), and
 * then the dead one is taken off. Elsewhere there is such a moment.
 */
import type { PathString } from '../base/bytes.ts';
import * as C from '../sys/constants.ts';
import { EBUSY } from '../sys/errno.ts';
import { close, openat } from '../sys/files.ts';
import { fsconfig, fsmount, fsopen, moveMount, openTree, umount2 } from '../sys/mounts.ts';
import { type MountInfo, parseMounts } from './mountinfo.ts';

export interface BeneathOptions {
  readonly mountPoint: PathString;
  readonly fsName: PathString;
  readonly subtype: string;
  /** Options of the file system, `key=value` or `key`, as mount(2) takes them. */
  readonly data: readonly string[];
  readonly readOnly: boolean;
  /** MOUNT_ATTR_*. */
  readonly attributes: number;
}

/** The views of `subtype` that are stacked at `mountPoint`. */
export function stackedAt(mountPoint: PathString, subtype: string): MountInfo[] {
  return parseMounts().filter((m) => m.mountPoint === mountPoint && m.fsType === `fuse.${subtype}`);
}

/** Mounts beneath the uppermost mount at `mountPoint`. 0 or `-errno`: EINVAL where the kernel cannot. */
export function mountBeneath(options: BeneathOptions): number {
  const fs = fsopen('fuse');
  if (fs < 0) return fs;
  try {
    const settings: [string, PathString | null][] = [
      ['source', options.fsName],
      ['subtype', options.subtype],
      ...(options.readOnly ? [['ro', null] as [string, null]] : []),
      ...options.data.map((each): [string, string | null] => {
        const at = each.indexOf('=');
        return at < 0 ? [each, null] : [each.slice(0, at), each.slice(at + 1)];
      }),
    ];
    for (const [key, value] of settings) {
      const code = fsconfig(fs, value === null ? C.FSCONFIG_SET_FLAG : C.FSCONFIG_SET_STRING, key, value);
      if (code < 0) return code;
    }
    const made = fsconfig(fs, C.FSCONFIG_CMD_CREATE, null, null);
    if (made < 0) return made;
    const mount = fsmount(fs, options.attributes);
    if (mount < 0) return mount;
    const moved = moveMount(mount, options.mountPoint, C.MOVE_MOUNT_F_EMPTY_PATH | C.MOVE_MOUNT_BENEATH);
    close(mount);
    return moved;
  } finally {
    close(fs);
  }
}

/** Takes the uppermost `count` mounts off. Root only. */
export function detachUppermost(mountPoint: PathString, count: number): void {
  for (let n = 0; n < count; n++) umount2(mountPoint, C.MNT_DETACH | C.UMOUNT_NOFOLLOW);
}

/**
 * An O_PATH descriptor of the directory at `path` beneath the mount that covers it, without uncovering it: through a copy of the mount
 * above, in which nothing is mounted on it. Root only. `-errno`; EBUSY where the copy would show something else than the directory
 * itself, because other file systems are mounted there or inside it.
 */
export function openCovered(path: PathString, subtype: string): number {
  const covering = new Set(stackedAt(path, subtype).map((m) => m.mountId));
  const others = parseMounts().filter(
    (m) =>
      (m.mountPoint === path && !covering.has(m.mountId)) ||
      (m.mountPoint.startsWith(`${path}/`) && !covering.has(m.parentId)),
  );
  if (others.length > 0) return -EBUSY;
  const slash = path.lastIndexOf('/');
  const tree = openTree(path.slice(0, slash) || '/', C.OPEN_TREE_CLONE);
  if (tree < 0) return tree;
  const flags = C.O_PATH | C.O_DIRECTORY | C.O_NOFOLLOW | C.O_CLOEXEC;
  const fd = openat(tree, path.slice(slash + 1), flags);
  close(tree);
  return fd;
}
