/**
 * Waits that can never end because the holder of a lock waits for the very process that waits for the lock: `git fetch`
 * wants the trace file that its `git upload-pack` has open, which reads from a pipe that only `git fetch` writes to. The
 * broker sees locks only. So here the waits for locks are put together with those for processes, and the circles found.
 *
 * A lock is waited for until *all* in its way are gone: one that is stuck is enough. A process is woken by *any* of those at
 * the other end of its pipe, any child that it waits for: all must be stuck, and each of its threads. What cannot be told
 * counts as able to go on. A circle is believed when two looks in a row find it.
 */
import type { ProcessTable } from './blocked.ts';

/** Somebody who stands in the way of a lock. */
export interface InTheWay {
  readonly owner: string;
  readonly holds: boolean;
  /** Thread group that holds it or waits for it; 0: not known. */
  readonly pid: number;
  readonly path: string;
}

export interface LockWait {
  readonly requestId: string;
  readonly owner: string;
  readonly ticket: number;
  readonly path: string;
  /** The thread that waits, and its process; 0: it is not in this view, and cannot be told what to do. */
  readonly tid: number;
  readonly pid: number;
  readonly blockers: readonly InTheWay[];
}

/** What is to become of a wait that would never end. */
export interface Verdict {
  readonly requestId: string;
  /** Whose lock it joins, because that holder can do nothing before it; null: it is refused (EDEADLK). */
  readonly join: string | null;
}

type Kind = 'wait' | 'process' | 'thread' | 'free';

interface Point {
  readonly kind: Kind;
  readonly wait: LockWait | null;
  /** `any`: stuck when one of `to` is; `all`: when each of them is. */
  readonly rule: 'any' | 'all';
  readonly to: Point[];
  stuck: boolean;
}

/** Builds the graph from the waits outwards, as far as it leads, then finds what can go on. */
class Graph {
  readonly waits = new Map<LockWait, Point>();
  /** The owner that a process is, for a wait behind it. */
  readonly holders = new Map<Point, Map<Point, string>>();
  readonly #processes = new Map<number, Point>();
  readonly #all: Point[] = [];
  readonly #table: ProcessTable;
  readonly #byThread = new Map<number, LockWait>();
  readonly #byProcess = new Map<number, LockWait[]>();
  readonly #byOwner = new Map<string, LockWait>();
  readonly #free: Point = { kind: 'free', wait: null, rule: 'any', to: [], stuck: false };

  constructor(waits: readonly LockWait[], table: ProcessTable) {
    this.#table = table;
    for (const wait of waits) {
      this.#byOwner.set(`${wait.owner}\n${wait.path}`, wait);
      if (wait.tid === 0) continue;
      this.#byThread.set(wait.tid, wait);
      this.#byProcess.set(wait.pid, [...(this.#byProcess.get(wait.pid) ?? []), wait]);
    }
    for (const wait of waits) if (wait.tid !== 0) this.#wait(wait);
    this.#settle();
  }

  #point(kind: Kind, rule: 'any' | 'all', wait: LockWait | null = null): Point {
    const point: Point = { kind, wait, rule, to: [], stuck: true };
    this.#all.push(point);
    return point;
  }

  #wait(wait: LockWait): Point {
    const known = this.waits.get(wait);
    if (known !== undefined) return known;
    const point = this.#point('wait', 'any', wait);
    this.waits.set(wait, point);
    const holders = new Map<Point, string>();
    this.holders.set(point, holders);
    for (const blocker of wait.blockers) {
      const before = blocker.holds ? undefined : this.#byOwner.get(`${blocker.owner}\n${blocker.path}`);
      if (before !== undefined) point.to.push(this.#wait(before));
      else if (blocker.holds && blocker.pid > 0 && this.#table.hasOpen(blocker.pid, blocker.path)) {
        const process = this.#process(blocker.pid);
        point.to.push(process);
        holders.set(process, blocker.owner);
      }
    }
    return point;
  }

  #process(pid: number): Point {
    const known = this.#processes.get(pid);
    if (known !== undefined) return known;
    const point = this.#point('process', 'all');
    this.#processes.set(pid, point);
    const threads = this.#table.threads(pid);
    if (threads.length === 0) point.to.push(this.#free);
    for (const tid of threads) {
      const thread = this.#thread(pid, tid);
      if (thread !== null) point.to.push(thread);
      if (thread === this.#free) break;
    }
    // All its threads wait for each other: that is not our affair.
    if (point.to.length === 0) point.to.push(this.#free);
    return point;
  }

  /** What a thread waits for; null: another thread of its process. */
  #thread(pid: number, tid: number): Point | null {
    const wait = this.#byThread.get(tid);
    if (wait !== undefined) return this.#wait(wait);
    const blocked = this.#table.blocked(pid, tid);
    if (blocked === null || blocked.on === 'events') return this.#free;
    if (blocked.on === 'threads') return null;
    const point = this.#point('thread', 'all');
    if (blocked.on === 'socket') point.to.push(this.#server(pid, blocked.fd));
    else for (const other of blocked.pids) point.to.push(this.#process(other));
    return point;
  }

  /**
   * The process at the other end of a socket, if one of its threads waits for a lock. A server's other threads wait for
   * events; that they could go on says nothing about this client.
   */
  #server(client: number, fd: number): Point {
    for (const [pid, waits] of this.#byProcess) {
      if (pid === client || !this.#table.serves(pid, client, fd)) continue;
      const others = this.#table.threads(pid).filter((tid) => !waits.some((wait) => wait.tid === tid));
      const idle = others.every((tid) => {
        const on = this.#table.blocked(pid, tid)?.on;
        return on === 'events' || on === 'threads';
      });
      if (!idle) return this.#free;
      const point = this.#point('thread', 'all');
      for (const wait of waits) point.to.push(this.#wait(wait));
      return point;
    }
    return this.#free;
  }

  /** Takes away what can go on, until nothing changes. */
  #settle(): void {
    for (let changed = true; changed; ) {
      changed = false;
      for (const point of this.#all) {
        if (!point.stuck) continue;
        const stays =
          point.rule === 'any' ? point.to.some((next) => next.stuck) : point.to.every((next) => next.stuck);
        if (stays) continue;
        point.stuck = false;
        changed = true;
      }
    }
  }
}

interface Circle {
  /** The waits on it, the one where it starts first. */
  readonly waits: readonly LockWait[];
  /** What the first of them waits for. */
  readonly next: Point;
}

/** The shortest way from a wait back to itself; null: it is only behind a circle, or in none. */
function circleOf(start: Point): Circle | null {
  const cameFrom = new Map<Point, Point>();
  const queue = [start];
  for (const point of queue)
    for (const next of point.to) {
      if (!next.stuck) continue;
      if (next === start) return walkBack(start, point, cameFrom);
      if (cameFrom.has(next)) continue;
      cameFrom.set(next, point);
      queue.push(next);
    }
  return null;
}

function walkBack(start: Point, last: Point, cameFrom: Map<Point, Point>): Circle {
  const waits = [start.wait!];
  let next = start;
  for (let at = last; at !== start; at = cameFrom.get(at)!) {
    if (at.wait !== null) waits.push(at.wait);
    next = at;
  }
  return { waits, next };
}

/**
 * Finds the waits that would never end. Where the holder waits for the waiter alone, the waiter joins its lock; of a circle of
 * several waits the newest is refused.
 */
export function findStandstills(waits: readonly LockWait[], table: ProcessTable): Verdict[] {
  const graph = new Graph(waits, table);
  const verdicts = new Map<string, Verdict>();
  for (const [wait, point] of graph.waits) {
    if (!point.stuck || wait.tid === 0) continue;
    const circle = circleOf(point);
    if (circle === null) continue;
    const { requestId } = circle.waits
      .filter((one) => one.tid !== 0)
      .reduce((newest, one) => (one.ticket > newest.ticket ? one : newest));
    if (verdicts.has(requestId)) continue;
    const join = circle.waits.length > 1 ? null : (graph.holders.get(point)?.get(circle.next) ?? null);
    verdicts.set(requestId, { requestId, join });
  }
  return [...verdicts.values()];
}
