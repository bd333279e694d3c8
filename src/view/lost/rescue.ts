/**
 * The thread for what would be lost: it copies, hashes and compares, which takes as long as files are large, and watches
 * what is kept until it is proven unchanged or has become a conflict copy. It is started when it is first needed.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { systemClock, type Timer } from '../../base/clock.ts';
import * as sys from '../../sys/index.ts';
import type { CopyJob } from '../sweeps.ts';
import type { FreshJob } from '../unclean.ts';
import { judge, WARNED_MS } from './bounds.ts';
import { LostError } from './content.ts';
import { LostFolder } from './folder.ts';
import type { FromRescue, Rescued, ToRescue } from './messages.ts';
import type { LostRecord } from './record.ts';
import type { RescueData } from './rescuer.ts';
import { WriterWalk } from './walk.ts';

const { rootFd, bounds } = workerData as RescueData;
const port = parentPort!;
const post = (message: FromRescue) => port.postMessage(message);
const folder = new LostFolder(rootFd, systemClock.wallMs);
let forget: (parentId: number, name: string) => void = () => {};

/** Between two looks at what is watched, growing while nothing happens. */
const LOOK_MS_MIN = 100;
const LOOK_MS_MAX = 30_000;
/** Files looked at in one go of a walk; then others have their turn. */
const WALK_STEP = 200;
const WALK_PAUSE_MS = 5;
/** From something kept to a count of all, and between counts. */
const COUNT_SOON_MS = 1000;
const COUNT_MS = 600_000;

let timer: Timer | undefined;
let lookMs = LOOK_MS_MIN;

function fresh(job: FreshJob): Rescued {
  const { parentFd, parentId, name, path, ino, owner, by, why } = job;
  try {
    folder.freshInode(parentFd, name, ino, { path, why, owner, by });
    // Here, not on the view's own thread: it takes the directory's lock in the kernel.
    if (parentId > 0) forget(parentId, name);
    watch();
    count();
    return { error: null };
  } catch (error) {
    if (error instanceof LostError) return { error: error.message };
    throw error;
  } finally {
    sys.close(parentFd);
  }
}

function copy({ fd, about }: CopyJob): Rescued {
  try {
    folder.keepCopy(fd, about);
    count();
    return { error: null };
  } catch (error) {
    if (error instanceof LostError) return { error: error.message };
    throw error;
  } finally {
    sys.close(fd);
  }
}

/** Something was kept. A large one has no hash yet; what was written to it since it lost its name shows in its times. */
function added(id: string): Rescued {
  if (!folder.open()) return { error: null, bytes: 0 };
  const record = folder.record(id);
  if (record?.state === 'watched') {
    if (record.hash === undefined) {
      const hash = folder.hashOf(id);
      if (!folder.isTouched(record)) folder.write({ ...record, hash });
    }
    watch();
  }
  count();
  return { error: null, bytes: countedBytes };
}

let counting: Timer | undefined;
let warnedAtMs: number | undefined;
let countedBytes = 0;

/** Counts soon, and then every hour, what is kept; warns, and removes what is over the bounds an hour after that at the earliest. */
function count(delayMs = COUNT_SOON_MS): void {
  counting?.cancel();
  counting = systemClock.after(delayMs, () => {
    try {
      bound();
    } catch (error) {
      if (!(error instanceof LostError)) throw error;
    }
    count(COUNT_MS);
  });
}

function bound(): void {
  const nowMs = systemClock.wallMs();
  const verdict = judge(folder.list(), bounds, nowMs);
  countedBytes = verdict.bytes;
  if (verdict.soon === 0 && verdict.over.length === 0) {
    if (warnedAtMs !== undefined || folder.warning() !== undefined) folder.warn(null);
    warnedAtMs = undefined;
    return;
  }
  const room = `${Math.round(verdict.bytes / 2 ** 20)} of ${Math.round(bounds.bytes / 2 ** 20)} MiB, at most ${bounds.days} days`;
  if (warnedAtMs === undefined) {
    warnedAtMs = nowMs;
    const message = `what is kept will soon be pruned, the oldest first (${room}): see gate conflicts`;
    folder.warn(message);
    post({ t: 'note', path: '', what: 'kept_full', owner: '', message });
    post({ t: 'log', level: 'warn', message });
  }
  if (nowMs - warnedAtMs < WARNED_MS || verdict.over.length === 0) return;
  for (const id of verdict.over) folder.remove(id);
  const message = `${verdict.over.length} pruned of what was kept (${room})`;
  post({ t: 'note', path: '', what: 'kept_pruned', owner: '', message });
  folder.warn(null);
  warnedAtMs = undefined;
}

function findWriters(done: (result: Rescued) => void): void {
  const walk = new WriterWalk(rootFd);
  const step = () => {
    if (walk.step(WALK_STEP)) systemClock.after(WALK_PAUSE_MS, step);
    else done(walk.failed === null ? { error: null, paths: walk.found } : { error: walk.failed });
  };
  step();
}

/** Looks soon at what is watched, because something new is. */
function watch(): void {
  lookMs = LOOK_MS_MIN;
  timer?.cancel();
  timer = systemClock.after(lookMs, look);
}

function look(): void {
  let watched = 0;
  let news = false;
  try {
    for (const { record } of folder.list()) {
      if (record.state !== 'watched') continue;
      if (lookAt(record)) news = true;
      else watched++;
    }
  } catch (error) {
    if (!(error instanceof LostError)) throw error;
    watched++;
    post({ t: 'log', level: 'warn', message: `what is kept cannot be looked at: ${error.message}` });
  }
  lookMs = news ? LOOK_MS_MIN : Math.min(lookMs * 2, LOOK_MS_MAX);
  if (watched > 0) timer = systemClock.after(lookMs, look);
}

/** True when it need not be watched any more. */
function lookAt(record: LostRecord): boolean {
  const became = folder.look(record);
  if (became === undefined) return false;
  if (became === 'changed') {
    // Two views of one tree may both watch: who finds it changed already says nothing.
    if (folder.record(record.id)?.state !== 'watched') return true;
    folder.write({ ...record, state: 'conflict', seenAtMs: systemClock.wallMs() });
    const whose = record.owner === '' ? 'somebody whose view had died' : record.owner;
    const message = `what ${whose} wrote after it lost the file is kept: gate conflicts show ${record.id}`;
    post({ t: 'note', path: record.path, what: 'conflict_copy', owner: record.owner, message });
  } else folder.remove(record.id);
  return true;
}

/** Runs this thread. `forgetName`: whoever remembers that name of a directory is to look again. */
export function serveRescues(forgetName: (parentId: number, name: string) => void): void {
  forget = forgetName;
  sys.setThreadName('gate-rescue');
  port.on('message', ({ id, job }: ToRescue) => {
    const answer = (result: Rescued) => post({ t: 'rescued', id, result });
    if (job.job === 'fresh') answer(fresh(job));
    else if (job.job === 'copy') answer(copy(job));
    else if (job.job === 'added') answer(added(job.kept));
    else findWriters(answer);
  });
  // What an earlier view left to be watched.
  if (folder.open()) {
    watch();
    count();
  }
}
