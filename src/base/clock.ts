/**
 * Time comes in from outside: nothing but this folder and the CLI's entry calls `Date.now` or `setTimeout`.
 * A simulation passes a clock of its own.
 */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since the epoch: for people and records, never for durations. */
  wallMs(): number;
  /** Milliseconds of a clock that never jumps: CLOCK_MONOTONIC. */
  nowMs(): number;
  /** Calls `run` once, after at least `delayMs`. Does not keep the process alive. */
  after(delayMs: number, run: () => void): Timer;
  /** Calls `run` once, after what came in with this turn of the event loop. */
  soon(run: () => void): void;
  /** Resolves after `delayMs` and keeps the process alive meanwhile. */
  delay(delayMs: number): Promise<void>;
}

const TIMEOUT_MS_MAX = 0x7fffffff;

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  nowMs: () => performance.now(),
  after(delayMs, run) {
    const handle = setTimeout(run, Math.min(Math.max(0, delayMs), TIMEOUT_MS_MAX));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
  soon(run) {
    setImmediate(run);
  },
  delay,
};

/** Resolves after `delayMs` and keeps the process alive meanwhile. */
export function delay(delayMs: number): Promise<void> {
  return new Promise((done) => setTimeout(done, delayMs));
}

/** Asks `probe` again and again until it gives something other than undefined or false, or time is up. */
export async function until<T>(
  probe: () => T | Promise<T>,
  limitMs: number,
  everyMs = 20,
): Promise<Exclude<T, undefined | false | null> | undefined> {
  const end = performance.now() + limitMs;
  for (;;) {
    const got = await probe();
    if (got) return got as Exclude<T, undefined | false | null>;
    if (performance.now() >= end) return undefined;
    await delay(everyMs);
  }
}
