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
import { randomBytes } from 'node:crypto';
import { constants, openSync } from 'node:fs';
import { hostname } from 'node:os';
import { fileURLToPath } from 'node:url';
import { MessageChannel, Worker } from 'node:worker_threads';
import { systemClock } from '../base/clock.ts';
import { GateError } from '../base/errors.ts';
import { createLogger, type Logger } from '../base/log.ts';
import { type ConnectOptions, connect, type GateSession } from '../client/index.ts';
import { mountFuse, parseMounts, unmountFuse } from '../fuse/index.ts';
import * as sys from '../sys/index.ts';
import { Announcer } from './announce.ts';
import type { FromReactor, ReactorData, ToReactor } from './messages.ts';
import { KNOWN_AGENTS, type MountOptions } from './options.ts';
import { Relay } from './relay.ts';
import { waitsAsText } from './waits.ts';

export { KNOWN_AGENTS, type MountOptions } from './options.ts';

export interface RunningMount {
  readonly mountPoint: string;
  readonly volume: string;
  readonly passthrough: boolean;
  /** Resolves when the kernel has let go of the mount, whoever unmounted it. */
  readonly unmounted: Promise<void>;
  unmount(): Promise<void>;
}

/** How long a lost session is tried again before the next try. */
const SESSION_RETRY_MS = 500;

/** Mounts a view. Throws GateError; nothing stays mounted then. */
export async function startMount(options: MountOptions): Promise<RunningMount> {
  const log = createLogger('mount', options.logLevel);
  // The read-lease probe may be broken by another open: the signal of that must not end us (fcntl(2), F_SETLEASE).
  process.on('SIGIO', () => {});
  sys.raiseOpenFiles();
  const rootFd = openSync(options.root, sys.O_PATH | constants.O_DIRECTORY);
  const rootStat = new sys.StatBuf();
  sys.fstatx(rootFd, rootStat);
  let session = await connect(connection(options));
  const registration = {
    root: options.root,
    mount: options.mountPoint,
    dev: String(rootStat.dev),
    ino: String(rootStat.ino),
  };
  const volume = (await session.registerVolume(registration)).id;
  const mounted = await mountFuse({
    mountPoint: options.mountPoint,
    fsName: options.root,
    subtype: 'gate',
    allowOther: true,
    defaultPermissions: true,
    ...flagsOfMount(rootStat.mntId),
  });
  const passthrough = mounted.privileged && options.passthrough !== 'off';
  const threads = startThreads(options, {
    fuseFd: mounted.fd,
    rootFd,
    privileged: mounted.privileged,
    passthrough,
    volume,
  });
  const announcer = new Announcer(systemClock, () => session, volume, options.mountPoint);
  const relay = new Relay(session, volume, threads.send, announcer, log);
  let over = false;

  const watch = (current: GateSession) => {
    current.onLost = (why) => {
      if (over) return;
      log.error(`the session with the broker was lost: ${why}`);
      relay.lost();
      void renew();
    };
  };
  const renew = async () => {
    while (!over) {
      try {
        const next = await connect(connection(options));
        await next.registerVolume(registration);
        session = next;
        watch(next);
        relay.use(next);
        log.info('a new session with the broker');
        return;
      } catch (error) {
        log.debug(`no broker yet: ${(error as Error).message}`);
        await new Promise<void>((done) => systemClock.after(SESSION_RETRY_MS, done));
      }
    }
  };
  watch(session);

  const unmounted = new Promise<void>((done) => {
    threads.onMessage(async (message) => {
      if (message.t === 'ended') {
        over = true;
        await threads.stop();
        await session.close().catch(() => {});
        done();
      } else if (message.t === 'slow')
        threads.send({ t: 'done', id: message.id, result: await slow(message.call, message.fd) });
      else if (message.t === 'who')
        threads.send({ t: 'text', id: message.id, text: await waitsAsText(session, volume) });
      else if (message.t === 'log') log[message.level](message.message, { ...message.fields });
      else relay.handle(message);
    });
  });
  return {
    mountPoint: options.mountPoint,
    volume,
    passthrough,
    unmounted,
    async unmount() {
      await unmountFuse(options.mountPoint, { lazy: true });
      await unmounted;
    },
  };
}

function connection(options: MountOptions): ConnectOptions {
  const where =
    options.brokerSocket === undefined
      ? { url: options.brokerUrl, token: options.token }
      : { socket: options.brokerSocket };
  return { ...where, kind: 'mount', pid: process.pid, host: hostname(), bootMs: sys.clockBoottimeMs };
}

function slow(call: 'fsync' | 'fdatasync' | 'syncfs', fd: number): Promise<number> {
  if (call === 'syncfs') return sys.syncfsAsync(fd);
  return call === 'fsync' ? sys.fsyncAsync(fd) : sys.fdatasyncAsync(fd);
}

/** The view is no more permissive than the mount below it. */
function flagsOfMount(mountId: number): {
  readOnly: boolean;
  nosuid: boolean;
  nodev: boolean;
  noexec: boolean;
} {
  const below = parseMounts().find((m) => m.mountId === mountId);
  const has = (flag: string) => below?.options.includes(flag) ?? false;
  return { readOnly: has('ro'), nosuid: has('nosuid'), nodev: has('nodev'), noexec: has('noexec') };
}

interface Started {
  readonly fuseFd: number;
  readonly rootFd: number;
  readonly privileged: boolean;
  readonly passthrough: boolean;
  readonly volume: string;
}

interface Threads {
  send(message: ToReactor): void;
  onMessage(use: (message: FromReactor) => void): void;
  stop(): Promise<void>;
}

function startThreads(options: MountOptions, started: Started): Threads {
  const wakeFd = sys.eventfd(0, sys.EFD_NONBLOCK | sys.EFD_CLOEXEC);
  const main = new MessageChannel();
  const prober = new MessageChannel();
  const mount = parseMounts().findLast((m) => m.mountPoint === options.mountPoint);
  if (mount === undefined) throw new GateError('internal', `${options.mountPoint} is not mounted`);
  const [major, minor] = mount.dev.split(':').map(Number);
  const limit = sys.getrlimit(sys.RLIMIT_NOFILE);
  const data: ReactorData & { main: unknown; prober: unknown; owner: string | undefined } = {
    fuseFd: started.fuseFd,
    rootFd: started.rootFd,
    wakeFd,
    privileged: started.privileged,
    passthrough: started.passthrough,
    maxStackDepth: 1,
    descriptorsMax: Math.floor((typeof limit === 'number' ? 1024 : Math.min(limit.soft, 20_000)) / 2),
    mountDev: sys.makeDev(major!, minor!),
    entryValidMs: options.attrValidMs,
    attrValidMs: options.attrValidMs,
    waitMs: options.acquireTimeoutMs,
    lockIgnored: options.lockIgnored,
    scanners: options.scanners,
    requestPrefix: `${randomBytes(4).toString('hex')}-`,
    about: JSON.stringify({
      root: options.root,
      mount: options.mountPoint,
      volume: started.volume,
      socket: options.brokerSocket,
      url: options.brokerUrl,
      pid: process.pid,
    }),
    owner: options.owner,
    main: main.port2,
    prober: prober.port1,
  };
  const agents = options.agents ?? KNOWN_AGENTS;
  const probing = new Worker(file('prober.ts'), {
    workerData: { port: prober.port2, wakeFd, agents },
    transferList: [prober.port2],
  });
  const reactor = new Worker(file('reactor.ts'), {
    workerData: data,
    transferList: [main.port2, prober.port1],
  });
  return {
    send(message) {
      main.port1.postMessage(message);
      sys.eventfdSignal(wakeFd);
    },
    onMessage(use) {
      main.port1.on('message', use);
      // A reactor that dies must not leave a mount that hangs: the kernel answers ENOTCONN once its device is closed.
      reactor.on('error', (error) => {
        process.stderr.write(`gate mount: the reactor failed: ${error.stack ?? error}\n`);
        process.exit(1);
      });
    },
    async stop() {
      await Promise.all([probing.terminate(), reactor.terminate()]);
      main.port1.close();
    },
  };
}

function file(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

export type { Logger };
