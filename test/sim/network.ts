/**
 * The simulated network: connections with two ordered streams each. Frames are late; a connection breaks with some of what
 * was under way; a partition holds everything up until it ends, and nobody is told.
 */
import { GateError } from '../../src/base/errors.ts';
import type { Socket } from '../../src/broker/ws.ts';
import type { Dial, Link, LinkEvents } from '../../src/client/link.ts';
import type { Kernel, Process } from './kernel.ts';

const HANDSHAKE_MS = 5000;

/** What listens. */
export interface Listener {
  readonly process: Process;
  /** A connection; returns nothing while the broker is not ready for it. */
  accept(socket: Socket): boolean;
}

type Handlers = {
  message: ((data: string) => void)[];
  error: ((error: Error) => void)[];
  close: (() => void)[];
};

/** One way of a connection. */
class Stream {
  readonly #wire: Wire;
  readonly #to: () => Process;
  readonly #deliver: (text: string) => void;
  #lastMs = 0;

  constructor(wire: Wire, to: () => Process, deliver: (text: string) => void) {
    this.#wire = wire;
    this.#to = to;
    this.#deliver = deliver;
  }

  send(text: string): void {
    const { kernel, network, client } = this.#wire;
    this.#lastMs = Math.max(this.#lastMs, kernel.nowMs + network.delayMs());
    const arrive = () => {
      if (this.#wire.broken) return;
      const heldUpMs = network.heldUpUntilMs(client);
      if (heldUpMs > kernel.nowMs) {
        this.#lastMs = Math.max(this.#lastMs, heldUpMs);
        kernel.at(heldUpMs, arrive);
        return;
      }
      this.#to().do(() => {
        if (!this.#wire.broken) this.#deliver(text);
      });
    };
    kernel.at(this.#lastMs, arrive);
  }

  /** After what was sent before it. */
  finish(run: () => void): void {
    const { kernel, network, client } = this.#wire;
    this.#lastMs = Math.max(this.#lastMs, kernel.nowMs + network.delayMs(), network.heldUpUntilMs(client));
    kernel.at(this.#lastMs, run);
  }
}

export class Wire {
  readonly network: Network;
  readonly kernel: Kernel;
  readonly client: Process;
  readonly server: Process;
  readonly toServer: Stream;
  readonly toClient: Stream;
  readonly #handlers: Handlers = { message: [], error: [], close: [] };
  readonly #events: LinkEvents;
  broken = false;

  constructor(network: Network, client: Process, server: Process, events: LinkEvents, observer: Observer) {
    this.network = network;
    this.kernel = network.kernel;
    this.client = client;
    this.server = server;
    this.#events = events;
    this.toServer = new Stream(
      this,
      () => server,
      (text) => {
        for (const run of this.#handlers.message) run(text);
      },
    );
    this.toClient = new Stream(
      this,
      () => client,
      (text) => {
        const frame = JSON.parse(text);
        const messages = Array.isArray(frame) ? frame : [frame];
        observer.received?.(messages);
        events.onMessages(messages);
      },
    );
  }

  readonly socket: Socket = ((self) => ({
    bufferedAmount: 0,
    send: (text: string) => self().toClient.send(text),
    close: (_code?: number, why?: string) => self().toClient.finish(() => self().break(why)),
    terminate: () => self().break('cut'),
    on(event: 'message' | 'error' | 'close', listener: never) {
      (self().#handlers[event] as unknown[]).push(listener);
    },
  }))(() => this) as Socket;

  /** It is gone, with all that is under way. Each side hears of it in its own time. */
  break(why = 'broken', byClient = false): void {
    if (this.broken) return;
    this.broken = true;
    this.network.wires.delete(this);
    const heldUpMs = Math.max(0, this.network.heldUpUntilMs(this.client) - this.kernel.nowMs);
    this.kernel.after((byClient ? 0 : heldUpMs) + this.network.delayMs(), () =>
      this.client.do(() => this.#events.onClose(new GateError('unavailable', `The connection is ${why}.`))),
    );
    this.kernel.after(heldUpMs + this.network.delayMs(), () =>
      this.server.do(() => {
        for (const run of this.#handlers.close) run();
      }),
    );
  }
}

/** Sees what a client says and hears, to know by itself until when the client may act. */
export interface Observer {
  sent?(messages: readonly { op: string; id: number }[]): void;
  received?(messages: readonly { id?: number; ok?: unknown; push?: string }[]): void;
}

export class Network {
  readonly kernel: Kernel;
  readonly wires = new Set<Wire>();
  listener: Listener | null = null;
  /** Frames are late by up to so much, mostly by much less. */
  lateMs = 30;
  readonly #heldUp = new Map<Process, number>();

  constructor(kernel: Kernel) {
    this.kernel = kernel;
  }

  delayMs(): number {
    return 0.05 + this.kernel.chance.delayMs(1, this.lateMs);
  }

  heldUpUntilMs(client: Process): number {
    return this.#heldUp.get(client) ?? 0;
  }

  /** Nothing passes between this client and the broker for so long; nobody is told. */
  partition(client: Process, forMs: number): void {
    this.#heldUp.set(client, Math.max(this.heldUpUntilMs(client), this.kernel.nowMs + forMs));
  }

  heal(): void {
    this.#heldUp.clear();
  }

  breakSome(): void {
    for (const wire of [...this.wires]) if (this.kernel.chance.oneIn(2)) wire.break();
  }

  /** Connections of a process that is gone. */
  processDied(process: Process): void {
    for (const wire of [...this.wires]) if (wire.client === process || wire.server === process) wire.break();
  }

  /** How a client connects. */
  dialer(client: Process, observer: Observer): Dial {
    return (_where, events) => {
      const { kernel } = this;
      let wire: Wire | null = null;
      let given = false;
      const fail = (why: string) =>
        client.do(() => {
          if (given) return;
          given = true;
          events.onClose(new GateError('unavailable', why));
        });
      const reach = () => {
        const { listener } = this;
        if (given) return;
        if (listener === null || !listener.process.alive) return fail('Nobody listens.');
        const made = new Wire(this, client, listener.process, events, observer);
        listener.process.do(() => {
          if (given) return;
          if (!listener.accept(made.socket)) return fail('Nobody listens.');
          given = true;
          wire = made;
          this.wires.add(made);
          if (!client.alive) return made.break();
          made.toClient.finish(() =>
            client.do(() => {
              if (!made.broken) events.onOpen();
            }),
          );
        });
      };
      const heldUpMs = Math.max(0, this.heldUpUntilMs(client) - kernel.nowMs);
      if (heldUpMs < HANDSHAKE_MS) kernel.after(heldUpMs + this.delayMs(), reach);
      kernel.after(HANDSHAKE_MS, () => fail('No answer.'));
      const link: Link = {
        send: (messages) => {
          if (wire === null || wire.broken) return;
          observer.sent?.(messages as readonly { op: string; id: number }[]);
          wire.toServer.send(JSON.stringify(messages.length === 1 ? messages[0] : messages));
        },
        cut: () => (wire === null ? fail('cut') : wire.break('cut', true)),
        close: () =>
          wire === null ? fail('closed') : wire.toServer.finish(() => wire!.break('closed', true)),
      };
      return link;
    };
  }
}
