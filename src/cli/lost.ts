/** The kept files of views, as the commands see them: view/lost/folder.ts has what is in them. */
import { closeSync, constants, openSync } from 'node:fs';
import { systemClock } from '../base/clock.ts';
import { type Kept, LostFolder } from '../view/lost/folder.ts';
import { LOST_DIRECTORY } from '../view/lost/record.ts';
import { CliError, type Context } from './context.ts';
import { absolute, stateInUse } from './locate.ts';
import { isInside, mountAt, VIEW_TYPE } from './mounts.ts';
import { bytes } from './output.ts';
import { readBroker } from './supervisor/supervisor.ts';
import { readViews } from './views.ts';

export interface LostPlace {
  /** The directory below the view. */
  readonly root: string;
  /** Where the view is, when it is mounted. */
  readonly mount: string | null;
  /** A path by which the directory below can be reached now: another than `root` when the view covers it. */
  readonly base: string;
}

/** A view's own words about itself (xattr `user.gate` of its root). */
async function aboutView(mount: string): Promise<{ pid?: number; rootFd?: number }> {
  const { getxattr } = await import('../sys/index.ts');
  const value = Buffer.alloc(8192);
  const length = getxattr(mount, 'user.gate', value);
  try {
    return length <= 0
      ? {}
      : (JSON.parse(value.toString('utf8', 0, length)) as { pid?: number; rootFd?: number });
  } catch {
    return {};
  }
}

async function placeAt(root: string, mount: string | null): Promise<LostPlace> {
  const mounted = mount !== null && mountAt(mount)?.type === VIEW_TYPE ? mount : null;
  if (mountAt(root)?.type !== VIEW_TYPE) return { root, mount: mounted, base: root };
  const { pid, rootFd } = await aboutView(root);
  if (pid === undefined || rootFd === undefined)
    throw new CliError(`what is kept below ${root} cannot be reached through the view that covers it`);
  return { root, mount: mounted ?? root, base: `/proc/${pid}/fd/${rootFd}` };
}

/** The views that are meant: the one in which `path` (or the current folder) lies, else all of the state directory. */
export async function lostPlaces(context: Context, flag?: string, path?: string): Promise<LostPlace[]> {
  const at = path === undefined ? context.cwd : absolute(context, path);
  const files = await stateInUse(context, flag, at);
  const known = new Map<string, string | null>();
  for (const view of files ? readViews(files) : []) known.set(view.root, view.mount);
  const info = files && readBroker(files);
  if (info) {
    const { connect } = await import('../client/index.ts');
    const session = await connect({ socket: info.socket, kind: 'cli', pid: process.pid });
    for (const volume of await session.volumes())
      if (!known.has(volume.root)) known.set(volume.root, volume.mount);
    await session.close();
  }
  const all = [...known];
  const here = all.filter(([root, mount]) => isInside(at, root) || (mount !== null && isInside(at, mount)));
  if (path !== undefined && here.length === 0)
    throw new CliError(`${path} is in no view`, { hint: 'gate status lists the views.' });
  return Promise.all((here.length > 0 ? here : all).map(([root, mount]) => placeAt(root, mount)));
}

/** Runs `use` with the folder of a place. */
export function withLost<T>({ base }: LostPlace, use: (folder: LostFolder) => T): T | undefined {
  let fd: number;
  try {
    fd = openSync(`${base}/.`, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch {
    return undefined;
  }
  const folder = new LostFolder(fd, systemClock.wallMs);
  try {
    return use(folder);
  } finally {
    folder.close();
    closeSync(fd);
  }
}

export function keptIn(place: LostPlace): Kept[] {
  return withLost(place, (folder) => folder.list()) ?? [];
}

/** What is kept of a view, in a line for people; undefined: nothing. */
export async function keptLine(root: string, mount: string): Promise<string | undefined> {
  try {
    const place = await placeAt(root, mount);
    const kept = keptIn(place);
    if (kept.length === 0) return undefined;
    const size = kept.reduce((sum, { diskBytes }) => sum + diskBytes, 0);
    const conflicts = kept.filter(({ record }) => record.state === 'conflict').length;
    const warning = withLost(place, (folder) => (folder.open() ? folder.warning() : undefined));
    const text = `${kept.length} kept of what would have been lost (${bytes(size)}), ${conflicts} of them conflict copies`;
    return `${text}: gate conflicts list ${mount}${warning === undefined ? '' : `; ${warning}`}`;
  } catch {
    return undefined; // not ours to look into
  }
}

/** Where a kept file lies, for programs. */
export function keptPath({ base }: LostPlace, id: string): string {
  return `${base}/.gate/${LOST_DIRECTORY}/${id}`;
}
