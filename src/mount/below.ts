/**
 * Who works in the tree beneath a view that is mounted in place. Nobody can get there by its path any more; but whoever had a working
 * directory, a root, an open file or a mapping there before still has it, and so have those whose mount namespace does not show the
 * view, or shows the tree in a second place.
 *
 * Reads /proc, and asks for attributes without asking any file system anew, so neither a dead nor a hung mount stops it;
 * only `maps` can block, on a process that is itself stuck. Sees what /proc shows this user.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { processInfo } from '../base/process.ts';
import { projectDir } from '../base/version.ts';
import { type MountInfo, parseMounts } from '../fuse/index.ts';
import * as sys from '../sys/index.ts';

const VIEW_TYPE = 'fuse.gate';

export interface UserBelow {
  readonly pid: number;
  readonly comm: string;
  /** Every way in which it is there: `cwd`, `root`, `fd`, `map`. */
  readonly how: readonly ('cwd' | 'root' | 'fd' | 'map')[];
  /** One of the paths, as that process would name it. */
  readonly path: string;
}

export interface Below {
  readonly users: readonly UserBelow[];
  /** Places where the tree is to be had without the view, for people: other mounts of it, and other mount namespaces. */
  readonly open: readonly string[];
}

interface Namespace {
  /** Paths at which the tree, or a part of it, lies there. */
  readonly places: readonly string[];
  /** Those of them that the view does not cover. */
  readonly open: readonly string[];
}

/** `root`: the repository, resolved. `maps`: look for mappings, too. Before the view is mounted, everybody in the tree counts. */
export function lookBelow(root: string, maps: boolean): Below {
  const own = parseMounts();
  const view = own.find((mount) => mount.mountPoint === root && mount.fsType === VIEW_TYPE);
  const tree = own
    .filter((mount) => mount.fsType !== VIEW_TYPE && inside(root, mount.mountPoint))
    .reduce((a, b) => (b.mountPoint.length >= a.mountPoint.length ? b : a));
  const pathInFs = join(tree.root, root.slice(tree.mountPoint === '/' ? 0 : tree.mountPoint.length));
  const namespaces = new Map<string, Namespace>();
  const users: UserBelow[] = [];
  const open = new Set<string>();
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      const key = readlinkSync(`/proc/${pid}/ns/mnt`);
      let space = namespaces.get(key);
      if (space === undefined) {
        space = namespaceOf(parseMounts(readFileSync(`/proc/${pid}/mountinfo`)), tree, pathInFs, view);
        namespaces.set(key, space);
        const here = key === readlinkSync('/proc/self/ns/mnt');
        for (const place of view === undefined ? [] : space.open)
          open.add(here ? place : `${place} in the mount namespace of ${commOf(pid)} (pid ${pid})`);
      }
      const user = space.places.length === 0 ? undefined : userOf(pid, space.places, view, maps);
      if (user !== undefined) users.push(user);
    } catch {
      // It ended, or belongs to somebody else.
    }
  }
  return { users, open: [...open] };
}

function namespaceOf(
  mounts: readonly MountInfo[],
  tree: MountInfo,
  pathInFs: string,
  view: MountInfo | undefined,
): Namespace {
  const places = mounts.flatMap((mount) => {
    if (!sameDevice(mount, tree)) return [];
    if (inside(pathInFs, mount.root))
      return [join(mount.mountPoint, pathInFs.slice(mount.root === '/' ? 0 : mount.root.length))];
    return inside(mount.root, pathInFs) ? [mount.mountPoint] : [];
  });
  const covered = new Set(
    mounts.filter((mount) => view !== undefined && sameDevice(mount, view)).map((mount) => mount.mountPoint),
  );
  const unique = [...new Set(places)];
  return { places: unique, open: unique.filter((place) => !covered.has(place)) };
}

function userOf(
  pid: number,
  places: readonly string[],
  view: MountInfo | undefined,
  maps: boolean,
): UserBelow | undefined {
  const how = new Set<UserBelow['how'][number]>();
  let shown = '';
  const isThere = (text: string) => places.some((place) => inside(text, place));
  const look = (link: string, kind: 'cwd' | 'root' | 'fd') => {
    const path = `/proc/${pid}/${link}`;
    const text = readlinkSync(path).replace(/ \(deleted\)$/, '');
    if (text === '/' || !isThere(text) || (view !== undefined && isOf(path, view))) return;
    how.add(kind);
    shown ||= text;
  };
  look('cwd', 'cwd');
  look('root', 'root');
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      look(`fd/${fd}`, 'fd');
    } catch {
      // Closed meanwhile.
    }
  }
  const mapped = maps ? mappingOf(pid, isThere, view) : undefined;
  if (mapped !== undefined) how.add('map');
  if (how.size === 0 || isOurs(pid)) return undefined;
  return { pid, comm: commOf(pid), how: [...how], path: shown || mapped! };
}

/** A file that it has mapped there: `ADDRESS PERMS OFFSET MAJOR:MINOR INODE PATH`, numbers in hex (proc_pid_maps(5)). */
function mappingOf(
  pid: number,
  isThere: (text: string) => boolean,
  view: MountInfo | undefined,
): string | undefined {
  const device = view === undefined ? '' : `${hex(view.dev.major)}:${hex(view.dev.minor)}`;
  for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
    const at = line.indexOf('/');
    if (at < 0) continue;
    const path = line.slice(at).replace(/ \(deleted\)$/, '');
    if (isThere(path) && line.split(' ', 4)[3] !== device) return path;
  }
  return undefined;
}

const stat = new sys.StatBuf();

/** True when what the link leads to lies in the view. What cannot be looked at does not. */
function isOf(link: string, view: MountInfo): boolean {
  const flags = sys.AT_STATX_DONT_SYNC | sys.AT_NO_AUTOMOUNT;
  const error = sys.statx(sys.AT_FDCWD, link, flags, stat, sys.STATX_BASIC_STATS);
  return error >= 0 && stat.dev === sys.makeDev(view.dev.major, view.dev.minor);
}

/** Our own services have the tree open, and are meant to. */
function isOurs(pid: number): boolean {
  return (processInfo(pid)?.command ?? '').includes(`${projectDir}/src/cli/main.ts`);
}

function commOf(pid: number): string {
  return processInfo(pid)?.comm ?? '?';
}

function sameDevice(a: MountInfo, b: MountInfo): boolean {
  return a.dev.major === b.dev.major && a.dev.minor === b.dev.minor;
}

function hex(number: number): string {
  return number.toString(16).padStart(2, '0');
}

function inside(path: string, dir: string): boolean {
  return path === dir || dir === '/' || path.startsWith(`${dir}/`);
}

function join(dir: string, rest: string): string {
  return rest === '' ? dir : dir === '/' ? rest : `${dir}${rest}`;
}
