/**
 * The broker's clock: milliseconds that begin as Unix time and then follow CLOCK_MONOTONIC, so that they never go
 * back while the broker runs. After a restart they go on from what the stored rows say, should the wall clock
 * have been set back meanwhile.
 */
import type { Clock } from '../base/clock.ts';

/** Beyond this difference the wall clock was set, or the machine was suspended. */
const STEP_MS = 1000;

export class BrokerTime {
  readonly #clock: Clock;
  readonly #baseMs: number;
  /** Wall time less broker time, kept until it is wrong by a step, so that what people see does not tremble. */
  #offsetMs = 0;

  constructor(clock: Clock, notBeforeMs: number) {
    this.#clock = clock;
    this.#baseMs = Math.max(clock.wallMs(), notBeforeMs) - clock.nowMs();
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
