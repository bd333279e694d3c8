/**
 * QEMU's Machine Protocol over its Unix socket: a line of JSON each way; events come between the replies. Source: QEMU's
 * docs/interop/qmp-spec.
 */
import { createConnection, type Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { VmError } from './errors.ts';

export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** Longest line that is taken from QEMU. */
const LINE_BYTES_MAX = 1024 * 1024;
const COMMAND_MS = 10_000;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class Qmp {
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #event: (event: QmpEvent) => void;
  readonly #waiting = new Map<number, Waiting>();
  readonly #greeting = Promise.withResolvers<void>();
  /** Resolves when the connection has ended. */
  readonly closed: Promise<void>;
  #text = '';
  #next = 1;

  private constructor(socket: Socket, clock: Clock, event: (event: QmpEvent) => void) {
    this.#socket = socket;
    this.#clock = clock;
    this.#event = event;
    this.#greeting.promise.catch(() => {});
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.#read(chunk));
    socket.on('error', () => {});
    socket.once('close', () => this.#fail(new VmError('QEMU closed its control socket')));
  }

  /** Connects, and leaves the negotiation behind. Throws a VmError when nobody answers there. */
  static async connect(
    path: string,
    clock: Clock,
    event: (event: QmpEvent) => void = () => {},
  ): Promise<Qmp> {
    const socket = createConnection(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (error) =>
        reject(new VmError(`QEMU's control socket does not answer: ${error.message}`)),
      );
    });
    const qmp = new Qmp(socket, clock, event);
    try {
      await qmp.#inTime(qmp.#greeting.promise, 'its greeting');
      await qmp.execute('qmp_capabilities');
    } catch (error) {
      qmp.close();
      throw error;
    }
    return qmp;
  }

  /** Runs a command; gives what it returns. Throws a VmError with QEMU's words. */
  execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    const id = this.#next++;
    const reply = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    if (this.#socket.destroyed) this.#fail(new VmError('QEMU closed its control socket'));
    else this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    return this.#inTime(reply, command);
  }

  close(): void {
    this.#socket.destroy();
  }

  async #inTime<T>(promise: Promise<T>, what: string): Promise<T> {
    const late = Promise.withResolvers<never>();
    const timer = this.#clock.after(COMMAND_MS, () =>
      late.reject(new VmError(`QEMU did not answer in ${COMMAND_MS / 1000} s: ${what}`)),
    );
    try {
      return await Promise.race([promise, late.promise]);
    } finally {
      timer.cancel();
    }
  }

  #read(chunk: string): void {
    this.#text += chunk;
    for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
      const line = this.#text.slice(0, end).trim();
      this.#text = this.#text.slice(end + 1);
      if (line) this.#line(line);
    }
    if (this.#text.length > LINE_BYTES_MAX) this.#socket.destroy();
  }

  #line(line: string): void {
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(line) as Record<string, unknown>;
    } catch {
      this.#fail(new VmError(`QEMU's control socket said something else than JSON: ${line.slice(0, 100)}`));
      this.#socket.destroy();
      return;
    }
    if ('QMP' in message) this.#greeting.resolve();
    else if (typeof message.event === 'string') this.#event(message as unknown as QmpEvent);
    else {
      const waiting = this.#waiting.get(message.id as number);
      if (!waiting) return;
      this.#waiting.delete(message.id as number);
      const error = message.error as { desc?: string } | undefined;
      if (error) waiting.reject(new VmError(`QEMU: ${error.desc ?? JSON.stringify(error)}`));
      else waiting.resolve(message.return);
    }
  }

  #fail(error: Error): void {
    this.#greeting.reject(error);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
