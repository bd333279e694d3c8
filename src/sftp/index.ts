/**
 * `gate sftp`: the view for sshfs, and for any SFTP client. One process, one thread, with a view and a session of its own; the
 * broker decides all its locks, so it stands in the same queues as every mount. Clients come over a Unix socket, through sshd and the
 * relay (relay.ts): who may connect is that socket's permission, and everybody who may is this process's user.
 *
 * What sshfs can bear decides what waits here: opens, asynchronously, for a moment; nothing else (opens.ts, changes.ts).
 */
import { randomBytes } from 'node:crypto';
import { closeSync, constants, openSync, rmSync } from 'node:fs';
import type { Server } from 'node:net';
import { hostname } from 'node:os';
import { systemClock } from '../base/clock.ts';
import { GateError } from '../base/errors.ts';
import { createLogger, type Logger } from '../base/log.ts';
import type { ConnectOptions } from '../client/index.ts';
import * as sys from '../sys/index.ts';
import { SessionKeeper } from '../view/keeper.ts';
import { LostFolder } from '../view/lost/folder.ts';
import type { FromRescue, Rescued, RescueJob } from '../view/lost/messages.ts';
import { Rescuer } from '../view/lost/rescuer.ts';
import { Tree } from '../view/tree.ts';
import { View } from '../view/view.ts';
import { waitsAsText } from '../view/waits.ts';
import { SftpActors } from './actors.ts';
import { SessionLocks } from './locks.ts';
import type { SftpOptions } from './options.ts';
import { listenOn, SftpServer } from './server.ts';
import { Walker } from './walk.ts';

export { PARK_MS, PARK_MS_MAX, type SftpOptions } from './options.ts';

export interface RunningSftp {
  readonly listen: string;
  readonly volume: string;
  /** Ends every connection, gives all locks back, and removes the socket. */
  close(): Promise<void>;
}

/** Descriptors that one process was seen to keep at most, whatever its limit says. */
const DESCRIPTORS_SEEN_MAX = 20_000;

/** Starts the server in this process. Throws GateError; nothing listens then. */
export async function startSftp(options: SftpOptions): Promise<RunningSftp> {
  const log = createLogger('sftp', options.logLevel);
  sys.raiseOpenFiles();
  const umask = sys.umask(0o022);
  sys.umask(umask);
  const rootFd = openSync(options.root, sys.O_PATH | constants.O_DIRECTORY);
  const below = new sys.StatBuf();
  sys.fstatx(rootFd, below);
  const registration = { root: options.root, dev: String(below.dev), ino: String(below.ino) };
  const keeper = new SessionKeeper(connection(options), registration, log);
  let socket: Server;
  try {
    await keeper.open();
    socket = await listenOn(options.listen, options.user);
  } catch (error) {
    closeSync(rootFd);
    await keeper.close();
    throw error;
  }
  if (options.user !== undefined) become(options.user);
  const { view, actors, rescuer, news } = makeView(options, keeper, rootFd, log);
  const about = { door: 'sftp', root: options.root, volume: keeper.volume, pid: process.pid };
  const server = new SftpServer(
    {
      view,
      walker: new Walker(view.tree),
      actors,
      uid: sys.geteuid(),
      gid: sys.getegid(),
      umask,
      wallMs: systemClock.wallMs,
      about: `${JSON.stringify(about)}\n`,
      who: (done) => void waitsAsText(keeper.session, keeper.volume).then(done),
      sync: (fd, done) => void sys.fsyncAsync(fd).then(done),
    },
    socket,
    log,
  );
  news.queued = (tid) => server.queued(tid);
  return {
    listen: options.listen,
    volume: keeper.volume,
    async close() {
      await server.close();
      rmSync(options.listen, { force: true });
      await rescuer.stop();
      await keeper.close();
    },
  };
}

interface Parts {
  readonly view: View;
  readonly actors: SftpActors;
  readonly rescuer: Rescuer;
  readonly news: { queued: (tid: number) => void };
}

/** From here on this process is an ordinary user's. */
function become({ name, uid, gid }: NonNullable<SftpOptions['user']>): void {
  if (uid === process.geteuid?.()) return;
  // @types/node leaves it out.
  (process as unknown as { initgroups(user: string, group: number): void }).initgroups(name, gid);
  process.setgid?.(gid);
  process.setuid?.(uid);
}

function makeView(options: SftpOptions, keeper: SessionKeeper, rootFd: number, log: Logger): Parts {
  const limit = sys.getrlimit(sys.RLIMIT_NOFILE);
  const descriptors = typeof limit === 'number' ? 1024 : Math.min(limit.soft, DESCRIPTORS_SEEN_MAX);
  const actors = new SftpActors();
  const news = { queued: (_tid: number) => {} };
  const jobs = new Map<number, (result: Rescued) => void>();
  let nextJob = 1;
  const rescuer = new Rescuer(
    new URL('rescue.ts', import.meta.url),
    { rootFd, fuseFd: -1, bounds: options.bounds },
    (message: FromRescue) => {
      if (message.t === 'log') log[message.level](message.message);
      else if (message.t === 'note')
        locks.note(message.path, message.what, message.owner, message.message, message.whose);
      else {
        jobs.get(message.id)?.(message.result);
        jobs.delete(message.id);
      }
    },
  );
  const rescue = (job: RescueJob, done: (result: Rescued) => void) => {
    jobs.set(nextJob, done);
    rescuer.start(nextJob++, job);
  };
  const locks: SessionLocks = new SessionLocks(
    keeper.session,
    keeper.volume,
    {
      queued: (tid) => news.queued(tid),
      holdLost: (lockId) => view.holdLost(lockId),
      unclean: (paths) => view.unclean.add(paths),
    },
    log,
  );
  keeper.onLost = () => {
    view.sessionLost();
    locks.lost();
  };
  keeper.onNew = (session) => locks.use(session);
  const view: View = new View({
    tree: new Tree(rootFd, Math.floor(descriptors / 2), new sys.StatBuf()),
    options: {
      waitMs: options.parkMs,
      lockIgnored: options.lockIgnored,
      scanners: [],
      nonblockWaiters: [],
      // Who is behind a connection cannot be seen: nobody here is known to have seen anything.
      staleWrites: 'off',
      keepBytes: options.bounds.bytes,
      requestPrefix: `${randomBytes(4).toString('hex')}-`,
      privileged: sys.geteuid() === 0,
      passthrough: false,
    },
    clock: systemClock,
    locks,
    actors,
    hasAuthority: () => sys.clockBoottimeMs() < keeper.session.authorityEndsMs(),
    lost: new LostFolder(rootFd, systemClock.wallMs),
    events: { note: (path, what, owner, message, whose) => locks.note(path, what, owner, message, whose) },
    rescue: {
      fresh: (job, done) => rescue({ job: 'fresh', ...job }, ({ error }) => done(error)),
      findWriters: (done) => rescue({ job: 'writers' }, ({ paths }) => done(paths ?? null)),
      copy: (job, done) => rescue({ job: 'copy', ...job }, ({ error }) => done(error)),
      added: (kept, done) => rescue({ job: 'added', kept }, ({ bytes }) => done(bytes ?? 0)),
      cleaned: (ids, still) => locks.clean(ids, still),
    },
  });
  return { view, actors, rescuer, news };
}

function connection(options: SftpOptions): ConnectOptions {
  const { brokerSocket: socket, brokerUrl: url, token } = options;
  const where =
    socket !== undefined
      ? { socket }
      : url !== undefined
        ? { url, ...(token !== undefined && { token }) }
        : null;
  if (where === null) throw new GateError('invalid_request', 'no broker is named');
  return { ...where, kind: 'sftp', pid: process.pid, host: hostname(), bootMs: sys.clockBoottimeMs };
}
