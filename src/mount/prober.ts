/**
 * The prober: a thread of its own for looking at other processes, because such a look can block on the very process
 * that waits for us. It answers the reactor over a port and wakes it by its eventfd.
 */
import { readdirSync, statSync } from 'node:fs';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '../base/clock.ts';
import { eventfdSignal } from '../sys/index.ts';
import type { Actor } from '../view/actors.ts';
import { lookBelow } from './below.ts';
import { ProcProcessTable } from './blocked.ts';
import type { FromProber, StandstillAnswer, StandstillQuestion, ToProber } from './messages.ts';
import {
  ANCESTORS_MAX,
  argumentNamesOf,
  environmentOf,
  lineageOf,
  namesOf,
  shownInode,
  statOf,
  statusOf,
} from './proc.ts';
import { findStandstills } from './standstill.ts';

export interface ProberData {
  readonly port: MessagePort;
  readonly wakeFd: number;
  readonly agents: readonly string[];
  /** The root of a view that is mounted over it; null: it is mounted elsewhere. */
  readonly inPlace: string | null;
}

const CACHE_MAX = 4096;
/** How often it is looked whether somebody still works beneath a view in place: the first time, and at most. */
const LOOK_BELOW_MS = { first: 500, most: 30_000 };

const { port, wakeFd, agents, inPlace } = workerData as ProberData;
const agentNames = new Set(agents);
/** Agents found, by `pid:startTime` of each process looked at; null: it is none and has none above it. */
const known = new Map<string, string | null>();

/** The nearest known agent at or above `pid`, as `name@pid.startTime`; null: none. */
function agentOf(pid: number): string | null {
  if (agentNames.size === 0) return null;
  const walked: string[] = [];
  let found: string | null = null;
  for (let at = pid, steps = 0; at > 1 && steps < ANCESTORS_MAX; steps++) {
    const stat = statOf(at);
    if (stat === null) break;
    // A process may exec into an agent: its stack tells it from what it was before.
    const key = `${at}:${stat.startTime}:${stat.startStack}`;
    const cached = known.get(key);
    if (cached !== undefined) {
      found = cached;
      break;
    }
    walked.push(key);
    const name = namesOf(at, stat.comm).find((n) => agentNames.has(n));
    if (name !== undefined) {
      found = `${name}@${at}.${stat.startTime}`;
      break;
    }
    at = stat.ppid;
  }
  for (const key of walked) known.set(key, found);
  if (known.size > CACHE_MAX) known.clear();
  return found;
}

function resolve(tid: number, uid: number): Actor {
  const status = statusOf(tid);
  if (status === null) return { owner: `${uid}/gone@${tid}`, pid: 0, who: { uid } };
  const stat = statOf(status.pid);
  const who = { pid: status.pid, uid: status.uid, command: stat?.comm ?? '?' };
  const given = environmentOf(status.pid, 'GATE_ACTOR');
  const named = given !== null && given !== '';
  const agent = named ? null : agentOf(status.pid);
  const self = `${status.pid}.${stat?.startTime ?? 0}`;
  const actor = {
    owner: `${status.uid}/${named ? clean(given) : (agent ?? `pid:${self}`)}`,
    pid: status.pid,
    who,
  };
  if (!named && agent === null) return actor;
  // The agent itself, or the first process that was given this name.
  const main = named ? environmentOf(stat?.ppid ?? 0, 'GATE_ACTOR') !== given : agent!.endsWith(`@${self}`);
  return { ...actor, agent: { main, names: main ? [] : argumentNamesOf(status.pid) } };
}

/** Names come from other people's environments: one line, of bounded length. */
function clean(name: string): string {
  return name.replace(/[\p{Cc}\p{Cs}]/gu, '?').slice(0, 200);
}

/** The process of `tid` and its ancestors, as far as they have inode `ino` of device `dev` open. */
function ancestorsWithOpen(tid: number, dev: number, ino: string): number[] {
  return lineageOf(tid).filter((pid) => hasOpen(pid, dev, ino));
}

function hasOpen(pid: number, dev: number, ino: string): boolean {
  let names: string[];
  try {
    names = readdirSync(`/proc/${pid}/fd`);
  } catch {
    return false;
  }
  for (const name of names) {
    try {
      // Only a descriptor with the right inode number is looked at.
      const shown = shownInode(pid, name);
      if (shown === undefined || (shown !== null && shown !== ino)) continue;
      // A stat in our own mount is answered by the reactor, which does not wait for this thread.
      const stat = statSync(`/proc/${pid}/fd/${name}`, { bigint: true });
      if (Number(stat.dev) === dev && String(stat.ino) === ino) return true;
    } catch {
      // closed meanwhile
    }
  }
  return false;
}

port.on('message', (message: ToProber) => {
  const answer: FromProber =
    message.t === 'actor'
      ? { t: 'actor', id: message.id, actor: resolve(message.tid, message.uid) }
      : { t: 'ancestors', id: message.id, pids: ancestorsWithOpen(message.tid, message.dev, message.ino) };
  port.postMessage(answer);
  eventfdSignal(wakeFd);
});

parentPort!.on('message', ({ id, waits }: StandstillQuestion) => {
  const answer: StandstillAnswer = { id, verdicts: findStandstills(waits, new ProcProcessTable()) };
  parentPort!.postMessage(answer);
});

/** Once nobody works in the tree below, nobody can get there any more: then it is said, and not looked again. */
function awaitAlone(root: string, delayMs: number): void {
  systemClock.after(delayMs, () => {
    const quick = lookBelow(root, false);
    const alone = (below: typeof quick) => below.users.length + below.open.length === 0;
    if (!alone(quick) || !alone(lookBelow(root, true)))
      return awaitAlone(root, Math.min(delayMs * 2, LOOK_BELOW_MS.most));
    port.postMessage({ t: 'alone' } satisfies FromProber);
    eventfdSignal(wakeFd);
  });
}

if (inPlace !== null) awaitAlone(inPlace, LOOK_BELOW_MS.first);
