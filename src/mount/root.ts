/** The directory that a view shows, opened once. Everything below it is reached through this descriptor, never by its path again. */
import { constants, openSync } from 'node:fs';
import { type MountInfo, openCovered, parseMounts, stackedAt, unmountFuse } from '../fuse/index.ts';
import * as sys from '../sys/index.ts';
import type { MountOptions } from './options.ts';

const VIEW_TYPE = 'fuse.gate';

export interface OpenRoot {
  readonly fd: number;
  readonly dev: string;
  readonly ino: string;
  /** The mount on which it lies. */
  readonly below: MountInfo | undefined;
}

/**
 * Opens the root. In place, over what a dead mount left: from the descriptor that was kept, else (root only) beneath the dead
 * mount, else after taking that away; then the tree below is seen by its path until the new mount is there. Throws when
 * the root is a view, or not the directory that it was.
 */
export async function openRoot(options: MountOptions): Promise<OpenRoot> {
  const { root, inPlace } = options;
  const fd = inPlace === undefined ? openPlain(root) : await openInPlace(root, inPlace);
  const below = new sys.StatBuf();
  sys.fstatx(fd, below);
  const id = `${below.dev}:${below.ino}`;
  const mount = mountWith(below.mntId, root);
  if (mount?.fsType === VIEW_TYPE) throw new Error(`${root} is a view already`);
  if (inPlace?.rootId !== undefined && inPlace.rootId !== id)
    throw new Error(
      `${root} is not the directory that it was when the view was made (now ${id}, then ${inPlace.rootId})`,
    );
  return { fd, dev: String(below.dev), ino: String(below.ino), below: mount };
}

/** A descriptor from beneath a dead mount lies on a copy of its mount, which no table lists: then the deepest that holds the path. */
function mountWith(id: number, root: string): MountInfo | undefined {
  const mounts = parseMounts();
  return (
    mounts.find((mount) => mount.mountId === id) ??
    mounts
      .filter(
        ({ mountPoint: dir, fsType }) =>
          fsType !== VIEW_TYPE && (dir === '/' || `${root}/`.startsWith(`${dir}/`)),
      )
      .sort((a, b) => b.mountPoint.length - a.mountPoint.length)[0]
  );
}

function openPlain(root: string): number {
  return openSync(root, sys.O_PATH | constants.O_DIRECTORY);
}

async function openInPlace(root: string, how: NonNullable<MountOptions['inPlace']>): Promise<number> {
  if (how.rootFd !== undefined) return how.rootFd;
  if (stackedAt(root, 'gate').length === 0) return openPlain(root);
  if (!how.replace) throw new Error(`${root} is a view already`);
  const fd = sys.geteuid() === 0 ? openCovered(root, 'gate') : -sys.EPERM;
  if (fd >= 0) return fd;
  for (const _ of stackedAt(root, 'gate')) await unmountFuse(root, { lazy: true });
  return openPlain(root);
}
