/**
 * The place where a view is mounted. One that we make has mode 0 while nothing is mounted on it, so that a save
 * after a reboot cannot land beneath the view. (Root writes whatever the mode is: that much is not prevented.)
 */
import { chmodSync, closeSync, constants, fchmodSync, openSync, readdirSync, statSync } from 'node:fs';
import { makeDirs } from '../../base/state.ts';
import { CliError } from '../context.ts';
import { isInside, mountAt, VIEW_TYPE } from '../mounts.ts';
import { isMounted } from './teardown.ts';

/** Checks or makes a mount point. Gives the folders that were made. Throws a CliError that says what is in the way. */
export function prepareMountPoint(mount: string, root: string): string[] {
  if (isInside(mount, root))
    throw new CliError(`the mount point ${mount} lies inside ${root} itself`, {
      hint: 'Name one outside with --mount DIR.',
    });
  if (isInside(root, mount))
    throw new CliError(`the mount point ${mount} would hide ${root}`, {
      hint: 'Name another with --mount DIR.',
    });
  if (isMounted(mount))
    throw new CliError(`something else is mounted on ${mount}`, {
      hint: 'Unmount it, or name another with --mount DIR.',
    });
  let made: string[];
  try {
    made = makeDirs(mount);
  } catch (error) {
    throw new CliError(`the mount point ${mount} cannot be made: ${(error as Error).message}`, {
      hint: 'Name another with --mount DIR.',
    });
  }
  if (made[0] === mount) {
    chmodSync(mount, 0);
    return made;
  }
  const state = statSync(mount);
  if (!state.isDirectory())
    throw new CliError(`the mount point ${mount} is not a directory`, {
      hint: 'Name another with --mount DIR.',
    });
  // One of ours that a crash left has mode 0: it cannot be listed, and nothing can have been put there.
  if ((state.mode & 0o777) === 0 && process.getuid?.() !== 0) return [];
  if (readdirSync(mount).length > 0)
    throw new CliError(`the mount point ${mount} is not empty`, {
      hint: 'What is in it would be hidden. Empty it, or name another with --mount DIR.',
    });
  return [];
}

/** Checks a root that a view is to be mounted over. `known`: what is mounted there already may be a dead view of ours. */
export function prepareInPlace(root: string, known: boolean): [] {
  if (mountAt(root)?.type === VIEW_TYPE && !known)
    throw new CliError(`${root} is a view already`, { hint: `Take it down first: gate unmount ${root}` });
  return [];
}

/**
 * Opens up a mount point of ours while it is being mounted on (fusermount3 wants to write there), and closes it again
 * beneath the mount, through a descriptor from before.
 */
export function openMountPoint(mount: string): () => void {
  if ((statSync(mount).mode & 0o777) !== 0) return () => {};
  chmodSync(mount, 0o700);
  const fd = openSync(mount, constants.O_RDONLY | constants.O_DIRECTORY);
  return () => {
    fchmodSync(fd, 0);
    closeSync(fd);
  };
}
