/**
 * Which state directory is meant, and which broker answers there. To start something: --state-dir, GATE_STATE_DIR,
 * /var/lib/gate when writable, $XDG_STATE_HOME/gate. To find what runs: the mount that one stands in (xattr
 * `user.gate` of the view's root), then the same places, whichever has a live broker.
 */
import { realpathSync, statSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { canWrite, defaultStateDir, makeStateDir, type StateFiles, stateFiles } from '../base/state.ts';
import { type BrokerInfo, DEFAULT_VOLUME } from '../broker/wire.ts';
import { connect, type GateSession } from '../client/index.ts';
import { CliError, type Context } from './context.ts';
import { isInside, mountEntries, mountedViews, mountOf, VIEW_TYPE } from './mounts.ts';
import { readBroker } from './supervisor/supervisor.ts';
import { readViews } from './views.ts';

/** Longest path of a Unix socket, less its NUL: sockaddr_un, unix(7). */
const SOCKET_PATH_MAX = 107;

/** An absolute path with symlinks resolved as far as it exists; its last name is left alone. */
export function absolute(context: Context, path: string): string {
  const full = resolve(context.cwd, path);
  try {
    return resolve(realpathSync(dirname(full)), basename(full));
  } catch {
    return full;
  }
}

/** Like `absolute`, with the last name resolved too. */
export function resolved(context: Context, path: string): string {
  try {
    // The C library's own, which asks nothing of the last name but whether it is a symlink: a dead mount may be there.
    return realpathSync.native(resolve(context.cwd, path));
  } catch {
    return absolute(context, path);
  }
}

function chosenDir(context: Context, flag?: string): string | undefined {
  const named = flag ?? (context.env.GATE_STATE_DIR || undefined);
  return named === undefined ? undefined : resolved(context, named);
}

/** The state directory to start things in; made when it is missing. Throws a CliError when it cannot be used. */
export function stateToUse(context: Context, flag?: string): StateFiles {
  const dir = chosenDir(context, flag) ?? resolved(context, defaultStateDir(context.env, context.home));
  const hint = 'Name another with --state-dir DIR or GATE_STATE_DIR.';
  if (Buffer.byteLength(`${dir}/supervisor.sock`) > SOCKET_PATH_MAX)
    throw new CliError(`the state directory's path is too long for a Unix socket: ${dir}`, { hint });
  if (!canWrite(dir))
    throw new CliError(`the state directory ${dir} cannot be written by this user`, { hint });
  try {
    return makeStateDir(dir);
  } catch (error) {
    throw new CliError(`the state directory ${dir} cannot be used: ${(error as Error).message}`, { hint });
  }
}

/** What a view says about itself, when `path` lies in one, or in the root of one (the source of the mount). */
export async function viewAt(
  path: string,
): Promise<{ mount: string; socket?: string; stateDir?: string; volume?: string } | undefined> {
  const mounts = mountEntries();
  const covering = mountOf(path, mounts);
  const entry =
    covering?.type === VIEW_TYPE
      ? covering
      : mountedViews(mounts).find((view) => isInside(path, view.source));
  if (!entry) return undefined;
  const { getxattr } = await import('../sys/index.ts');
  const value = Buffer.alloc(8192);
  const length = getxattr(entry.mountPoint, 'user.gate', value);
  if (length <= 0) return { mount: entry.mountPoint };
  try {
    const told = JSON.parse(value.toString('utf8', 0, length)) as Record<string, unknown>;
    const text = (key: string) => (typeof told[key] === 'string' ? (told[key] as string) : undefined);
    return {
      mount: entry.mountPoint,
      socket: text('socket') ?? text('brokerSocket'),
      stateDir: text('stateDir') ?? text('state_dir'),
      volume: text('volume'),
    };
  } catch {
    return { mount: entry.mountPoint };
  }
}

/** State directories that may be meant, the likeliest first. One that was named is the only one. */
export async function stateCandidates(context: Context, flag?: string, path?: string): Promise<StateFiles[]> {
  if (flag !== undefined) return [stateFiles(resolved(context, flag))];
  const dirs: string[] = [];
  const view = await viewAt(path === undefined ? context.cwd : absolute(context, path));
  if (view?.stateDir) dirs.push(view.stateDir);
  else if (view?.socket) dirs.push(dirname(view.socket));
  const named = chosenDir(context);
  if (named !== undefined) dirs.push(named);
  else dirs.push('/var/lib/gate', `${context.env.XDG_STATE_HOME || `${context.home}/.local/state`}/gate`);
  return [...new Set(dirs)].map(stateFiles);
}

/** The candidate in which something is up, or was left; else the first that exists. */
export async function stateInUse(
  context: Context,
  flag?: string,
  path?: string,
): Promise<StateFiles | undefined> {
  const candidates = await stateCandidates(context, flag, path);
  const used = candidates.find((files) => readBroker(files) || readViews(files).length > 0);
  return used ?? candidates.find((files) => statSync(files.dir, { throwIfNoEntry: false })?.isDirectory());
}

export interface FoundBroker {
  readonly files: StateFiles;
  readonly info: BrokerInfo;
}

/** The broker that is meant. Throws a CliError when none lives. */
export async function findBroker(context: Context, flag?: string, path?: string): Promise<FoundBroker> {
  const candidates = await stateCandidates(context, flag, path);
  for (const files of candidates) {
    const info = readBroker(files);
    if (info) return { files, info };
  }
  throw new CliError('no broker is running', {
    hint: `Looked in ${candidates.map((files) => files.dir).join(', ')}. 'gate up' in a repository starts one.`,
  });
}

/** A session with the broker that is meant. */
export async function openSession(
  context: Context,
  kind: string,
  flag?: string,
  path?: string,
): Promise<{ session: GateSession; found: FoundBroker }> {
  const found = await findBroker(context, flag, path);
  const session = await connect({ socket: found.info.socket, kind, pid: process.pid });
  return { session, found };
}

export interface Place {
  readonly volume: string;
  /** Relative to the volume's root. */
  readonly path: string;
  /** The name of the path for people: as in the view, when it is mounted. */
  readonly shown: string;
}

/** A path in a mount, in a root, or relative to the folder one stands in, as the broker names it. */
export async function placeOf(context: Context, session: GateSession, path: string): Promise<Place> {
  const full = absolute(context, path);
  const volumes = await session.volumes();
  const found = volumes
    .flatMap((volume) =>
      [volume.mount, volume.root, ...(volume.earlierMounts ?? [])]
        .filter((dir): dir is string => dir !== null && isInside(full, dir))
        .map((dir) => ({ volume, dir })),
    )
    .sort((a, b) => b.dir.length - a.dir.length)[0];
  // As over HTTP: what lies in no view is a name of the volume `default`.
  if (!found) return { volume: DEFAULT_VOLUME, path: full.slice(1), shown: full };
  const relative = found.dir === '/' ? full.slice(1) : full.slice(found.dir.length + 1);
  return { volume: found.volume.id, path: relative, shown: full };
}
