/**
 * The broker: decides who may have which lock, and never forgets it.
 *
 *     doors.ts    TCP port and Unix socket ─┬─ http.ts ── http-locks.ts ─┐
 *     auth.ts     who gets in               └─ ws.ts ─── ops.ts ─────────┤
 *                                               sessions.ts ─────────────┴─▶ state.ts ──▶ lock core (src/lock)
 *                                                                               └───────▶ store (src/store)
 *
 * - **One turn, one transaction.** All that requests of one turn of the event loop change is committed at once, and
 *   answers go out after it. So what was acknowledged survives a `kill -9` at any instant, and a hundred requests
 *   cost one commit. See state.ts.
 * - **Sessions** keep locks alive over broken connections and restarts of the broker: sessions.ts. Plain HTTP clients
 *   have leases instead: http-locks.ts.
 * - **What it says** on the wire is in wire.ts (session protocol) and http.ts.
 *
 * What it does NOT do: it does not know files. A path is a key; whether it exists is the view's business. It cannot take
 * a lock from a program that has a file open: what happens to a broken hold's writer is the view's business too.
 */
import { WebSocketServer } from 'ws';
import { GateError } from '../base/errors.ts';
import { processId } from '../base/process.ts';
import { makeDirs, stateFiles, writeFileAtomic } from '../base/state.ts';
import { version } from '../base/version.ts';
import { SqliteStore } from '../store/index.ts';
import type { Store } from '../store/types.ts';
import { assemble } from './assemble.ts';
import { Gatekeeper, loadToken } from './auth.ts';
import { type Doors, type Handlers, openDoors } from './doors.ts';
import { createHttp, errorBody } from './http.ts';
import { takeLock } from './lockfile.ts';
import type { BrokerOptions, RunningBroker } from './options.ts';
import { type Settings, settle } from './settings.ts';
import { type BrokerInfo, SESSION_PATH } from './wire.ts';
import { Connection, type ConnectionParts } from './ws.ts';

export type { BrokerOptions, RunningBroker } from './options.ts';

/**
 * Starts a broker in this process. Throws GateError: `unavailable` when another one has the state directory, or a
 * port or socket is taken; `internal` when the database is damaged or newer; `invalid_request` for impossible options.
 */
export async function startBroker(options: BrokerOptions): Promise<RunningBroker> {
  const settings = settle(options);
  const files = stateFiles(settings.stateDir);
  makeDirs(settings.stateDir);
  const lock = takeLock(`${settings.stateDir}/broker.lock`, files.broker);
  let store: Store | undefined;
  try {
    store =
      options.store ??
      new SqliteStore({
        path: `${settings.stateDir}/broker.db`,
        durability: settings.durability,
        historyEvents: settings.limits.historyEvents,
      });
    return await run(settings, store, () => lock.release());
  } catch (error) {
    store?.close();
    lock.release();
    throw error;
  }
}

async function run(settings: Settings, store: Store, unlock: () => void): Promise<RunningBroker> {
  const { log } = settings;
  const files = stateFiles(settings.stateDir);
  const parts = await assemble(settings, store);
  const { state } = parts;
  const gatekeeper = new Gatekeeper(settings.auth === 'token' ? loadToken(files.token) : undefined);
  let info: BrokerInfo;
  let doors: Doors;
  const app = createHttp({
    ...parts,
    gatekeeper,
    doorOf: (request) => doors.doorOf(request.raw.socket),
    info: () => info,
  });
  await app.ready();
  const handlers = sessionDoor(parts, gatekeeper, (socket) => doors.doorOf(socket));
  doors = await openDoors(settings, {
    request: (request, response) => app.routing(request, response),
    ...handlers,
  });
  gatekeeper.listensOn(settings.host, doors.port);
  info = describe(settings, doors.port);
  writeFileAtomic(files.broker, `${JSON.stringify(info, null, 2)}\n`, 0o644);
  state.event({ type: 'broker_started', message: `version ${info.version}, pid ${info.pid}` });
  state.schedule();
  log.info('the broker runs', { url: info.url, socket: info.socket, stateDir: settings.stateDir });

  let finish: (error: Error | undefined) => void = () => {};
  const stopped = new Promise<Error | undefined>((resolve) => (finish = resolve));
  let ending: Promise<void> | undefined;
  const end = (error: Error | undefined): Promise<void> =>
    (ending ??= (async () => {
      parts.stop();
      // No answers any more, and no cancels for the connections that are cut now.
      await state
        .end()
        .catch((failed) => log.error('the last changes could not be stored', { error: String(failed) }));
      await doors.close();
      await app.close();
      store.close();
      unlock();
      finish(error);
    })());
  state.onFatal = (error) => {
    log.error('the broker stops: it cannot store what it decides', { error: String(error.stack) });
    void end(error);
  };
  return {
    url: info.url,
    host: info.host,
    port: info.port,
    socketPath: info.socket,
    tokenFile: files.token,
    pid: info.pid,
    stopped,
    close: () => end(undefined),
  };
}

function describe(settings: Settings, port: number): BrokerInfo {
  const self = processId(process.pid);
  if (!self) throw new GateError('internal', '/proc does not show this process; is it mounted?');
  const { host } = settings;
  return {
    ...self,
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    host,
    port,
    socket: settings.socketPath,
    version: version(),
    startedAt: settings.clock.wallMs() / 1000,
    auth: settings.auth,
  };
}

/** The WebSocket at `/v1/session`: the same guard as the HTTP routes, then a `Connection`. */
function sessionDoor(
  parts: ConnectionParts,
  gatekeeper: Gatekeeper,
  doorOf: (socket: unknown) => 'tcp' | 'unix',
): Pick<Handlers, 'upgrade'> {
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: parts.state.parts.settings.limits.frameBytes,
    perMessageDeflate: false,
    clientTracking: false,
  });
  return {
    upgrade(request, socket, head) {
      // Before the handshake a broken connection has nobody else to hear of it.
      socket.on('error', () => socket.destroy());
      try {
        gatekeeper.admit(request, doorOf(socket));
        if (request.url?.split('?', 1)[0] !== SESSION_PATH)
          throw new GateError('not_found', `There is no ${request.url}.`);
      } catch (error) {
        const body = JSON.stringify(errorBody(error as GateError));
        const status = (error as GateError).status;
        socket.end(
          `HTTP/1.1 ${status} ${(error as GateError).code}\r\nContent-Type: application/json\r\n` +
            `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
        );
        return;
      }
      server.handleUpgrade(request, socket, head, (accepted) => new Connection(parts, accepted));
    },
  };
}
