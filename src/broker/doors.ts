/** The two doors: a TCP port on loopback and a Unix socket, both with the same HTTP and WebSocket behind them. */
import { chmodSync, chownSync, lstatSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { GateError } from '../base/errors.ts';
import type { Door } from './auth.ts';
import type { Settings } from './settings.ts';

export interface Handlers {
  readonly request: RequestListener;
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
}

export interface Doors {
  readonly port: number;
  /** Which door a request's connection came through. */
  doorOf(socket: unknown): Door;
  close(): Promise<void>;
}

function listen(server: Server, where: { host: string; port: number } | { path: string }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** The port asked for; when it is taken and was only the default, a free one. Throws `unavailable`. */
async function listenTcp(server: Server, { host, port, portExplicit, log }: Settings): Promise<number> {
  try {
    await listen(server, { host, port });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'EADDRINUSE')
      throw new GateError('unavailable', `The broker cannot listen on ${host}:${port}: ${message}`);
    if (portExplicit)
      throw new GateError(
        'unavailable',
        `The port ${host}:${port} is taken by another program. Name another one with --port.`,
      );
    await listen(server, { host, port: 0 });
  }
  const got = (server.address() as { port: number }).port;
  if (port !== 0 && got !== port)
    log.warn('the default port is taken; another one was picked', { port: got });
  return got;
}

/** Whether somebody listens on a Unix socket. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}

/** Removes what a dead broker left; refuses to touch anything else. */
async function clearSocket(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return;
  if (!found.isSocket())
    throw new GateError('unavailable', `${path} is not a socket; Gate does not replace it.`);
  if (await answers(path))
    throw new GateError('unavailable', `Another program listens on the socket ${path}.`);
  unlinkSync(path);
}

async function listenUnix(server: Server, { socketPath, socketGroup }: Settings): Promise<void> {
  await clearSocket(socketPath);
  // Nobody else may connect between bind and chmod.
  const before = process.umask(0o177);
  try {
    await listen(server, { path: socketPath });
  } catch (error) {
    throw new GateError(
      'unavailable',
      `The broker cannot listen on ${socketPath}: ${(error as Error).message}`,
    );
  } finally {
    process.umask(before);
  }
  if (socketGroup !== undefined) chownSync(socketPath, -1, socketGroup);
  chmodSync(socketPath, 0o660);
}

export async function openDoors(settings: Settings, handlers: Handlers): Promise<Doors> {
  const unixSockets = new WeakSet<Socket>();
  const sockets = new Set<Socket>();
  const make = () => {
    // A client may wait in acquire for hours; only the request itself must come quickly.
    const server = createServer({ keepAliveTimeout: 60_000, requestTimeout: 60_000 }, handlers.request);
    server.on('upgrade', handlers.upgrade);
    server.on('connection', (socket) => {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
    });
    return server;
  };
  const tcp = make();
  const unix = make();
  unix.on('connection', (socket) => unixSockets.add(socket));
  const close = async () => {
    const closed = [tcp, unix].map(
      (server) => new Promise((done) => (server.listening ? server.close(done) : done(null))),
    );
    for (const socket of sockets) socket.destroy();
    await Promise.all(closed);
  };
  try {
    const port = await listenTcp(tcp, settings);
    await listenUnix(unix, settings);
    return { port, doorOf: (socket) => (unixSockets.has(socket as Socket) ? 'unix' : 'tcp'), close };
  } catch (error) {
    await close();
    throw error;
  }
}
