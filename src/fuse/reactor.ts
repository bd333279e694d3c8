/**
 * The loop that serves a mount. It takes over its (worker) thread until the mount is gone: nothing else runs there, no
 * promise, no `setTimeout`, no `port.on('message')`. Time comes from `api.setTimer`, messages from `onWake`.
 *
 * It reads without blocking until the device is dry. If requests have lately come close together it then spins for
 * `spinUs`, because putting a thread to sleep and waking it costs more than that; else, and afterwards, it sleeps
 * in poll(2) until a request, the eventfd, or the next timer.
 */
import { F_GETFL, F_SETFL, O_NONBLOCK, POLLERR, POLLIN } from '../sys/constants.ts';
import { EAGAIN, ECONNABORTED, EINTR, ENODEV, errnoName } from '../sys/errno.ts';
import { eventfdDrain, fcntl, ioctl, PollSet, poll, read, write } from '../sys/io.ts';
import { getpagesize } from '../sys/process.ts';
import { FuseSession, isTransient } from './session.ts';
import { TimerQueue } from './timers.ts';
import type { FuseApi, Handlers } from './types.ts';

export interface ReactorOptions {
  /** The mounted device. It and `wakeFd` are made non-blocking. */
  readonly fd: number;
  /** An eventfd that another thread adds to when it has left a message. */
  readonly wakeFd: number;
  /** Makes the file system. Nothing can be sent to the kernel yet: INIT comes later. */
  create(api: FuseApi, control: ReactorControl): Handlers;
  /** Take your messages (`receiveMessageOnPort`) and handle them. Also called when there are none. */
  onWake(): void;
  /** Takes messages that are there already, without the eventfd, when that is cheap: called while spinning and between batches. */
  readonly pollWake?: () => void;
  /** Called at the end of every turn, before it may sleep: write what several handlers have left together. */
  readonly onTurnEnd?: () => void;
  /** Microseconds; 0: never spin. */
  readonly spinUs?: number;
  readonly allowPassthrough: boolean;
  /** 1 by default; 2 when the backing file system is itself stacked (overlayfs). */
  readonly maxStackDepth?: number;
  readonly log: (line: string) => void;
}

export interface ReactorControl {
  /** Counters and tracing. */
  readonly session: FuseSession;
  /** Calls `ready` whenever one of `events` (POLL*) is there, until `unwatch`. Watching again changes what for. */
  watch(fd: number, events: number, ready: (revents: number) => void): void;
  unwatch(fd: number): void;
  /** Timers, for sessions of another kind on this thread. */
  readonly timers: TimerQueue;
  /** Leave after the handler or message at hand. The mount stays, unserved. */
  stop(): void;
}

/** How it ended: unmounted (or aborted), stopped by `control.stop`, or the device failed. */
export type ReactorEnd = 'unmounted' | 'stopped' | 'failed';

/** Requests served before timers and messages get their turn. */
const BATCH = 32;
/** A request so soon after the last dry spell counts as dense. */
const DENSE_MS = 0.3;
const CREDIT_MAX = 8;
/** Failed reads of the device while spinning for one look at the messages. */
const SPINS_PER_WAKE = 8;
const SLEEP_MS_MAX = 0x7fff_ffff;

/** CLOCK_MONOTONIC milliseconds at the price of `performance.now()`. */
function monotonic(): () => number {
  const offset = Number(process.hrtime.bigint()) / 1e6 - performance.now();
  return () => performance.now() + offset;
}

export function runReactor(options: ReactorOptions): ReactorEnd {
  return new Reactor(options).run();
}

class Reactor {
  readonly #options: ReactorOptions;
  readonly #session: FuseSession;
  readonly #timers: TimerQueue;
  readonly #nowMs = monotonic();
  #polled: PollSet;
  readonly #watched = new Map<
    number,
    { readonly events: number; readonly ready: (revents: number) => void }
  >();
  /** The descriptors of `#polled` behind the first two; null: they are others by now. */
  #polledFds: readonly number[] | null = [];
  readonly #spinMs: number;
  #credit = 0;
  #stopped = false;
  readonly #failed = (error: unknown): void => {
    this.#options.log(`fuse: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  };

  constructor(options: ReactorOptions) {
    this.#options = options;
    this.#spinMs = (options.spinUs ?? 50) / 1000;
    this.#timers = new TimerQueue(this.#nowMs);
    this.#polled = new PollSet([
      { fd: options.fd, events: POLLIN },
      { fd: options.wakeFd, events: POLLIN },
    ]);
    const { fd, wakeFd } = options;
    for (const each of [fd, wakeFd]) fcntl(each, F_SETFL, fcntl(each, F_GETFL) | O_NONBLOCK);
    this.#session = new FuseSession({
      device: {
        read: (into) => read(fd, into),
        write: (from, length) => write(fd, from, length),
        ioctl: (request, argument) => ioctl(fd, request, argument),
      },
      timers: this.#timers,
      nowMs: this.#nowMs,
      allowPassthrough: options.allowPassthrough,
      maxStackDepth: options.maxStackDepth ?? 1,
      pageBytes: getpagesize(),
      log: options.log,
    });
  }

  run(): ReactorEnd {
    const control: ReactorControl = {
      session: this.#session,
      timers: this.#timers,
      watch: (fd, events, ready) => {
        const before = this.#watched.get(fd)?.events;
        this.#watched.set(fd, { events, ready });
        if (before !== events) this.#polledFds = null;
      },
      unwatch: (fd) => {
        if (this.#watched.delete(fd)) this.#polledFds = null;
      },
      stop: () => {
        this.#stopped = true;
      },
    };
    this.#session.attach(this.#options.create(this.#session, control));
    let turns = 0;
    while (!this.#stopped) {
      const code = this.#serve();
      if (code === -ENODEV || code === -ECONNABORTED) return 'unmounted';
      if (!isTransient(code)) {
        this.#options.log(`fuse: reading /dev/fuse failed: ${errnoName(code)}`);
        return 'failed';
      }
      this.#timers.runDue(this.#failed);
      if (this.#stopped) break;
      this.#endTurn();
      const dryMs = this.#nowMs();
      if (this.#credit > 0 && this.#spinMs > 0 && this.#spin(dryMs)) {
        if (this.#watched.size > 0 && ++turns % SPINS_PER_WAKE === 0) this.#lookAtWatched();
        continue;
      }
      this.#sleep(dryMs);
    }
    return 'stopped';
  }

  /** Serves what is there. The `-errno` with which the device ended it, mostly EAGAIN. */
  #serve(): number {
    let served = 0;
    for (;;) {
      const code = this.#session.receive();
      if (code < 0) {
        if (code !== -EAGAIN && isTransient(code)) continue;
        return code;
      }
      if (this.#stopped) return -EAGAIN;
      if (++served % BATCH === 0) {
        this.#timers.runDue(this.#failed);
        this.#wakeIfAsked();
        if (this.#watched.size > 0) this.#lookAtWatched();
        this.#endTurn();
        if (this.#stopped) return -EAGAIN;
      }
    }
  }

  /** True when a request came. It was served. */
  #spin(dryMs: number): boolean {
    const endMs = dryMs + this.#spinMs;
    for (let turn = 1; ; turn++) {
      const code = this.#session.receive();
      if (code > 0) {
        if (this.#credit < CREDIT_MAX) this.#credit++;
        return true;
      }
      if (code !== -EAGAIN || this.#nowMs() >= endMs) break;
      if (turn % SPINS_PER_WAKE === 0) this.#pollWake();
    }
    this.#credit--;
    return false;
  }

  #sleep(dryMs: number): void {
    const sleepMs = this.#timers.sleepMs();
    if (sleepMs === 0) {
      if (this.#watched.size > 0) this.#lookAtWatched();
      return;
    }
    this.#setPolled();
    const ready = poll(this.#polled, Math.min(sleepMs, SLEEP_MS_MAX));
    if (ready < 0 && ready !== -EINTR) this.#options.log(`fuse: poll failed: ${errnoName(ready)}`);
    if (ready <= 0) return;
    if ((this.#polled.revents(0) & (POLLIN | POLLERR)) !== 0 && this.#nowMs() - dryMs < DENSE_MS) {
      if (this.#credit < CREDIT_MAX) this.#credit++;
    }
    if (this.#polled.revents(1) !== 0) this.#wake();
    this.#callWatched();
  }

  #setPolled(): void {
    if (this.#polledFds !== null) return;
    const { fd, wakeFd } = this.#options;
    this.#polledFds = [...this.#watched.keys()];
    const watched = [...this.#watched].map(([each, { events }]) => ({ fd: each, events }));
    this.#polled = new PollSet([{ fd, events: POLLIN }, { fd: wakeFd, events: POLLIN }, ...watched]);
  }

  /** Serves the other descriptors when the device is never dry. */
  #lookAtWatched(): void {
    this.#setPolled();
    if (poll(this.#polled, 0) > 0) this.#callWatched();
  }

  #callWatched(): void {
    const { words } = this.#polled;
    const fds = this.#polledFds ?? [];
    for (const [index, fd] of fds.entries()) {
      const revents = (words[(index + 2) * 2 + 1]! >> 16) & 0xffff;
      if (revents === 0) continue;
      try {
        this.#watched.get(fd)?.ready(revents);
      } catch (error) {
        this.#failed(error);
      }
    }
  }

  /** Between batches: the device is never dry under load, and messages must not starve. */
  #wakeIfAsked(): void {
    this.#pollWake();
    if (eventfdDrain(this.#options.wakeFd) > 0) this.#callOnWake();
  }

  #wake(): void {
    eventfdDrain(this.#options.wakeFd);
    this.#callOnWake();
  }

  #endTurn(): void {
    try {
      this.#options.onTurnEnd?.();
    } catch (error) {
      this.#failed(error);
    }
  }

  #callOnWake(): void {
    try {
      this.#options.onWake();
    } catch (error) {
      this.#failed(error);
    }
  }

  #pollWake(): void {
    try {
      this.#options.pollWake?.();
    } catch (error) {
      this.#failed(error);
    }
  }
}
