import type { ViewClock } from './actors.ts';
import type { Grant } from './locks.ts';

/**
 * How long a grant is kept for a thread that was sent to resolve its name again; longer, up to the second number, while it
 * is on its way: on a busy machine a second is soon over.
 */
export const COME_BACK_MS = 1000;
export const COME_BACK_MS_MAX = 30_000;

/** Sets `what.timer`: `late` is called when the thread did not come in time. */
export function awaitThread(
  clock: ViewClock,
  isOnItsWay: () => boolean,
  what: { timer: { cancel(): void } | null },
  late: () => void,
): void {
  const untilMs = clock.nowMs() + COME_BACK_MS_MAX;
  const wait = () => {
    what.timer = clock.after(COME_BACK_MS, () => (clock.nowMs() < untilMs && isOnItsWay() ? wait() : late()));
  };
  wait();
}

/** Grants of opens whose name led elsewhere by then: kept until the same thread comes again. */
export class KeptGrants {
  readonly #clock: ViewClock;
  readonly #isOnItsWay: (tid: number) => boolean;
  readonly #byThread = new Map<number, { path: string; grant: Grant; timer: { cancel(): void } }>();

  constructor(clock: ViewClock, isOnItsWay: (tid: number) => boolean) {
    this.#clock = clock;
    this.#isOnItsWay = isOnItsWay;
  }

  keep(tid: number, path: string, grant: Grant): void {
    this.drop(tid);
    const kept = { path, grant, timer: { cancel() {} } };
    this.#byThread.set(tid, kept);
    awaitThread(
      this.#clock,
      () => this.#isOnItsWay(tid),
      kept,
      () => this.drop(tid),
    );
  }

  has(tid: number): boolean {
    return this.#byThread.size > 0 && this.#byThread.has(tid);
  }

  /** The grant kept for this thread and path, if any; a grant for another path is given back. */
  take(tid: number, path: string): Grant | null {
    const kept = this.#byThread.get(tid);
    if (kept === undefined) return null;
    if (kept.path !== path) {
      this.drop(tid);
      return null;
    }
    kept.timer.cancel();
    this.#byThread.delete(tid);
    return kept.grant;
  }

  drop(tid: number): void {
    const kept = this.#byThread.get(tid);
    if (kept === undefined) return;
    kept.timer.cancel();
    this.#byThread.delete(tid);
    kept.grant.release();
  }
}
