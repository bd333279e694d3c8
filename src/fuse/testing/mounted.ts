/** Mounts the example on a fresh directory, served by a worker, and takes it down again whatever happened. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { MessageChannel, Worker } from 'node:worker_threads';
import { systemClock } from '../../base/clock.ts';
import { close, EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfdSignal } from '../../sys/index.ts';
import { connectionAbort, mountFuse, type Negotiated, type ReactorEnd, unmountFuse } from '../index.ts';
import type { Message } from './worker.ts';

export interface Stats {
  nodeCount: number;
  parkedCount: number;
  ticks: number;
  negotiated: Negotiated | null;
  counters: Record<string, { requests: number; failures: number } | undefined>;
  log: string[];
  trace: string[];
}

export interface ExampleMount {
  /** The mount point. */
  readonly dir: string;
  /** The directory below. */
  readonly backing: string;
  readonly fd: number;
  readonly worker: Worker;
  /** How the reactor ended. */
  readonly end: Promise<ReactorEnd>;
  ask(what: Message[1], argument?: unknown): Promise<unknown>;
  stats(): Promise<Stats>;
  /** Unmounts, gently at first. Can be called twice. */
  close(): Promise<void>;
}

/** Settles with `work`, or after `limitMs`, whichever is first. */
function within(work: Promise<unknown>, limitMs: number): Promise<unknown> {
  return new Promise((done) => {
    const timer = systemClock.after(limitMs, () => done(undefined));
    void work.finally(() => timer.cancel()).then(done);
  });
}

export async function mountExample(options: {
  passthrough: boolean;
  spinUs?: number;
  validMs?: number;
}): Promise<ExampleMount> {
  const base = fs.mkdtempSync(path.join(os.tmpdir(), 'gate-fuse-'));
  const [dir, backing] = [path.join(base, 'mnt'), path.join(base, 'backing')];
  fs.mkdirSync(dir);
  fs.mkdirSync(backing);
  fs.chmodSync(base, 0o755);
  const { fd } = await mountFuse({
    mountPoint: dir,
    fsName: 'example',
    subtype: 'example',
    allowOther: true,
    defaultPermissions: true,
  }).catch((error: unknown) => {
    fs.rmSync(base, { recursive: true, force: true });
    throw error;
  });
  const wakeFd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  const { port1, port2 } = new MessageChannel();
  const worker = new Worker(new URL('./worker.ts', import.meta.url), {
    workerData: {
      fd,
      wakeFd,
      root: backing,
      passthrough: options.passthrough,
      spinUs: options.spinUs ?? 50,
      validMs: options.validMs ?? 1000,
      port: port2,
    },
    transferList: [port2],
  });
  const end = new Promise<ReactorEnd>((done, failed) => {
    worker.once('message', done);
    worker.once('error', failed);
  });
  end.catch(() => undefined);
  const waiting = new Map<number, (value: unknown) => void>();
  let ids = 0;
  port1.on('message', ([id, value]: [number, unknown]) => {
    waiting.get(id)?.(value);
    waiting.delete(id);
  });
  const ask = (what: Message[1], argument?: unknown) =>
    new Promise<unknown>((done) => {
      waiting.set(++ids, done);
      port1.postMessage([ids, what, argument] satisfies Message);
      eventfdSignal(wakeFd);
    });
  let closed = false;
  return {
    dir,
    backing,
    fd,
    worker,
    end,
    ask,
    stats: () => ask('stats') as Promise<Stats>,
    async close() {
      if (closed) return;
      closed = true;
      try {
        await unmountFuse(dir);
      } catch {
        connectionAbort(dir);
        await unmountFuse(dir, { lazy: true }).catch(() => undefined);
      }
      await within(
        end.catch(() => undefined),
        3000,
      );
      await within(worker.terminate(), 3000);
      port1.close();
      close(fd);
      close(wakeFd);
      fs.rmSync(base, { recursive: true, force: true });
    },
  };
}
