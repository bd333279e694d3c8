import { chmodSync, chownSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { GateError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import * as sys from '../sys/index.ts';
import { Connection } from './connection.ts';
import { ProtocolError } from './packets.ts';
import { SFTP_LIMITS } from './protocol.ts';
import type { Shared } from './shared.ts';

/**
 * Listens on a Unix socket to which only its owner, and root, may connect. Throws GateError `unavailable`: another server listens there,
 * or nobody can.
 */
export async function listenOn(
  path: string,
  owner?: { readonly uid: number; readonly gid: number },
): Promise<Server> {
  if (await answers(path)) throw new GateError('unavailable', `another server listens on ${path}`);
  const server = createServer({ noDelay: true });
  // It comes into being with this mask: nobody else gets in before the chmod.
  const before = sys.umask(0o177);
  try {
    rmSync(path, { force: true });
    await new Promise<void>((done, fail) => {
      server.once('error', fail);
      server.listen(path, done);
    });
    chmodSync(path, 0o600);
    if (owner !== undefined) chownSync(path, owner.uid, owner.gid);
  } catch (error) {
    server.close();
    throw new GateError('unavailable', `cannot listen on ${path}: ${(error as Error).message}`);
  } finally {
    sys.umask(before);
  }
  server.removeAllListeners('error');
  return server;
}

/** Moves bytes between the clients of a socket and their connections. */
export class SftpServer {
  readonly #shared: Shared;
  readonly #log: Logger;
  readonly #server: Server;
  readonly #clients = new Map<Socket, Connection>();
  #next = 1;

  constructor(shared: Shared, server: Server, log: Logger) {
    this.#shared = shared;
    this.#log = log;
    this.#server = server;
    server.on('connection', (socket) => this.#accept(socket));
    server.on('error', (error) => log.error(`the socket failed: ${error.message}`));
  }

  /** The broker says that the open with this number has to wait. */
  queued(tid: number): void {
    for (const connection of this.#clients.values()) if (connection.queued(tid)) return;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((done) => this.#server.close(() => done()));
    for (const socket of this.#clients.keys()) socket.destroy();
    for (const connection of this.#clients.values()) connection.close();
    await closed;
  }

  #accept(socket: Socket): void {
    if (this.#clients.size >= SFTP_LIMITS.connections) {
      this.#log.warn(`${SFTP_LIMITS.connections} clients are connected: the next one is turned away`);
      socket.destroy();
      return;
    }
    const number = this.#next++;
    const pid = peerOf(socket);
    const who = { command: 'sftp', uid: this.#shared.uid, ...(pid > 0 && { pid }) };
    const connection = new Connection(this.#shared, number, who, {
      send: (packet) => socket.write(packet),
      get queuedBytes() {
        return socket.writableLength;
      },
    });
    this.#clients.set(socket, connection);
    this.#log.debug(`client ${number} is connected`, { pid });
    const take = (run: () => void) => {
      // Answers to what came in together leave together.
      socket.cork();
      try {
        run();
      } catch (error) {
        const known = error instanceof ProtocolError;
        const text = known ? error.message : ((error as Error).stack ?? String(error));
        this.#log[known ? 'warn' : 'error'](`client ${number}: ${text}`);
        socket.destroy();
      } finally {
        process.nextTick(() => socket.uncork());
      }
      if (connection.isFull) socket.pause();
    };
    const goOn = () => {
      if (socket.destroyed) return;
      take(() => connection.pump());
      if (!connection.isFull) socket.resume();
    };
    connection.onReady = goOn;
    socket.on('data', (chunk: Buffer) => take(() => connection.feed(chunk)));
    socket.on('drain', goOn);
    socket.on('error', (error) => this.#log.debug(`client ${number}: ${error.message}`));
    socket.on('close', () => {
      this.#clients.delete(socket);
      connection.close();
      this.#log.debug(`client ${number} is gone`);
    });
  }
}

function peerOf(socket: Socket): number {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd ?? -1;
  return fd < 0 ? -1 : sys.socketPeerPid(fd);
}

/** True when somebody listens there: a socket's file outlives its server. */
function answers(path: string): Promise<boolean> {
  return new Promise((done) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      done(true);
    });
    probe.once('error', () => done(false));
  });
}
