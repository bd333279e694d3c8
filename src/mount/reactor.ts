/**
 * The reactor's thread: it owns the view and the FUSE session, and blocks in the session's loop. Messages of the main
 * thread and the prober are taken when their eventfd wakes it.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { systemClock } from '../base/clock.ts';
import { encodeInvalEntry, encodeInvalInode, runReactor } from '../fuse/index.ts';
import * as sys from '../sys/index.ts';
import type { ViewClock } from '../view/actors.ts';
import { DelegatedLocks } from '../view/delegate.ts';
import { LostFolder } from '../view/lost/folder.ts';
import type { Rescued, RescueJob } from '../view/lost/messages.ts';
import { Tree } from '../view/tree.ts';
import { View } from '../view/view.ts';
import { Actors } from './actors.ts';
import { Doors } from './doors.ts';
import { Frontend, type FrontendParts } from './frontend.ts';
import type { FromProber, FromReactor, FromWatcher, ReactorData, ToReactor, ToWatcher } from './messages.ts';
import { MessageLockPort } from './port.ts';
import { AllActors } from './remote-actors.ts';
import { RemoteServer } from './remote-server.ts';
import { REMOTE_MS, validityOf } from './validity.ts';
import { VirtualFiles } from './virtual.ts';
import { WATCHED_DIRECTORIES_MAX, Watch } from './watch.ts';

const data = workerData as ReactorData;
const post = (message: FromReactor) => data.main.postMessage(message);
const broker = new MessageLockPort(post);
let authorityEndsMs = 0;
const hasAuthority = () => sys.clockBoottimeMs() < authorityEndsMs;
const waiting = new Map<number, (message: ToReactor) => void>();
let nextCall = 1;
let locks: DelegatedLocks | null = null;
let view: View | null = null;
let actors: Actors | null = null;
const validity = validityOf(data.attrValidMs, false);
let frontend: Frontend | null = null;
let watch: Watch | null = null;
let server: RemoteServer | null = null;

/** Also bounds how long a mistake of a cache on another machine can last. */
const remoteValidity = {
  get ms() {
    return Math.min(validity.ms, REMOTE_MS);
  },
  get followedMs() {
    return Math.min(validity.followedMs, REMOTE_MS);
  },
};

function call(message: FromReactor & { id: number }, done: (answer: ToReactor) => void): void {
  waiting.set(message.id, done);
  post(message);
}

function rescue(job: RescueJob, done: (result: Rescued) => void): void {
  call({ t: 'rescue', id: nextCall++, job }, (answer) => {
    if (answer.t === 'rescued') done(answer.result);
  });
}

function fromMain(message: ToReactor): void {
  switch (message.t) {
    case 'granted':
    case 'queued':
    case 'join':
    case 'refused':
      broker.answered(message);
      break;
    case 'hold_lost':
      view?.holdLost(message.lockId);
      break;
    case 'session_lost':
      locks?.end();
      view?.sessionLost();
      broker.lost();
      break;
    case 'authority':
      authorityEndsMs = message.untilMs;
      break;
    case 'delegated':
      locks?.begin(message.delegation);
      break;
    case 'recall':
      locks?.recall(message.epoch, message.region);
      break;
    case 'give':
      locks?.give(message);
      break;
    case 'unclean':
      if (message.all) view?.unclean.reset(message.paths);
      else view?.unclean.add(message.paths);
      break;
    case 'report':
      locks?.report(message.report, message.region);
      break;
    case 'waker':
      if (frontend !== null) frontend.waker = message.pid;
      post(message);
      break;
    default: {
      const done = waiting.get(message.id);
      waiting.delete(message.id);
      done?.(message);
    }
  }
}

function fromProber(message: FromProber): void {
  if (message.t !== 'alone') return actors?.answered(message);
  Object.assign(validity, validityOf(data.attrValidMs, true));
  const says = `nobody works beneath the view: names and attributes are remembered for ${validity.ms} ms`;
  post({ t: 'log', level: 'info', message: says });
}

function toWatcher(message: ToWatcher): void {
  if (data.watch === null) return;
  data.watch.port.postMessage(message, message.t === 'stop' ? [] : [message.messages.buffer]);
  sys.eventfdSignal(data.watch.wakeFd);
}

function fromWatcher(message: FromWatcher): void {
  if (message.t === 'events') watch?.events(Buffer.from(message.bytes.buffer));
  else watch?.notified();
}

/** Takes all messages that are there. */
function onWake(): void {
  takeMessages();
  if (data.watch === null) return;
  const { port } = data.watch;
  for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port))
    fromWatcher(got.message as FromWatcher);
}

/** The watcher's can wait for the eventfd: nobody waits for them. */
function takeMessages(): void {
  for (let got = receiveMessageOnPort(data.main); got !== undefined; got = receiveMessageOnPort(data.main))
    fromMain(got.message as ToReactor);
  for (
    let got = receiveMessageOnPort(data.prober);
    got !== undefined;
    got = receiveMessageOnPort(data.prober)
  )
    fromProber(got.message as FromProber);
}

sys.setThreadName('gate-reactor');
// A umask of our own: the caller's is applied by the file system below, which knows default ACLs.
sys.unshareFs();

const why = runReactor({
  fd: data.fuseFd,
  wakeFd: data.wakeFd,
  onWake,
  allowPassthrough: data.passthrough,
  maxStackDepth: data.maxStackDepth,
  log: (message) => post({ t: 'log', level: 'warn', message }),
  pollWake: takeMessages,
  onTurnEnd: () => server?.flush(),
  create(api, control) {
    const resolver = new Actors(data.prober, data.mountDev, data.owner);
    actors = resolver;
    const everybody = new AllActors(resolver);
    const clock: ViewClock = {
      nowMs: () => api.nowMs(),
      wallMs: systemClock.wallMs,
      after: (delayMs, run) => api.setTimer(delayMs, run),
    };
    const delegated = new DelegatedLocks(broker, clock, hasAuthority);
    locks = delegated;
    const made = new View({
      tree: new Tree(data.rootFd, data.descriptorsMax, new sys.StatBuf()),
      options: {
        waitMs: data.waitMs,
        lockIgnored: data.lockIgnored,
        scanners: data.scanners,
        nonblockWaiters: data.nonblockWaiters,
        staleWrites: data.staleWrites,
        keepBytes: data.keepBytes,
        requestPrefix: data.requestPrefix,
        privileged: data.privileged,
        passthrough: data.passthrough,
      },
      clock,
      locks: delegated,
      actors: everybody,
      hasAuthority,
      lost: new LostFolder(data.rootFd, systemClock.wallMs),
      events: {
        note: (path, what, owner, message, whose) => post({ t: 'note', path, what, owner, message, whose }),
      },
      rescue: {
        fresh: (job, done) => rescue({ job: 'fresh', ...job }, ({ error }) => done(error)),
        findWriters: (done) => rescue({ job: 'writers' }, ({ paths }) => done(paths ?? null)),
        copy: (job, done) => rescue({ job: 'copy', ...job }, ({ error }) => done(error)),
        added: (kept, done) => rescue({ job: 'added', kept }, ({ bytes }) => done(bytes ?? 0)),
        cleaned: (ids, still) => post({ t: 'clean', ids, still }),
      },
    });
    view = made;
    if (data.watch !== null)
      watch = new Watch({
        view: made,
        api,
        group: data.watch.group,
        directoriesMax: WATCHED_DIRECTORIES_MAX,
        notify: (messages) => {
          server?.broadcast(Buffer.from(messages.buffer));
          toWatcher({ t: 'notify', messages });
        },
        repeat: (messages) => {
          server?.broadcast(Buffer.from(messages.buffer));
          toWatcher({ t: 'repeat', messages });
        },
        wake: (paths) => post({ t: 'wake', paths }),
        log: (message) => post({ t: 'log', level: 'warn', message }),
      });
    const doors = new Doors();
    const parts: Omit<
      FrontendParts,
      'api' | 'validity' | 'remote' | 'passthrough' | 'forgetName' | 'forgetPages' | 'about'
    > = {
      view: made,
      doors,
      watch,
      virtual: new VirtualFiles(made.tree),
      wallMs: systemClock.wallMs,
      slow: (name, fd, done) =>
        call({ t: 'slow', id: nextCall++, call: name, fd }, (answer) => {
          if (answer.t === 'done') done(answer.result);
        }),
      who: (done) =>
        call({ t: 'who', id: nextCall++ }, (answer) => {
          if (answer.t === 'text') done(answer.text);
        }),
    };
    frontend = new Frontend({
      ...parts,
      api,
      validity,
      remote: null,
      passthrough: data.passthrough,
      // They take locks of the directory and of pages, which an operation may have that only this thread can answer.
      forgetName: (parent, name) => post({ t: 'tell_kernel', message: encodeInvalEntry(parent, name) }),
      forgetPages: (node) => post({ t: 'tell_kernel', message: encodeInvalInode(node, 0, 0) }),
      about: data.about,
    });
    if (data.serve !== null) {
      made.shared = true;
      server = new RemoteServer({
        ...data.serve,
        control,
        nowMs: () => api.nowMs(),
        actors: everybody,
        log: (level, message) => post({ t: 'log', level, message }),
        frontend: (door) =>
          new Frontend({
            ...parts,
            api: door.session,
            validity: remoteValidity,
            remote: door,
            passthrough: false,
            forgetName: (parent, name) => door.session.notifyInvalEntry(parent, name),
            forgetPages: (node) => door.session.notifyInvalInode(node, 0, 0),
            about: data.serve!.about,
          }),
      });
    }
    return frontend;
  },
});
toWatcher({ t: 'stop' });
let writers = 0;
for (const handle of (view as View | null)?.handles.values() ?? []) if (handle.writes) writers++;
post({ t: 'ended', why: String(why), writers });
parentPort?.close();
