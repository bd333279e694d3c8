import type { ViewClock } from './actors.ts';
import type { Grant } from './locks.ts';

/** How long a grant is kept for a thread that was sent to resolve its name again. */
const KEPT_MS = 1000;

/** Grants of opens whose name led elsewhere by then: kept until the same thread comes again. */
export class KeptGrants {
  readonly #clock: ViewClock;
  readonly #byThread = new Map<number, { path: string; grant: Grant; timer: { cancel(): void } }>();

  constructor(clock: ViewClock) {
    this.#clock = clock;
  }

  keep(tid: number, path: string, grant: Grant): void {
    this.drop(tid);
    const timer = this.#clock.after(KEPT_MS, () => this.drop(tid));
    this.#byThread.set(tid, { path, grant, timer });
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
