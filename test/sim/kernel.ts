/**
 * The simulation's time: one queue of events for everything that happens anywhere, and processes whose clocks and turns of
 * the event loop come out of it. All chance comes from one seed, so a seed is a run.
 */
import type { Clock, Timer } from '../../src/base/clock.ts';

/** Numbers below 1 from a seed (mulberry32). */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let x = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.next() * n < 1;
  }

  /** A whole number from 0 to `n` - 1. */
  below(n: number): number {
    return Math.floor(this.next() * n);
  }

  between(low: number, high: number): number {
    return low + this.next() * (high - low);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** A delay that is mostly short and now and then long. */
  delayMs(shortMs: number, longMs: number): number {
    return this.oneIn(12) ? this.next() * longMs : this.next() * shortMs;
  }
}

interface Event {
  readonly atMs: number;
  readonly seq: number;
  run: (() => void) | null;
}

export class Kernel {
  readonly chance: Chance;
  nowMs = 0;
  /** Events so far. */
  steps = 0;
  readonly #heap: Event[] = [];
  #seq = 0;

  constructor(seed: number) {
    this.chance = new Chance(seed);
  }

  at(atMs: number, run: () => void): Timer {
    if (Number.isNaN(atMs)) throw new Error('an event at no time');
    const event: Event = { atMs: Math.max(atMs, this.nowMs), seq: this.#seq++, run };
    this.#push(event);
    return {
      cancel: () => {
        event.run = null;
      },
    };
  }

  after(delayMs: number, run: () => void): Timer {
    return this.at(this.nowMs + delayMs, run);
  }

  /** Runs events until `done`, or until it is `untilMs`. After each one everything that was promised is kept. */
  async run(untilMs: number, done: () => boolean = () => false): Promise<void> {
    while (!done()) {
      const event = this.#heap[0];
      if (event === undefined || event.atMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs);
        return;
      }
      this.#pop();
      if (event.run === null) continue;
      this.nowMs = event.atMs;
      this.steps++;
      event.run();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const up = (at - 1) >> 1;
      if (!before(event, heap[up]!)) break;
      heap[at] = heap[up]!;
      at = up;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= heap.length) break;
      if (down + 1 < heap.length && before(heap[down + 1]!, heap[down]!)) down++;
      if (!before(heap[down]!, last)) break;
      heap[at] = heap[down]!;
      at = down;
    }
    heap[at] = last;
  }
}

function before(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.seq < b.seq);
}

/** How fast a process's clocks may differ from true time: quartz is a hundred times better. */
const DRIFT = 0.003;

/** How fast a machine's clocks go. */
export function drift(kernel: Kernel): number {
  return 1 + kernel.chance.between(-DRIFT, DRIFT);
}

/**
 * A process with clocks of its own. It may be killed: nothing of it runs any more. It may be stopped (SIGSTOP) or suspended
 * with its machine: what is due for it meanwhile runs when it goes on; in suspend CLOCK_MONOTONIC stands still.
 */
export class Process {
  readonly kernel: Kernel;
  alive = true;
  readonly #rate: number;
  readonly #startMs: number;
  #sleptMs = 0;
  #stoppedAtMs: number | null = null;
  #suspended = false;
  #wallOffsetMs: number;
  #backlog: (() => void)[] = [];
  readonly clock: Clock;

  constructor(kernel: Kernel, wallOffsetMs = 0, rate = drift(kernel)) {
    this.kernel = kernel;
    this.#rate = rate;
    this.#startMs = kernel.nowMs;
    this.#wallOffsetMs = 1_800_000_000_000 + wallOffsetMs;
    this.clock = {
      wallMs: () => kernel.nowMs + this.#wallOffsetMs,
      nowMs: () => this.#monotonicMs(),
      after: (delayMs, run) => this.#after(this.#monotonicMs() + Math.max(0, delayMs), run),
      soon: (run) => {
        kernel.after(0, () => this.do(run));
      },
      delay: (delayMs) =>
        new Promise((resolve) => this.#after(this.#monotonicMs() + Math.max(0, delayMs), resolve)),
    };
  }

  /** CLOCK_BOOTTIME. */
  bootMs(): number {
    return 1e6 + this.kernel.nowMs * this.#rate;
  }

  /** When, in true time, this process's CLOCK_BOOTTIME shows `bootMs`. */
  trueMsOf(bootMs: number): number {
    return (bootMs - 1e6) / this.#rate;
  }

  /** For how long it was suspended. */
  get suspendedMs(): number {
    return this.#sleptMs + (this.#suspended ? this.kernel.nowMs - this.#stoppedAtMs! : 0);
  }

  #monotonicMs(): number {
    const untilMs = this.#suspended ? this.#stoppedAtMs! : this.kernel.nowMs;
    return 1000 + (untilMs - this.#startMs - this.#sleptMs) * this.#rate;
  }

  #after(dueMs: number, run: () => void): Timer {
    let timer: Timer;
    const arm = () => {
      timer = this.kernel.after(Math.max(0, dueMs - this.#monotonicMs()) / this.#rate, fire);
    };
    const fire = () =>
      this.do(() => {
        // Suspend made it late.
        if (this.#monotonicMs() < dueMs - 1e-6) arm();
        else if (!cancelled) run();
      });
    let cancelled = false;
    arm();
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  /** Runs something of this process: now, when it goes on, or never. */
  do(run: () => void): void {
    if (!this.alive) return;
    if (this.#stoppedAtMs !== null) this.#backlog.push(run);
    else run();
  }

  get stopped(): boolean {
    return this.#stoppedAtMs !== null;
  }

  stop(suspend: boolean): void {
    if (this.#stoppedAtMs !== null) return;
    this.#stoppedAtMs = this.kernel.nowMs;
    this.#suspended = suspend;
  }

  goOn(): void {
    if (this.#stoppedAtMs === null) return;
    if (this.#suspended) this.#sleptMs += this.kernel.nowMs - this.#stoppedAtMs;
    this.#stoppedAtMs = null;
    this.#suspended = false;
    const backlog = this.#backlog;
    this.#backlog = [];
    for (const run of backlog) this.kernel.after(0, () => this.do(run));
  }

  setWall(offsetMs: number): void {
    this.#wallOffsetMs += offsetMs;
  }

  kill(): void {
    this.alive = false;
    this.#backlog = [];
  }
}
