/**
 * A program with curl: a lease for each lock, no session. It believes in its lock until a little before the lease that it asked
 * for, counted from when it sent the request or the heartbeat.
 */
import type { FastifyReply } from 'fastify';
import { GateError } from '../../src/base/errors.ts';
import type { Assembled } from '../../src/broker/assemble.ts';
import type { BrokerHost } from './broker-host.ts';
import type { Kernel, Process } from './kernel.ts';

export interface HttpAnswer {
  /** null: the connection broke, or nobody answered. */
  readonly status: number | null;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of any shape
  readonly json: any;
}

class HttpConnection {
  readonly #host: BrokerHost;
  readonly #closes: (() => void)[] = [];
  readonly raw = {
    destroyed: false,
    writableFinished: false,
    on: (_event: string, run: () => void) => {
      this.#closes.push(run);
    },
  };
  statusCode = 200;
  onCut: () => void = () => {};

  constructor(host: BrokerHost) {
    this.#host = host;
    host.httpConnections.add(this);
  }

  code(status: number): this {
    this.statusCode = status;
    return this;
  }

  /** It is over: orderly, or broken. */
  cut(): void {
    if (!this.#host.httpConnections.delete(this)) return;
    this.raw.destroyed = true;
    this.onCut();
    const { process } = this.#host;
    this.#host.kernel.after(this.#host.network.delayMs(), () =>
      process.do(() => {
        for (const run of this.#closes) run();
      }),
    );
  }
}

export class HttpClient {
  readonly #kernel: Kernel;
  readonly #host: BrokerHost;
  readonly process: Process;

  constructor(host: BrokerHost, process: Process) {
    this.#host = host;
    this.#kernel = host.kernel;
    this.process = process;
  }

  /** One request, one answer. `abort` breaks the connection. */
  request(
    what: 'acquire' | 'release' | 'heartbeat',
    // biome-ignore lint/suspicious/noExplicitAny: the body as a client would write it
    body: any,
  ): { answer: Promise<HttpAnswer>; abort: () => void } {
    const kernel = this.#kernel;
    const host = this.#host;
    let connection: HttpConnection | null = null;
    let finish: (answer: HttpAnswer) => void = () => {};
    let finished = false;
    const answer = new Promise<HttpAnswer>((resolve) => {
      finish = (got) => {
        if (finished) return;
        finished = true;
        this.process.do(() => resolve(got));
      };
    });
    const lost = () => kernel.after(host.network.delayMs(), () => finish({ status: null, json: null }));
    const heldUpMs = () => Math.max(0, host.network.heldUpUntilMs(this.process) - kernel.nowMs);
    const arrive = () => {
      const { parts } = host;
      if (parts === null || finished) return lost();
      const made = new HttpConnection(host);
      connection = made;
      made.onCut = lost;
      host.process.do(() => {
        if (made.raw.destroyed) return;
        this.#handle(parts, what, body, made).then(
          (json) => this.#reply(made, made.statusCode, json, finish),
          (error) => {
            if (!(error instanceof GateError)) host.onFailure(error as Error);
            else this.#reply(made, error.status, { error: error.code }, finish);
          },
        );
      });
      return undefined;
    };
    kernel.after(heldUpMs() + host.network.delayMs(), arrive);
    return {
      answer,
      abort: () => {
        if (connection === null) lost();
        else connection.cut();
      },
    };
  }

  // biome-ignore lint/suspicious/noExplicitAny: as above
  async #handle({ locks }: Assembled, what: string, body: any, connection: HttpConnection): Promise<unknown> {
    if (what === 'acquire') return locks.acquire(body, connection as unknown as FastifyReply, {});
    if (what === 'release') return locks.release(body.lock_id, body.owner);
    return locks.heartbeat(body.lock_id, body.owner, body.lease_ms);
  }

  #reply(
    connection: HttpConnection,
    status: number,
    json: unknown,
    finish: (answer: HttpAnswer) => void,
  ): void {
    if (connection.raw.destroyed) return;
    // Handed to the kernel: the broker cannot know more.
    connection.raw.writableFinished = true;
    const text = JSON.stringify(json);
    const heldUpMs = Math.max(0, this.#host.network.heldUpUntilMs(this.process) - this.#kernel.nowMs);
    this.#kernel.after(heldUpMs + this.#host.network.delayMs(), () => {
      finish({ status, json: JSON.parse(text) });
      connection.cut();
    });
  }
}
