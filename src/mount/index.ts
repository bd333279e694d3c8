/**
 * `gate mount`: one process, three threads.
 *
 *     kernel <-> reactor (worker): FUSE session + view        never blocks but on the disk below
 *                   |  ports + eventfd
 *     broker <-> main: session, slow calls, announcements      ordinary event loop
 *                   |
 *                prober (worker): looks into /proc             may block on other processes
 *
 * It ends when the mount is unmounted, by us or by anybody. What happens to its locks when it is killed is the broker's
 * business: they are freed when its session's time is over.
 */
import { rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { delay, systemClock } from '../base/clock.ts';
import { GateError } from '../base/errors.ts';
import { createLogger, type Logger } from '../base/log.ts';
import type { ConnectOptions } from '../client/index.ts';
import { type MountInfo, mountFuse, unmountFuse } from '../fuse/index.ts';
import * as sys from '../sys/index.ts';
import { SessionKeeper } from '../view/keeper.ts';
import { DEFAULT_BOUNDS } from '../view/lost/bounds.ts';
import { Rescuer } from '../view/lost/rescuer.ts';
import { waitsAsText } from '../view/waits.ts';
import { Announcer } from './announce.ts';
import { Lookout } from './lookout.ts';
import type { FromReactor } from './messages.ts';
import type { MountOptions } from './options.ts';
import { Relay } from './relay.ts';
import { type OpenRoot, openRoot } from './root.ts';
import { startThreads, type Threads } from './threads.ts';
import { Wakes } from './wake.ts';
import { openWatch } from './watch.ts';

export { type InPlace, KNOWN_AGENTS, type MountOptions } from './options.ts';

export interface RunningMount {
  readonly mountPoint: string;
  readonly volume: string;
  readonly passthrough: boolean;
  readonly root: OpenRoot;
  /** Resolves when the kernel has let go of the mount, whoever unmounted it. */
  readonly unmounted: Promise<void>;
  /**
   * Unmounts: the path is free at once. Programs that still have something open in the view are served for three seconds
   * more; then it resolves, and the process may end, which leaves them with ENOTCONN.
   */
  unmount(): Promise<void>;
}

/** How long programs that still use an unmounted view are served on. */
const LEAVE_MS = 3000;

/** Mounts a view. Throws GateError, FuseMountError; nothing stays mounted then. */
export async function startMount(options: MountOptions): Promise<RunningMount> {
  const log = createLogger('mount', options.logLevel);
  // The read-lease probe may be broken by another open: the signal of that must not end us (fcntl(2), F_SETLEASE).
  process.on('SIGIO', () => {});
  sys.raiseOpenFiles();
  const root = await openRoot(options);
  const { dev, ino } = root;
  const registration = { root: options.root, mount: options.mountPoint, dev, ino };
  const keeper = new SessionKeeper(connection(options), registration, log);
  await keeper.open();
  try {
    return await serve(options, keeper, root, log);
  } catch (error) {
    await keeper.close();
    throw error;
  }
}

async function serve(
  options: MountOptions,
  keeper: SessionKeeper,
  root: OpenRoot,
  log: Logger,
): Promise<RunningMount> {
  const { mountPoint } = options;
  const { volume } = keeper;
  const mounted = await mountFuse({
    mountPoint,
    fsName: options.root,
    subtype: 'gate',
    allowOther: true,
    defaultPermissions: true,
    replace: options.inPlace?.replace ?? false,
    ...flagsOf(root.below),
  });
  const { privileged, fd: fuseFd } = mounted;
  const passthrough = privileged && options.passthrough !== 'off';
  let threads: Threads;
  try {
    const watchGroup = watchOf(options, root.fd, log);
    const listenFd = options.serve === undefined ? -1 : listen(options.serve.socket);
    const started = { fuseFd, rootFd: root.fd, privileged, passthrough, volume, watchGroup, listenFd };
    threads = startThreads(options, started);
  } catch (error) {
    await unmountFuse(mountPoint, { lazy: true });
    throw error;
  }
  const announcer = new Announcer(systemClock, () => keeper.session, volume, mountPoint);
  const lookout = new Lookout({
    clock: systemClock,
    session: () => keeper.session,
    volume,
    look: threads.look,
    use: (verdict) => relay.standstill(verdict),
  });
  const relay: Relay = new Relay(
    keeper.session,
    volume,
    threads.send,
    announcer,
    lookout,
    log,
    systemClock,
    options.delegation !== 'off',
  );
  keeper.onLost = () => relay.lost();
  keeper.onNew = (session) => relay.use(session);
  const rescuer = new Rescuer(
    new URL('rescue.ts', import.meta.url),
    { rootFd: root.fd, fuseFd, bounds: options.bounds ?? DEFAULT_BOUNDS },
    (message) => {
      if (message.t === 'rescued') threads.send(message);
      else if (message.t === 'log') log[message.level](message.message);
      else relay.handle(message);
    },
  );
  rescuer.resume();
  const tellWaker = (pid: number) => threads.send({ t: 'waker', pid });
  const wakes = new Wakes(mountPoint, threads.mountDev, systemClock, tellWaker);
  const unmounted = new Promise<void>((done) => {
    const end = async (unclean: boolean) => {
      wakes.close();
      if (options.serve !== undefined) rmSync(options.serve.socket, { force: true });
      await rescuer.stop();
      await threads.stop();
      await keeper.close(unclean);
      done();
    };
    const use = async (message: FromReactor) => {
      if (message.t === 'ended') {
        if (message.why !== 'unmounted') log.error(`the reactor ended: ${message.why}`);
        await end(message.writers > 0);
      } else if (message.t === 'slow')
        threads.send({ t: 'done', id: message.id, result: await slow(message.call, message.fd) });
      else if (message.t === 'rescue') rescuer.start(message.id, message.job);
      else if (message.t === 'who')
        threads.send({ t: 'text', id: message.id, text: await waitsAsText(keeper.session, volume) });
      else if (message.t === 'wake') wakes.add(message.paths);
      else if (message.t === 'waker') wakes.ready(message.pid);
      else if (message.t === 'tell_kernel') await sys.writeAsync(fuseFd, message.message);
      else if (message.t === 'log') log[message.level](message.message);
      else relay.handle(message);
    };
    threads.onMessage(
      (message) => void use(message),
      (error) => {
        // A mount that nobody serves must not hang: with its device closed the kernel answers ENOTCONN.
        log.error(`a thread failed: ${error.stack ?? error}`);
        process.exit(1);
      },
    );
  });
  return {
    mountPoint,
    volume,
    passthrough,
    root,
    unmounted,
    async unmount() {
      await unmountFuse(mountPoint, { lazy: true });
      await Promise.race([unmounted, delay(LEAVE_MS)]);
    },
  };
}

function connection(options: MountOptions): ConnectOptions {
  const { brokerSocket: socket, brokerUrl: url, token } = options;
  const where = socket === undefined ? { url, token } : { socket };
  return { ...where, kind: 'mount', pid: process.pid, host: hostname(), bootMs: sys.clockBoottimeMs };
}

/** A fanotify group for the root, unless changes beside the view cannot be followed or are not to be. */
function watchOf(options: MountOptions, rootFd: number, log: Logger): number | null {
  const { watch = 'auto', inPlace } = options;
  if (watch === 'off' || (watch === 'auto' && inPlace !== undefined)) return null;
  const opened = openWatch(rootFd);
  if ('group' in opened) return opened.group;
  const message = `changes made beside the view of ${options.root} cannot be followed: ${opened.why}`;
  if (watch === 'on') throw new GateError('invalid_request', message);
  log.debug(message);
  return null;
}

/** A socket that only this user and root may connect to. What a dead view left there gives way; a living one does not. */
function listen(path: string): number {
  const living = sys.connectUnix(path);
  if (living >= 0) {
    sys.close(living);
    throw new GateError('conflict', `another view serves at ${path}`);
  }
  rmSync(path, { force: true });
  const before = process.umask(0o177);
  const fd = sys.listenUnix(path);
  process.umask(before);
  if (fd < 0)
    throw new GateError('invalid_request', `no socket can be made at ${path}: ${sys.errnoName(fd)}`);
  return fd;
}

function slow(call: 'fsync' | 'fdatasync' | 'syncfs', fd: number): Promise<number> {
  if (call === 'syncfs') return sys.syncfsAsync(fd);
  return call === 'fsync' ? sys.fsyncAsync(fd) : sys.fdatasyncAsync(fd);
}

/** The view is no more permissive than the mount below it. */
function flagsOf(below: MountInfo | undefined): {
  readOnly: boolean;
  nosuid: boolean;
  nodev: boolean;
  noexec: boolean;
} {
  const has = (flag: string) => below?.options.includes(flag) ?? false;
  return { readOnly: has('ro'), nosuid: has('nosuid'), nodev: has('nodev'), noexec: has('noexec') };
}
