/**
 * One connection of the session protocol. What it answers in a turn goes out as one frame after the turn's commit.
 *
 * Limits: a frame that is too large closes the connection (1009); a first message that does not come, too; a client that
 * does not read is closed once its outbox is full (`CLOSE.tooSlow`), and misses events long before.
 */
import { GateError } from '../base/errors.ts';
import { version } from '../base/version.ts';
import { carryOut, LATER, type OpParts } from './ops.ts';
import type { Outlet, Session } from './sessions.ts';
import type { Validator } from './validate.ts';
import {
  type BrokerMessage,
  CLOSE,
  type ClientMessage,
  PROTOCOL,
  type Push,
  type Welcome,
  type WireError,
} from './wire.ts';

export interface ConnectionParts extends OpParts {
  readonly validator: Validator;
  readonly brokerId: string;
  readonly startedMs: number;
}

/** What a connection needs of its WebSocket. */
export interface Socket {
  readonly bufferedAmount: number;
  send(text: string): void;
  close(code?: number, why?: string): void;
  /** Cuts it at once. */
  terminate(): void;
  on(event: 'message', listener: (data: { toString(): string }) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'close', listener: () => void): unknown;
}

/** How long a connection may take to say hello. */
const HELLO_MS = 10_000;

export function wireError(error: GateError): WireError {
  return error.details === undefined
    ? { code: error.code, message: error.message }
    : { code: error.code, message: error.message, details: error.details };
}

export class Connection implements Outlet {
  readonly #parts: ConnectionParts;
  readonly #socket: Socket;
  #session: Session | undefined;
  /** What was said in this turn: it waits for this turn's commit, and for no earlier one that is still under way. */
  #outbox: BrokerMessage[] = [];
  #turn = -1;
  /** Turns whose commit has something to send. */
  #unsent = 0;
  #unsubscribe: (() => void) | undefined;
  #closing: { code: number; why: string } | undefined;

  constructor(parts: ConnectionParts, socket: Socket) {
    this.#parts = parts;
    this.#socket = socket;
    const hello = parts.state.parts.settings.clock.after(HELLO_MS, () => {
      if (!this.#session) socket.close(CLOSE.badMessage, 'no hello came');
    });
    socket.on('message', (data) => this.#receive(data));
    // An error is always followed by close.
    socket.on('error', (error) =>
      parts.state.parts.settings.log.debug('a connection broke', { error: String(error) }),
    );
    socket.on('close', () => {
      hello.cancel();
      this.#unsubscribe?.();
      if (this.#session) parts.sessions.detach(this.#session, this);
    });
  }

  answer(id: number, ok: unknown): void {
    this.#say({ id, ok: ok ?? null });
  }

  fail(id: number, error: GateError): void {
    this.#say({ id, error: wireError(error) });
  }

  push(push: Push): void {
    this.#say(push);
  }

  close(code: number, why: string): void {
    this.#closing ??= { code, why };
    // Takes it from whoever has it, so that no late frame of it is obeyed.
    this.#session = undefined;
    if (this.#unsent === 0) this.#socket.close(code, why);
  }

  #say(message: BrokerMessage): void {
    const { state } = this.#parts;
    if (this.#turn !== state.turn) {
      this.#turn = state.turn;
      const messages: BrokerMessage[] = [];
      this.#outbox = messages;
      this.#unsent++;
      state.afterCommit(() => this.#flush(messages));
    }
    this.#outbox.push(message);
  }

  #flush(messages: readonly BrokerMessage[]): void {
    this.#unsent--;
    this.#send(messages);
    if (this.#closing && this.#unsent === 0) this.#socket.close(this.#closing.code, this.#closing.why);
  }

  #send(messages: readonly BrokerMessage[]): void {
    const { limits } = this.#parts.state.parts.settings;
    this.#socket.send(JSON.stringify(messages.length === 1 ? messages[0] : messages));
    if (this.#socket.bufferedAmount <= limits.outboxBytes) return;
    this.#parts.state.parts.settings.log.warn('a client does not read its answers and is disconnected', {
      session: this.#session?.id,
      bytes: this.#socket.bufferedAmount,
    });
    // A closing handshake would queue behind what it does not read.
    this.#socket.terminate();
  }

  #receive(data: { toString(): string }): void {
    if (this.#closing) return;
    let frame: unknown;
    try {
      frame = JSON.parse(data.toString());
    } catch {
      this.push({ push: 'session_lost', message: 'The frame is not JSON.' });
      this.#socket.close(CLOSE.badMessage, 'the frame is not JSON');
      return;
    }
    if (this.#session) this.#parts.sessions.heard(this.#session);
    if (!Array.isArray(frame)) this.#handle(frame);
    else for (const message of frame) this.#handle(message);
  }

  #handle(value: unknown): void {
    if (this.#closing) return;
    let id: number;
    try {
      id = this.#parts.validator.id(value);
    } catch (error) {
      // There is nobody to answer to: the other side does not speak the protocol.
      this.#socket.close(CLOSE.badMessage, (error as Error).message);
      return;
    }
    try {
      const message = this.#parts.validator.message(value);
      const ok = this.#carryOut(message);
      // What changes nothing need not wait until there is room on the disk.
      if (this.#parts.state.noRoom && message.op === 'renew' && this.#session) this.#send([{ id, ok: null }]);
      else if (ok !== LATER) this.answer(id, ok);
    } catch (error) {
      if (error === this.#parts.state.noRoom) this.#send([{ id, error: wireError(error as GateError) }]);
      else if (error instanceof GateError) this.fail(id, error);
      else {
        this.#parts.state.parts.settings.log.error('an operation failed', {
          error: String((error as Error).stack),
        });
        this.fail(id, new GateError('internal', `The broker failed: ${(error as Error).message}`));
      }
    }
  }

  #carryOut(message: ClientMessage): unknown {
    if (message.op === 'hello') return this.#hello(message);
    const session = this.#session;
    if (!session)
      throw new GateError('invalid_request', 'op: the first message must be hello', { field: 'op' });
    switch (message.op) {
      case 'renew':
        return null;
      case 'subscribe':
        return this.#subscribe(message.volume ?? undefined);
      case 'unsubscribe':
        this.#unsubscribe?.();
        return null;
      case 'end': {
        carryOut(this.#parts, session, message);
        this.answer(message.id, null);
        this.close(1000, 'the session ended');
        return LATER;
      }
      default:
        return carryOut(this.#parts, session, message);
    }
  }

  #hello(message: Extract<ClientMessage, { op: 'hello' }>): Welcome {
    const { sessions, state, brokerId, startedMs } = this.#parts;
    if (this.#session) throw new GateError('invalid_request', 'op: hello came already', { field: 'op' });
    if (message.protocol !== undefined && message.protocol !== PROTOCOL)
      throw new GateError(
        'invalid_request',
        `protocol: this broker speaks ${PROTOCOL}, not ${message.protocol}`,
      );
    const started = message.resume ? undefined : sessions.start(message.client, this);
    const secret = started?.secret ?? message.secret!;
    this.#session = started?.session ?? sessions.resume(message.session!, secret, this);
    const ttlMs = state.parts.settings.sessionTtlMs;
    return {
      session: this.#session.id,
      secret,
      ttlMs,
      grace: state.parts.settings.clock.nowMs() - startedMs < ttlMs,
      lastId: this.#session.lastId,
      resumed: message.resume,
      nowMs: state.nowMs(),
      brokerId,
      version: version(),
    };
  }

  #subscribe(volume: string | undefined): null {
    const { hub, state } = this.#parts;
    this.#unsubscribe?.();
    const limitBytes = state.parts.settings.limits.eventsOutboxBytes;
    this.#unsubscribe = hub.add({
      volume,
      ready: () => this.#socket.bufferedAmount < limitBytes,
      // Events come after their commit, so they go out at once.
      send: (events) => this.#send([{ push: 'events', events }]),
      gap: (missed) => this.#send([{ push: 'gap', missed }]),
    });
    return null;
  }
}
