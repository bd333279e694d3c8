/**
 * `gate mount --remote`: a view of another machine, mounted here. This machine's kernel asks, the view over there answers
 * (src/mount/remote-*.ts), and what is between is one stream of bytes (wire.ts, stream.ts), mostly through ssh.
 *
 *     kernel <-> client.ts (worker) <-> ssh <-> the view's reactor
 *                   |  ports + eventfd
 *                main: ssh's process, reconnecting, what may block      prober (worker): looks into /proc
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { fileURLToPath } from 'node:url';
import { MessageChannel, Worker } from 'node:worker_threads';
import { delay } from '../base/clock.ts';
import { GateError } from '../base/errors.ts';
import { createLogger, type LogLevel } from '../base/log.ts';
import { version } from '../base/version.ts';
import { mountAt, mountFuse } from '../fuse/index.ts';
import { KNOWN_AGENTS } from '../mount/index.ts';
import * as sys from '../sys/index.ts';
import type { ClientData, FromClient, ToClient } from './messages.ts';
import type { Transport } from './transport.ts';
import type { IdMap, Welcome } from './wire.ts';

export { SocketTransport, SshTransport, type Transport } from './transport.ts';
export type { IdMap } from './wire.ts';

export interface RemoteMountOptions {
  readonly transport: Transport;
  /** An existing directory. */
  readonly mountPoint: string;
  readonly idMap: IdMap;
  /** Agent CLIs; undefined: the known ones; empty: none. */
  readonly agents: readonly string[] | undefined;
  /** One owner for everybody in this mount. */
  readonly owner?: string | undefined;
  readonly logLevel: LogLevel;
}

export interface RunningRemoteMount {
  readonly mountPoint: string;
  readonly volume: string;
  /** Resolves when the kernel has let go of the mount, whoever unmounted it. */
  readonly unmounted: Promise<void>;
}

/** Pauses between tries to connect anew. */
const RETRY_MS = [50, 200, 500, 1000, 2000] as const;
/** Bytes that the kernel reads ahead; it takes root to say so. */
const READ_AHEAD_KIB = 1024;

/** Mounts it. Throws GateError, FuseMountError; nothing stays mounted then. */
export async function startRemoteMount(options: RemoteMountOptions): Promise<RunningRemoteMount> {
  const mount = new RemoteMount(options);
  try {
    return await mount.start();
  } catch (error) {
    mount.end();
    throw error;
  }
}

class RemoteMount {
  readonly #options: RemoteMountOptions;
  readonly #log;
  readonly #main = new MessageChannel();
  readonly #reactor: Worker;
  readonly #prober: Worker;
  readonly #wakeFd = sys.eventfd(0, sys.EFD_NONBLOCK | sys.EFD_CLOEXEC);
  readonly #welcomed = Promise.withResolvers<Welcome>();
  readonly #unmounted = Promise.withResolvers<void>();
  #fuseFd = -1;
  #tries = 0;
  #ended = false;

  constructor(options: RemoteMountOptions) {
    this.#options = options;
    this.#log = createLogger('mount', options.logLevel);
    sys.raiseOpenFiles();
    const prober = new MessageChannel();
    const data: ClientData = {
      wakeFd: this.#wakeFd,
      main: this.#main.port2,
      prober: prober.port1,
      version: version(),
      host: hostName(),
      uid: sys.geteuid(),
      gid: sys.getegid(),
      idMap: options.idMap,
      owner: options.owner,
    };
    this.#prober = new Worker(file('../mount/prober.ts'), {
      workerData: {
        port: prober.port2,
        wakeFd: this.#wakeFd,
        agents: options.agents ?? KNOWN_AGENTS,
        inPlace: null,
      },
      transferList: [prober.port2],
    });
    this.#reactor = new Worker(file('client.ts'), {
      workerData: data,
      transferList: [this.#main.port2, prober.port1],
    });
    const failed = (error: Error) => {
      // A mount that nobody serves must not hang: with its device closed the kernel answers ENOTCONN.
      this.#log.error(`a thread failed: ${error.stack ?? error}`);
      process.exit(1);
    };
    this.#reactor.on('error', failed);
    this.#prober.on('error', failed);
    this.#main.port1.on('message', (message: FromClient) => void this.#handle(message));
  }

  async start(): Promise<RunningRemoteMount> {
    const { mountPoint, transport } = this.#options;
    this.#send({ t: 'connected', fd: await transport.connect() });
    const { volume, name } = await this.#welcomed.promise;
    const { fd } = await mountFuse({
      mountPoint,
      fsName: `${transport.name}:${name}`,
      subtype: 'gate',
      allowOther: true,
      defaultPermissions: true,
    });
    this.#fuseFd = fd;
    const mounted = mountAt(mountPoint);
    if (mounted === undefined) throw new GateError('internal', `${mountPoint} was unmounted at once`);
    const { major, minor } = mounted.dev;
    this.#send({ t: 'serve', fuseFd: fd, mountDev: sys.makeDev(major, minor) });
    readAhead(major, minor);
    return { mountPoint, volume, unmounted: this.#unmounted.promise };
  }

  #send(message: ToClient): void {
    this.#main.port1.postMessage(message);
    sys.eventfdSignal(this.#wakeFd);
  }

  async #handle(message: FromClient): Promise<void> {
    switch (message.t) {
      case 'welcome':
        if (this.#fuseFd >= 0) {
          const { resumed } = message.welcome;
          this.#log.info(resumed ? 'the connection is back' : 'there is a new session with the view');
        }
        this.#tries = 0;
        return this.#welcomed.resolve(message.welcome);
      case 'broken':
        return this.#broken(message.why, message.refused);
      case 'lost':
        return this.#log.error('the session with the view is lost: what was open answers ESTALE');
      case 'tell_kernel':
        await sys.writeAsync(this.#fuseFd, message.message);
        return;
      case 'log':
        return this.#log[message.level](message.message);
      case 'ended':
        this.end();
        return this.#unmounted.resolve();
    }
  }

  #broken(why: string, refused: boolean): void {
    if (this.#ended) return;
    const { transport } = this.#options;
    const said = transport.said();
    const message = `the connection to ${transport.name} broke: ${why}${said === '' ? '' : ` (${said})`}`;
    // Before it is mounted there is somebody to tell.
    if (this.#fuseFd < 0) return this.#welcomed.reject(new GateError('unavailable', message));
    if (this.#tries === 0 || refused) this.#log.warn(message);
    void this.#again();
  }

  async #again(): Promise<void> {
    for (;;) {
      await delay(RETRY_MS[Math.min(this.#tries, RETRY_MS.length - 1)]!);
      this.#tries++;
      if (this.#ended) return;
      try {
        const fd = await this.#options.transport.connect();
        return this.#send({ t: 'connected', fd });
      } catch (error) {
        this.#log.debug((error as Error).message);
      }
    }
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#send({ t: 'stop' });
    this.#options.transport.close();
    void this.#prober.terminate();
    this.#main.port1.unref();
  }
}

/** Tells machines apart that have the same name: `name-1f3a`. */
function hostName(): string {
  let id: string;
  try {
    id = readFileSync('/etc/machine-id', 'utf8').trim();
  } catch {
    id = randomBytes(4).toString('hex');
  }
  const short = hostname()
    .split('.')[0]!
    .replace(/[^\w-]/g, '_')
    .slice(0, 60);
  return `${short || 'host'}-${/^[0-9a-f]{4}/.test(id) ? id.slice(0, 4) : randomBytes(2).toString('hex')}`;
}

function readAhead(major: number, minor: number): void {
  try {
    writeFileSync(`/sys/class/bdi/${major}:${minor}/read_ahead_kb`, `${READ_AHEAD_KIB}`);
  } catch {
    // an ordinary user, or a container: the kernel's own choice will do
  }
}

function file(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}
