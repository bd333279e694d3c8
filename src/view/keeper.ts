import { systemClock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type ConnectOptions, connect, type GateSession } from '../client/index.ts';

/** Between two tries to get a new session. */
const RETRY_MS = 500;

/** What a view registers with the broker: the root by path and by inode. */
export interface Registration {
  readonly root: string;
  /** Absent where nothing is mounted. */
  readonly mount?: string;
  readonly dev: string;
  readonly ino: string;
}

/**
 * Keeps a session with the broker. One that is lost took its locks with it: whoever uses it is told, and a new one is
 * opened as soon as the broker answers. (A broken connection or a broker's restart is not a loss: the client resumes.)
 */
export class SessionKeeper {
  readonly #options: ConnectOptions;
  readonly #registration: Registration;
  readonly #log: Logger;
  #session!: GateSession;
  #closed = false;
  volume = '';
  onLost: () => void = () => {};
  onNew: (session: GateSession) => void = () => {};

  constructor(options: ConnectOptions, registration: Registration, log: Logger) {
    this.#options = options;
    this.#registration = registration;
    this.#log = log;
  }

  get session(): GateSession {
    return this.#session;
  }

  async open(): Promise<void> {
    const session = await connect(this.#options);
    this.volume = (await session.registerVolume(this.#registration)).id;
    this.#session = session;
    session.onLost = (why) => {
      if (this.#closed) return;
      this.#log.error(`the session with the broker was lost: ${why}`);
      this.onLost();
      void this.#reopen();
    };
  }

  /** `unclean`: files were still open for writing, so the session counts as lost. */
  async close(unclean = false): Promise<void> {
    this.#closed = true;
    await this.#session?.close(unclean).catch(() => {});
  }

  async #reopen(): Promise<void> {
    while (!this.#closed) {
      try {
        await this.open();
        this.#log.info('there is a new session with the broker');
        return this.onNew(this.#session);
      } catch (error) {
        this.#log.debug(`no broker yet: ${(error as Error).message}`);
        await (this.#options.clock ?? systemClock).delay(RETRY_MS);
      }
    }
  }
}
