/** Taking a view down, whatever state it is in. Used by the supervisor, and by `gate down` when there is none. */
import { spawn } from 'node:child_process';
import { rmdirSync } from 'node:fs';
import { type Clock, delay } from '../../base/clock.ts';
import { isAlive, processesUsing } from '../../base/process.ts';
import { projectDir } from '../../base/version.ts';
import { CliError } from '../context.ts';
import { mountAt, mountEntries, VIEW_TYPE } from '../mounts.ts';
import { isInPlace, type ViewRecord } from '../views.ts';
import { endProcess } from './child.ts';

/** How long processes that use a view may take to leave it before it is unmounted lazily. */
export const BUSY_MS = 2_000;
/** A plain umount that takes longer hangs on a server that does not answer. */
const UMOUNT_MS = 5_000;
const MNT_DETACH = 2;
/** Mounts on one place that are taken off, at most. */
const STACKED_MAX = 64;

/** One try. Undefined when it is unmounted, else why not. */
async function tryUnmount(mountPoint: string, lazy: boolean, uid: number): Promise<string | undefined> {
  if (uid === 0 && lazy) {
    const { umount2 } = await import('../../sys/index.ts');
    const code = umount2(mountPoint, MNT_DETACH);
    return code < 0 ? `umount: error ${-code}` : undefined;
  }
  const [program, ...args] =
    uid === 0
      ? ['umount', '-i', '--no-canonicalize', mountPoint]
      : ['fusermount3', '-u', ...(lazy ? ['-z'] : []), mountPoint];
  return new Promise((resolve) => {
    const child = spawn(program!, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      timeout: UMOUNT_MS,
      cwd: '/',
    });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => (said += chunk));
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code) => resolve(code === 0 ? undefined : said.trim() || `${program} failed`));
  });
}

/** Cuts a view off from its server: every access fails from now on. */
export async function abort(mountPoint: string): Promise<void> {
  const { connectionAbort } = await import('../../fuse/index.ts');
  connectionAbort(mountPoint);
}

export function isMounted(mountPoint: string): boolean {
  return mountAt(mountPoint) !== undefined;
}

export interface UnmountOptions {
  readonly uid: number;
  readonly clock: Clock;
  /** What lies under the view, the mount point itself, is not ours. */
  readonly inPlace?: boolean;
  /** Told who keeps it busy, once. */
  readonly busy?: (users: string[]) => void;
  readonly busyMs?: number;
}

/** `code (pid 12)`, for each process that uses it, at most ten. */
export function usersOf(dir: string, except?: ReadonlySet<number>): string[] {
  // Our own services keep the root of a view in place open.
  const own = `${projectDir}/src/cli/main.ts`;
  const others = processesUsing(dir, except).filter((user) => !user.command.includes(own));
  const users = others.map((user) => `${user.comm} (pid ${user.pid})`);
  return users.length > 10 ? [...users.slice(0, 10), `and ${users.length - 10} more`] : users;
}

/**
 * Unmounts everything at `mountPoint` that is a view (or the stale rest of one): plainly while that succeeds or users
 * still leave, then lazily. Does nothing when nothing is mounted there.
 */
export async function unmountView(mountPoint: string, options: UnmountOptions): Promise<void> {
  const busyMs = options.busyMs ?? BUSY_MS;
  const startMs = options.clock.nowMs();
  let told = false;
  for (let n = 0; n < STACKED_MAX * 20; n++) {
    const entry = mountAt(mountPoint);
    // A repository may be a mount point itself, and a view in place lie over it.
    if (!entry || (options.inPlace && entry.type !== VIEW_TYPE)) return;
    if (entry.type !== VIEW_TYPE)
      throw new CliError(`${mountPoint} is a mount of type ${entry.type}, not a view: it stays`);
    const lazy = options.clock.nowMs() - startMs >= busyMs;
    // Aborted, its server ends in order, and gives its locks back, although somebody still stands in it.
    if (lazy) await abort(mountPoint);
    const why = await tryUnmount(mountPoint, lazy, options.uid);
    if (why === undefined) continue;
    if (lazy && mountAt(mountPoint)?.type === VIEW_TYPE)
      throw new CliError(`${mountPoint} cannot be unmounted: ${why}`);
    if (!told) {
      told = true;
      options.busy?.(usersOf(mountPoint));
    }
    await delay(100);
  }
}

/** Removes folders that were made for a mount point; those that are not empty stay. */
export function removeMadeDirs(dirs: readonly string[]): void {
  const mounted = new Set(mountEntries().map((entry) => entry.mountPoint));
  for (const dir of dirs) {
    if (mounted.has(dir)) return;
    try {
      rmdirSync(dir);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return;
    }
  }
}

/** Unmounts, ends the process that served it, and makes sure that nothing is left at the mount point. */
export async function takeDown(
  view: Pick<ViewRecord, 'root' | 'mount' | 'madeDirs' | 'process'>,
  given: UnmountOptions,
): Promise<void> {
  const options = { ...given, inPlace: isInPlace(view) };
  const serving = isAlive(view.process) ? view.process : undefined;
  await unmountView(view.mount, serving ? options : { ...options, busyMs: 0 });
  if (serving) {
    // Unmounted, it ends by itself; a lazily unmounted one is still used, and is told to.
    for (let waitedMs = 0; isAlive(serving) && waitedMs < 1000; waitedMs += 20) await delay(20);
    await endProcess(serving);
    if (isAlive(serving)) throw new CliError(`the mount process ${serving.pid} cannot be ended`);
  }
  await unmountView(view.mount, { ...options, busyMs: 0 });
  removeMadeDirs(view.madeDirs);
}
