/** The main thread's end of the rescues: starts the thread that does them when the first one is asked for. */
import { Worker } from 'node:worker_threads';
import { systemClock } from '../../base/clock.ts';
import type { Bounds } from './bounds.ts';
import { LostFolder } from './folder.ts';
import type { FromRescue, RescueJob, ToRescue } from './messages.ts';

export interface RescueData {
  /** Of the directory below. */
  readonly rootFd: number;
  /** The mount's FUSE device, to make the kernel forget names; -1: nobody remembers any. */
  readonly fuseFd: number;
  readonly bounds: Bounds;
}

export class Rescuer {
  readonly #thread: URL;
  readonly #data: RescueData;
  readonly #onMessage: (message: FromRescue) => void;
  #worker: Worker | null = null;
  /** Jobs without an answer. */
  readonly #open = new Set<number>();

  /** `thread`: the module that the thread runs, which calls `serveRescues`. */
  constructor(thread: URL, data: RescueData, onMessage: (message: FromRescue) => void) {
    this.#thread = thread;
    this.#data = data;
    this.#onMessage = onMessage;
  }

  /** Goes on watching what an earlier view kept, if there is anything. */
  resume(): void {
    const folder = new LostFolder(this.#data.rootFd, systemClock.wallMs);
    if (folder.open()) this.#worker ??= this.#spawn();
    folder.close();
  }

  start(id: number, job: RescueJob): void {
    this.#open.add(id);
    this.#worker ??= this.#spawn();
    this.#worker.postMessage({ id, job } satisfies ToRescue);
  }

  async stop(): Promise<void> {
    await this.#worker?.terminate();
  }

  #spawn(): Worker {
    const worker = new Worker(this.#thread, { workerData: this.#data });
    worker.on('message', (message: FromRescue) => {
      if (message.t === 'rescued') this.#open.delete(message.id);
      this.#onMessage(message);
    });
    worker.on('error', (error: Error) => {
      // Who waits for a rescue tries again, with a new thread.
      this.#worker = null;
      this.#onMessage({ t: 'log', level: 'error', message: `a rescue failed: ${error.stack ?? error}` });
      const open = [...this.#open];
      this.#open.clear();
      for (const id of open) this.#onMessage({ t: 'rescued', id, result: { error: error.message } });
    });
    worker.unref();
    return worker;
  }
}
