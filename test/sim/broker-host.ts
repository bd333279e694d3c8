/** The broker on its simulated machine: the real one without its doors, which dies and is started again. */
import { GateError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import type { Boot } from '../../src/base/process.ts';
import { type Assembled, assemble } from '../../src/broker/assemble.ts';
import { settle } from '../../src/broker/settings.ts';
import { Connection, type Socket } from '../../src/broker/ws.ts';
import type { Disk, SimStore } from './disk.ts';
import { drift, type Kernel, Process } from './kernel.ts';
import type { Network } from './network.ts';

export interface BrokerTimes {
  readonly sessionTtlMs: number;
  readonly delegationQuietMs: number;
}

export class BrokerHost {
  readonly kernel: Kernel;
  readonly network: Network;
  readonly disk: Disk;
  readonly #times: BrokerTimes;
  process: Process;
  #store: SimStore | null = null;
  #parts: Assembled | null = null;
  /** Ready to serve. */
  parts: Assembled | null = null;
  starts = 0;
  /** Its machine: how fast its clocks go, how often it was booted, and what CLOCK_MONOTONIC shows of that. */
  readonly #rate: number;
  #boots = 0;
  #bootedAtMs = -1e5;
  #suspendedMs = 0;
  /** Connections of HTTP clients, which break when it dies. */
  readonly httpConnections = new Set<{ cut(): void }>();
  onFailure: (error: Error) => void = () => {};

  constructor(kernel: Kernel, network: Network, disk: Disk, times: BrokerTimes) {
    this.kernel = kernel;
    this.network = network;
    this.disk = disk;
    this.#times = times;
    this.#rate = drift(kernel);
    this.process = new Process(kernel);
    this.process.kill();
  }

  /** Starts it, unless it runs. */
  start(): void {
    if (this.process.alive) return;
    const { kernel } = this;
    this.starts++;
    const process = new Process(
      kernel,
      kernel.chance.oneIn(4) ? kernel.chance.between(-1e7, 1e7) : 0,
      this.#rate,
    );
    this.process = process;
    const store = this.disk.open();
    this.#store = store;
    const settings = settle({
      stateDir: '/nowhere',
      clock: process.clock,
      boot: this.#boot(),
      log: silentLog,
      // Requests that want a cap name one.
      maxHoldWriteMs: null,
      maxHoldReadMs: null,
      // So that they run out.
      limits: { counterBlock: 200, delegateTokens: 500, admitMs: 50 },
      ...this.#times,
    });
    const ready = (parts: Assembled) => {
      if (!process.alive) return;
      this.#parts = parts;
      this.parts = parts;
      parts.state.onFatal = () => this.#fatal(process);
      parts.state.event({ type: 'broker_started' });
      parts.state.schedule();
      this.network.listener = {
        process,
        accept: (socket: Socket) => {
          if (this.parts !== parts) return false;
          new Connection(parts, socket);
          return true;
        },
      };
    };
    assemble(settings, store).then(
      (parts) => process.do(() => ready(parts)),
      (error) => {
        if (!process.alive) return;
        if (!(error instanceof GateError)) this.onFailure(error as Error);
        this.#fatal(process);
      },
    );
  }

  #boot(): Boot {
    const { kernel } = this;
    const sinceMs = this.#bootedAtMs + this.#suspendedMs;
    return { id: `boot ${this.#boots}`, monotonicMs: () => (kernel.nowMs - sinceMs) * this.#rate };
  }

  /** Its machine lost power, with the broker on it. */
  losePower(): void {
    this.crash();
    this.disk.losePower();
    this.#boots++;
    this.#bootedAtMs = this.kernel.nowMs;
    this.#suspendedMs = 0;
  }

  /** The disk refused: it ends, and is started again. */
  #fatal(process: Process): void {
    if (this.process !== process || !process.alive) return;
    this.crash();
    this.kernel.after(this.kernel.chance.between(5, 300), () => this.start());
  }

  /** kill -9, at any instant. */
  crash(): void {
    if (!this.process.alive) return;
    this.#suspendedMs += this.process.suspendedMs;
    this.process.kill();
    this.#store?.die();
    this.parts = null;
    this.network.listener = null;
    this.network.processDied(this.process);
    for (const connection of [...this.httpConnections]) connection.cut();
    // Its timers are dead with its process; this only lets go of them.
    this.#parts?.stop();
    this.#parts = null;
  }
}
