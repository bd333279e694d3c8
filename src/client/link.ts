/** One connection to the broker: opens a WebSocket, and hands on frames as messages. Knows nothing of sessions. */
import { connect as connectNet } from 'node:net';
import { WebSocket } from 'ws';
import { GateError } from '../base/errors.ts';
import { LIMITS } from '../base/limits.ts';
import type { BrokerMessage, ClientMessage } from '../broker/wire.ts';
import { endpointOf, sessionUrl, shownEndpoint } from './endpoint.ts';

const HANDSHAKE_MS = 5000;

export interface LinkEvents {
  readonly onOpen: () => void;
  /** The messages of one frame. */
  readonly onMessages: (messages: readonly BrokerMessage[]) => void;
  /** Once, whatever the reason. `unauthorized` and `forbidden` when it was refused. */
  readonly onClose: (why: GateError) => void;
}

/** One connection, until its `onClose`. */
export interface Link {
  /** One frame, or as many as the limit of frames wants. Nothing happens when it is not open. */
  send(messages: readonly ClientMessage[]): void;
  /** Cuts it at once. */
  cut(): void;
  close(): void;
}

/** Where a broker is, by what it is found. */
export type Where = Parameters<typeof endpointOf>[0];
export type Dial = (where: Where, events: LinkEvents) => Link;

export const openLink: Dial = (where, events) => new SocketLink(where, events);

class SocketLink implements Link {
  readonly #socket: WebSocket;
  #why: GateError | undefined;

  constructor(where: Where, events: LinkEvents) {
    const endpoint = endpointOf(where);
    const { socket: path, token } = endpoint;
    this.#socket = new WebSocket(sessionUrl(endpoint), {
      perMessageDeflate: false,
      handshakeTimeout: HANDSHAKE_MS,
      maxPayload: LIMITS.outboxBytes,
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      ...(path !== undefined && { createConnection: () => connectNet(path) }),
    });
    this.#socket.on('open', events.onOpen);
    this.#socket.on('message', (data) => {
      const frame = JSON.parse((data as Buffer).toString()) as BrokerMessage | BrokerMessage[];
      events.onMessages(Array.isArray(frame) ? frame : [frame]);
    });
    this.#socket.on('unexpected-response', (_request, response) => {
      const code =
        response.statusCode === 401
          ? 'unauthorized'
          : response.statusCode === 403
            ? 'forbidden'
            : 'unavailable';
      this.#why = new GateError(
        code,
        `The broker at ${shownEndpoint(endpoint)} answered ${response.statusCode}.`,
      );
      this.#socket.terminate();
    });
    this.#socket.on('error', (error) => {
      this.#why ??= new GateError(
        'unavailable',
        `No broker answers at ${shownEndpoint(endpoint)}: ${error.message}`,
      );
    });
    this.#socket.on('close', (code, reason) => {
      const text = reason.toString();
      events.onClose(
        this.#why ?? new GateError('unavailable', `The broker closed the connection (${code} ${text}).`),
      );
    });
  }

  send(messages: readonly ClientMessage[]): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    const text = JSON.stringify(messages.length === 1 ? messages[0] : messages);
    // A character is three bytes at most.
    if (text.length * 3 <= LIMITS.frameBytes || messages.length === 1) {
      this.#socket.send(text);
      return;
    }
    const half = messages.length >> 1;
    this.send(messages.slice(0, half));
    this.send(messages.slice(half));
  }

  cut(): void {
    this.#socket.terminate();
  }

  close(): void {
    this.#socket.close();
  }
}
