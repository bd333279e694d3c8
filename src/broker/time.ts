/**
 * The broker's clock: milliseconds that begin as Unix time and then follow CLOCK_MONOTONIC, so that they never go back and
 * never jump, whatever is done to the wall clock: wait limits and hold caps are counted with it.
 *
 * It goes on over restarts: where it stood at the boot of the machine is stored (`originKey`). After a boot of the machine the
 * wall clock is all there is to say how long nobody ran, and it may be wrong: so while anything is held or waits, the
 * broker's time goes on from the latest stored row, as if no time had passed. Nothing ends early then.
 */
import type { Clock } from '../base/clock.ts';
import type { Boot } from '../base/process.ts';

/** Beyond this difference the wall clock was set, or the machine was suspended. */
const STEP_MS = 1000;

/** What the store knows of time. */
export interface StoredTime {
  /** Broker time at the boot of the machine, by `originKey`. */
  readonly origins: ReadonlyMap<string, number>;
  /** The latest time in any row. */
  readonly latestMs: number;
  /** Something is held or waits. */
  readonly busy: boolean;
}

const ORIGIN = 'time origin of boot ';

/** Key of the `meta` row for one boot of the machine. */
export function originKey(boot: Boot): string {
  return ORIGIN + boot.id;
}

export function isOriginKey(key: string): boolean {
  return key.startsWith(ORIGIN);
}

export class BrokerTime {
  readonly #clock: Clock;
  readonly #baseMs: number;
  /** Broker time at the boot of the machine. */
  readonly originMs: number;
  /** Wall time less broker time, kept until it is wrong by a step, so that what people see does not tremble. */
  #offsetMs = 0;

  constructor(clock: Clock, boot: Boot, { origins, latestMs, busy }: StoredTime) {
    this.#clock = clock;
    const monotonicMs = boot.monotonicMs();
    const originMs = origins.get(originKey(boot));
    const nowMs =
      originMs !== undefined
        ? Math.max(originMs + monotonicMs, latestMs)
        : busy
          ? latestMs
          : Math.max(clock.wallMs(), latestMs);
    this.originMs = Math.floor(nowMs - monotonicMs);
    this.#baseMs = nowMs - clock.nowMs();
  }

  /** Whole milliseconds: they are shorter in JSON. */
  nowMs(): number {
    return Math.floor(this.#baseMs + this.#clock.nowMs());
  }

  /** Broker time as Unix seconds, right by the wall clock of now. */
  unixSeconds(brokerMs: number): number {
    const offsetMs = this.#clock.wallMs() - this.nowMs();
    if (Math.abs(offsetMs - this.#offsetMs) > STEP_MS) this.#offsetMs = offsetMs;
    return (brokerMs + this.#offsetMs) / 1000;
  }
}
