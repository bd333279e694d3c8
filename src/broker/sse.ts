/**
 * Events over HTTP: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html). Each is a
 * `GateEvent` with its number as `id`. A reader that is too slow gets `event: gap` with how many it missed.
 */
import type { FastifyReply } from 'fastify';
import type { EventHub } from './events.ts';
import type { BrokerState } from './state.ts';
import type { GateEvent } from './wire.ts';

/** A comment so often keeps proxies and half-dead connections honest. */
const KEEPALIVE_MS = 15_000;

function text(event: GateEvent): string {
  return `id: ${event.seq}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

export function streamEvents(
  state: BrokerState,
  hub: EventHub,
  reply: FastifyReply,
  volume: string | undefined,
): void {
  const { clock, limits } = state.parts.settings;
  reply.hijack();
  const { raw } = reply;
  raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  raw.write(': events of Gate\n\n');
  const ready = () => raw.writableLength < limits.eventsOutboxBytes;
  const end = hub.add({
    volume,
    ready,
    send: (events) => raw.write(events.map(text).join('')),
    gap: (missed) => raw.write(`event: gap\ndata: ${JSON.stringify({ missed })}\n\n`),
  });
  let open = true;
  const keepAlive = () =>
    clock.after(KEEPALIVE_MS, () => {
      if (!open) return;
      if (ready()) raw.write(':\n\n');
      keepAlive();
    });
  keepAlive();
  raw.on('close', () => {
    open = false;
    end();
  });
  raw.on('error', () => end());
}
