/** Figures for Prometheus. Hot paths count in plain numbers; prom-client asks for them when it is scraped. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Effect, EndReason, Mode, ReleaseReason } from '../lock/types.ts';

const SECONDS = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120, 600,
];

/** What is asked for at the moment of a scrape. */
export interface Gauges {
  readonly sessions: () => number;
  readonly waiters: () => number;
  readonly events: () => number;
  readonly subscribers: () => number;
}

export class Metrics {
  readonly registry = new Registry();
  holds = 0;
  readonly #granted = new Map<Mode, number>();
  readonly #refused = new Map<EndReason, number>();
  readonly #released = new Map<ReleaseReason, number>();
  readonly #waitSeconds: Histogram;
  readonly #commitSeconds: Histogram;

  constructor(gauges: Gauges) {
    const { registry } = this;
    const registers = [registry];
    this.#waitSeconds = new Histogram({
      name: 'gate_wait_seconds',
      help: 'How long requests waited that did not get through at once, until they were granted.',
      buckets: SECONDS,
      registers,
    });
    this.#commitSeconds = new Histogram({
      name: 'gate_commit_seconds',
      help: 'Time of one commit of the store: all changes of one turn.',
      buckets: SECONDS,
      registers,
    });
    this.#counter('gate_grants_total', 'Locks granted, by mode of the first target.', 'mode', this.#granted);
    this.#counter(
      'gate_refusals_total',
      'Requests that ended without a lock, by reason.',
      'reason',
      this.#refused,
    );
    this.#counter(
      'gate_releases_total',
      'Locks that ended or were given back once, by reason.',
      'reason',
      this.#released,
    );
    this.#gauge('gate_holds', 'Locks held.', () => this.holds);
    this.#gauge('gate_waiters', 'Requests that wait.', gauges.waiters);
    this.#gauge('gate_sessions', 'Sessions that live.', gauges.sessions);
    this.#gauge('gate_subscribers', 'Readers of the stream of events.', gauges.subscribers);
    this.#gauge('gate_events_missed', 'Events that slow subscribers missed, in total.', gauges.events);
  }

  granted(effect: Extract<Effect, { type: 'granted' }>, waitedMs: number | undefined): void {
    if (effect.hold.count === 1 && !effect.again) this.holds++;
    const mode = effect.hold.targets[0]?.mode ?? 'write';
    this.#granted.set(mode, (this.#granted.get(mode) ?? 0) + 1);
    if (waitedMs !== undefined) this.#waitSeconds.observe(waitedMs / 1000);
  }

  refused(reason: EndReason): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
  }

  released(effect: Extract<Effect, { type: 'released' }>): void {
    if (effect.gone) this.holds--;
    this.#released.set(effect.reason, (this.#released.get(effect.reason) ?? 0) + 1);
  }

  committed(tookMs: number): void {
    this.#commitSeconds.observe(tookMs / 1000);
  }

  #counter(name: string, help: string, label: string, values: ReadonlyMap<string, number>): void {
    new Counter({
      name,
      help,
      labelNames: [label],
      registers: [this.registry],
      collect() {
        this.reset();
        for (const [value, count] of values) this.inc({ [label]: value }, count);
      },
    });
  }

  #gauge(name: string, help: string, value: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.registry],
      collect() {
        this.set(value());
      },
    });
  }
}
