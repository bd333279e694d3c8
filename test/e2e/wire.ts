/**
 * A wire between two Unix sockets that can be cut, in a thread of its own: the test that cuts it may itself be waiting for
 * what goes over it.
 */
import { rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

interface WireData {
  readonly path: string;
  readonly to: string;
}

/** `break`: from now on every connection breaks by itself after some bytes, by this seed. */
type Command = { readonly do: 'cut' | 'mend' } | { readonly do: 'break'; readonly seed: number };

export class Wire {
  readonly path: string;
  readonly #worker: Worker;

  constructor(path: string, to: string) {
    this.path = path;
    this.#worker = new Worker(fileURLToPath(import.meta.url), { workerData: { path, to } });
  }

  /** Resolves when it is done, to the connections that there have been so far. */
  #do(command: Command): Promise<number> {
    this.#worker.postMessage(command);
    return new Promise((done) => this.#worker.once('message', done));
  }

  cut(): Promise<number> {
    return this.#do({ do: 'cut' });
  }

  mend(): Promise<number> {
    return this.#do({ do: 'mend' });
  }

  breakBySelf(seed: number): Promise<number> {
    return this.#do({ do: 'break', seed });
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}

function serve({ path, to }: WireData): void {
  let server: Server | null = null;
  const sockets = new Set<Socket>();
  let state = -1;
  let connections = 0;
  const lifeBytes = () => {
    if (state < 0) return Number.POSITIVE_INFINITY;
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return 3000 + (state % 40_000);
  };
  const join = (near: Socket) => {
    connections++;
    const far = connect(to);
    let left = lifeBytes();
    for (const [from, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on('error', () => {});
      from.on('close', () => {
        sockets.delete(from);
        other.destroy();
      });
      from.on('data', (bytes: Buffer) => {
        other.write(left < bytes.length ? bytes.subarray(0, Math.max(0, left)) : bytes);
        left -= bytes.length;
        if (left <= 0) other.end(() => from.destroy());
      });
    }
  };
  parentPort!.on('message', (command: Command) => {
    if (command.do === 'break') state = command.seed;
    if (command.do === 'mend') {
      server = createServer(join);
      rmSync(path, { force: true });
      server.listen(path, () => parentPort!.postMessage(connections));
      return;
    }
    if (command.do === 'cut') {
      server?.close();
      for (const socket of sockets) socket.destroy();
    }
    parentPort!.postMessage(connections);
  });
}

if (!isMainThread && parentPort !== null) serve(workerData as WireData);
