/** Timers of a thread that has no event loop: a binary heap, asked by the reactor how long it may sleep. */
import type { ReactorTimer } from './types.ts';

class Entry implements ReactorTimer {
  readonly dueMs: number;
  readonly order: number;
  run: (() => void) | null;
  /** Position in the heap; -1 when out of it. */
  at = -1;
  readonly #queue: TimerQueue;

  constructor(queue: TimerQueue, dueMs: number, order: number, run: () => void) {
    this.#queue = queue;
    this.dueMs = dueMs;
    this.order = order;
    this.run = run;
  }

  cancel(): void {
    this.run = null;
    this.#queue.remove(this);
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
}

/** Adding and cancelling cost O(log n); timers due at the same time run in the order they were set. */
export class TimerQueue {
  readonly #heap: Entry[] = [];
  readonly #nowMs: () => number;
  #order = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get size(): number {
    return this.#heap.length;
  }

  set(delayMs: number, run: () => void): ReactorTimer {
    const entry = new Entry(this, this.#nowMs() + Math.max(0, delayMs), this.#order++, run);
    entry.at = this.#heap.length;
    this.#heap.push(entry);
    this.#up(entry);
    return entry;
  }

  remove(entry: Entry): void {
    const at = entry.at;
    if (at < 0) return;
    entry.at = -1;
    const last = this.#heap.pop()!;
    if (last === entry) return;
    last.at = at;
    this.#heap[at] = last;
    this.#up(last);
    this.#down(last);
  }

  /** Milliseconds until the next is due: 0 when one is due, -1 (as poll(2) has it) when there is none. */
  sleepMs(): number {
    const next = this.#heap[0];
    return next === undefined ? -1 : Math.max(0, Math.ceil(next.dueMs - this.#nowMs()));
  }

  /** Runs what is due, but not what those set themselves. Returns how many; a throwing one goes to `failed`. */
  runDue(failed: (error: unknown) => void): number {
    if (this.#heap.length === 0) return 0;
    const now = this.#nowMs();
    const newest = this.#order;
    let count = 0;
    for (
      let next = this.#heap[0];
      next !== undefined && next.dueMs <= now && next.order < newest;
      next = this.#heap[0]
    ) {
      this.remove(next);
      count++;
      try {
        next.run?.();
      } catch (error) {
        failed(error);
      }
    }
    return count;
  }

  #up(entry: Entry): void {
    const heap = this.#heap;
    while (entry.at > 0) {
      const above = heap[(entry.at - 1) >> 1]!;
      if (!before(entry, above)) return;
      this.#swap(entry, above);
    }
  }

  #down(entry: Entry): void {
    const heap = this.#heap;
    for (;;) {
      const left = heap[entry.at * 2 + 1];
      if (left === undefined) return;
      const right = heap[entry.at * 2 + 2];
      const least = right !== undefined && before(right, left) ? right : left;
      if (!before(least, entry)) return;
      this.#swap(least, entry);
    }
  }

  /** `child` rises to the place of `parent`. */
  #swap(child: Entry, parent: Entry): void {
    const at = child.at;
    this.#heap[parent.at] = child;
    this.#heap[at] = parent;
    child.at = parent.at;
    parent.at = at;
  }
}
