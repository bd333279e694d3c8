/** Starts the reactor and the prober, and carries the main thread's messages to and from the reactor. */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MessageChannel, Worker } from 'node:worker_threads';
import { GateError } from '../base/errors.ts';
import { version } from '../base/version.ts';
import { mountAt } from '../fuse/index.ts';
import * as sys from '../sys/index.ts';
import { DEFAULT_BOUNDS } from '../view/lost/bounds.ts';
import type {
  FromReactor,
  ReactorData,
  ServeData,
  StandstillAnswer,
  ToReactor,
  WatchData,
} from './messages.ts';
import { KNOWN_AGENTS, type MountOptions, NONBLOCK_WAITERS } from './options.ts';
import type { LockWait, Verdict } from './standstill.ts';
import type { WatcherData } from './watcher.ts';

/** Descriptors that one process was seen to keep at most, whatever its limit says. */
const DESCRIPTORS_SEEN_MAX = 20_000;

export interface Started {
  readonly fuseFd: number;
  readonly rootFd: number;
  readonly privileged: boolean;
  readonly passthrough: boolean;
  readonly volume: string;
  /** A fanotify group; null: changes beside the view are not followed. */
  readonly watchGroup: number | null;
  /** The socket for remote clients, or -1. */
  readonly listenFd: number;
}

export interface Threads {
  /** Device number of the mount. */
  readonly mountDev: number;
  send(message: ToReactor): void;
  /** Has the prober look which of these waits would never end. */
  look(waits: readonly LockWait[]): Promise<readonly Verdict[]>;
  /** `failed`: the reactor's thread died. */
  onMessage(use: (message: FromReactor) => void, failed: (error: Error) => void): void;
  stop(): Promise<void>;
}

export function startThreads(options: MountOptions, started: Started): Threads {
  const mount = mountAt(options.mountPoint);
  if (mount === undefined) throw new GateError('internal', `${options.mountPoint} was unmounted at once`);
  const wakeFd = sys.eventfd(0, sys.EFD_NONBLOCK | sys.EFD_CLOEXEC);
  const main = new MessageChannel();
  const prober = new MessageChannel();
  const limit = sys.getrlimit(sys.RLIMIT_NOFILE);
  const descriptors = typeof limit === 'number' ? 1024 : Math.min(limit.soft, DESCRIPTORS_SEEN_MAX);
  const about = {
    root: options.root,
    mount: options.mountPoint,
    volume: started.volume,
    socket: options.brokerSocket,
    url: options.brokerUrl,
    pid: process.pid,
    rootFd: started.rootFd,
  };
  const mountDev = sys.makeDev(mount.dev.major, mount.dev.minor);
  const watching =
    started.watchGroup === null ? null : startWatcher(started.fuseFd, started.watchGroup, wakeFd);
  const data: ReactorData = {
    fuseFd: started.fuseFd,
    rootFd: started.rootFd,
    wakeFd,
    privileged: started.privileged,
    passthrough: started.passthrough,
    maxStackDepth: 1,
    descriptorsMax: Math.floor(descriptors / 2),
    mountDev,
    attrValidMs: options.attrValidMs,
    watch: watching?.data ?? null,
    waitMs: options.acquireTimeoutMs,
    lockIgnored: options.lockIgnored,
    scanners: options.scanners,
    nonblockWaiters: NONBLOCK_WAITERS,
    staleWrites: options.staleWrites ?? 'auto',
    keepBytes: (options.bounds ?? DEFAULT_BOUNDS).bytes,
    requestPrefix: `${randomBytes(4).toString('hex')}-`,
    about: JSON.stringify(about),
    owner: options.owner,
    serve: started.listenFd < 0 ? null : serveData(options, started),
    main: main.port2,
    prober: prober.port1,
  };
  const agents = options.agents ?? KNOWN_AGENTS;
  const probing = new Worker(file('prober.ts'), {
    workerData: { port: prober.port2, wakeFd, agents, inPlace: options.inPlace ? options.root : null },
    transferList: [prober.port2],
  });
  const reactor = new Worker(file('reactor.ts'), {
    workerData: data,
    transferList: [main.port2, prober.port1, ...(watching === null ? [] : [watching.data.port])],
  });
  const looks = new Map<number, (verdicts: readonly Verdict[]) => void>();
  let nextLook = 1;
  probing.on('message', ({ id, verdicts }: StandstillAnswer) => {
    looks.get(id)?.(verdicts);
    looks.delete(id);
  });
  return {
    mountDev,
    look(waits) {
      const id = nextLook++;
      probing.postMessage({ id, waits });
      return new Promise((done) => looks.set(id, done));
    },
    send(message) {
      main.port1.postMessage(message);
      sys.eventfdSignal(wakeFd);
    },
    onMessage(use, failed) {
      main.port1.on('message', use);
      reactor.on('error', failed);
      probing.on('error', failed);
      watching?.thread.on('error', failed);
    },
    async stop() {
      await Promise.all([probing.terminate(), reactor.terminate(), watching?.thread.terminate()]);
      main.port1.close();
    },
  };
}

function startWatcher(fuseFd: number, group: number, wakeFd: number): { thread: Worker; data: WatchData } {
  const ownFd = sys.eventfd(0, sys.EFD_NONBLOCK | sys.EFD_CLOEXEC);
  const channel = new MessageChannel();
  const workerData: WatcherData = { fuseFd, group, ownFd, wakeFd, port: channel.port2 };
  const thread = new Worker(file('watcher.ts'), { workerData, transferList: [channel.port2] });
  return { thread, data: { group, port: channel.port1, wakeFd: ownFd } };
}

function serveData(options: MountOptions, { listenFd, rootFd, volume }: Started): ServeData {
  const stat = new sys.StatBuf();
  sys.fstatx(rootFd, stat);
  const about = JSON.stringify({ volume, host: hostname(), root: options.root, remote: true });
  const { uid, gid } = stat;
  return {
    listenFd,
    about,
    volume,
    version: version(),
    name: basename(options.root),
    owner: { uid, gid },
    ttlMs: options.serve!.ttlMs,
  };
}

function file(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}
