/**
 * Looks, while requests of this view wait, whether one of them waits for ever (standstill.ts). The first look comes soon, the
 * next ones at growing intervals: a wait may become one that never ends at any time.
 */
import type { Clock, Timer } from '../base/clock.ts';
import type { WaitInfo } from '../broker/wire.ts';
import type { GateSession } from '../client/index.ts';
import type { LockRequest } from '../view/locks.ts';
import type { LockWait, Verdict } from './standstill.ts';

const FIRST_MS = 250;
const LAST_MS = 16_000;

interface Waiting {
  readonly tid: number;
  readonly pid: number;
  /** When it was queued; null: it is not, as far as we know. */
  sinceMs: number | null;
}

export interface LookoutParts {
  readonly clock: Pick<Clock, 'nowMs' | 'after'>;
  readonly session: () => GateSession;
  readonly volume: string;
  /** Looks at the processes, on a thread that may block. */
  readonly look: (waits: readonly LockWait[]) => Promise<readonly Verdict[]>;
  readonly use: (verdict: Verdict) => void;
}

export class Lookout {
  readonly #parts: LookoutParts;
  readonly #waiting = new Map<string, Waiting>();
  #queued = 0;
  #everyMs = FIRST_MS;
  #timer: Timer | null = null;
  #looking = false;
  /** What the last look found: believed when the next one finds it, too. */
  #suspected = new Map<string, Verdict>();

  constructor(parts: LookoutParts) {
    this.#parts = parts;
  }

  asked({ requestId, tid, who }: LockRequest): void {
    if (tid !== 0) this.#waiting.set(requestId, { tid, pid: who.pid ?? 0, sinceMs: null });
  }

  queued(requestId: string): void {
    const waiting = this.#waiting.get(requestId);
    if (waiting === undefined || waiting.sinceMs !== null) return;
    waiting.sinceMs = this.#parts.clock.nowMs();
    this.#queued++;
    // A look that is near stays: where somebody is queued all the time there would never be one.
    if (this.#timer !== null && this.#everyMs === FIRST_MS) return;
    this.#everyMs = FIRST_MS;
    if (!this.#looking) this.#later();
  }

  ended(requestId: string): void {
    if ((this.#waiting.get(requestId)?.sinceMs ?? null) !== null) this.#queued--;
    this.#waiting.delete(requestId);
    if (this.#queued > 0) return;
    this.#timer?.cancel();
    this.#timer = null;
  }

  #later(): void {
    this.#timer?.cancel();
    this.#timer = this.#parts.clock.after(this.#everyMs, () => {
      this.#timer = null;
      this.#looking = true;
      void this.#look()
        .catch(() => []) // the broker is away
        .then((found) => {
          this.#looking = false;
          this.#found(found);
          if (this.#queued > 0) this.#later();
        });
    });
  }

  #found(found: readonly Verdict[]): void {
    const before = this.#suspected;
    this.#suspected = new Map(found.map((verdict) => [verdict.requestId, verdict]));
    for (const verdict of found) {
      if (before.get(verdict.requestId)?.join !== verdict.join) continue;
      this.#suspected.delete(verdict.requestId);
      if (this.#waiting.has(verdict.requestId)) this.#parts.use(verdict);
    }
    this.#everyMs = found.length > 0 ? FIRST_MS : Math.min(this.#everyMs * 2, LAST_MS);
  }

  async #look(): Promise<readonly Verdict[]> {
    // Most waits are short, and not worth a look.
    const untilMs = this.#parts.clock.nowMs() - FIRST_MS / 2;
    if (![...this.#waiting.values()].some(({ sinceMs }) => sinceMs !== null && sinceMs <= untilMs)) return [];
    const waits = await this.#parts.session().waits();
    const relevant = waits.filter((wait) => wait.volume === this.#parts.volume);
    return this.#parts.look(relevant.map((wait) => this.#described(wait)));
  }

  #described(wait: WaitInfo): LockWait {
    const ours = wait.session === this.#parts.session().id ? this.#waiting.get(wait.requestId) : undefined;
    const { requestId, owner, ticket } = wait;
    return {
      requestId,
      owner,
      ticket,
      path: wait.targets[0]!.path,
      tid: ours?.tid ?? 0,
      pid: ours?.pid ?? 0,
      // What belongs to nobody who can be reached waits for no process.
      blockers: wait.blockers
        .filter(({ away }) => away !== true)
        .map(({ owner, state, who, path }) => ({
          owner,
          holds: state === 'holds',
          pid: who?.host === undefined ? (who?.pid ?? 0) : 0,
          path,
        })),
    };
  }
}
