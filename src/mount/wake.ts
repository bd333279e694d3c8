/**
 * Wakes programs that watch files in the view (inotify) after these were changed beside it: the kernel tells watchers only of what is done
 * through the view. So a process of its own (waker.ts) does something there that changes nothing: it gives a file the mode that it has.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { encodePath, type PathString } from '../base/bytes.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { parentOf } from './watch.ts';

/** Paths that wait for the waker. Beyond it only their directories are woken; beyond it again they are forgotten. */
const PENDING_MAX = 4000;
/** Paths that it gets at once. */
const BATCH = 200;
/** Between two batches: the view serves others, too. */
const PAUSE_MS = 20;
/** It ends when there was nothing to do for so long. */
const IDLE_MS = 30_000;

export class Wakes {
  readonly #mountPoint: string;
  readonly #mountDev: number;
  readonly #clock: Clock;
  /** Tells the reactor the process's id; it answers with `ready`. 0: it is gone. */
  readonly #tell: (pid: number) => void;
  readonly #pending = new Set<PathString>();
  #child: ChildProcess | null = null;
  /** It has nothing to do, and the reactor knows it. */
  #free = false;
  #timer: Timer | null = null;
  #closed = false;

  constructor(mountPoint: string, mountDev: number, clock: Clock, tell: (pid: number) => void) {
    this.#mountPoint = mountPoint;
    this.#mountDev = mountDev;
    this.#clock = clock;
    this.#tell = tell;
  }

  /** Paths relative to the view's root. */
  add(paths: readonly PathString[]): void {
    if (this.#closed) return;
    for (const path of paths) {
      const crowded = this.#pending.size >= PENDING_MAX;
      if (!crowded || this.#pending.size < 2 * PENDING_MAX)
        this.#pending.add(crowded ? parentOf(path) : path);
    }
    if (this.#child === null) this.#start();
    else if (this.#free) this.#next();
  }

  /** The reactor knows the process `pid`. */
  ready(pid: number): void {
    if (this.#child?.pid === pid) this.#next();
  }

  close(): void {
    this.#closed = true;
    this.#stop();
  }

  #start(): void {
    const args = [
      '--disable-warning=ExperimentalWarning',
      fileURLToPath(new URL('waker.ts', import.meta.url)),
      this.#mountPoint,
      String(this.#mountDev),
    ];
    const child = spawn(process.execPath, args, { cwd: '/', stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child = child;
    child.on('error', () => this.#gone(child));
    child.on('exit', () => this.#gone(child));
    child.stdin!.on('error', () => {});
    // A line for each batch that is done.
    child.stdout!.on('data', () => {
      this.#timer = this.#clock.after(PAUSE_MS, () => this.#next());
    });
    if (child.pid !== undefined) this.#tell(child.pid);
  }

  #next(): void {
    this.#timer?.cancel();
    const child = this.#child;
    if (child === null) return;
    this.#free = this.#pending.size === 0;
    if (this.#free) {
      this.#timer = this.#clock.after(IDLE_MS, () => this.#stop());
      return;
    }
    const paths: PathString[] = [];
    for (const path of this.#pending) {
      if (paths.length === BATCH) break;
      this.#pending.delete(path);
      paths.push(path);
    }
    // Each ends with a NUL, the batch with another: `.` is the root.
    const parts = paths.flatMap((path) => [encodePath(path === '' ? '.' : path), Buffer.of(0)]);
    child.stdin!.write(Buffer.concat([...parts, Buffer.of(0)]));
  }

  #stop(): void {
    this.#timer?.cancel();
    // At the end of its input it ends.
    this.#child?.stdin?.end();
  }

  #gone(child: ChildProcess): void {
    if (this.#child !== child) return;
    this.#child = null;
    this.#free = false;
    this.#timer?.cancel();
    this.#tell(0);
    // What came while it was ending.
    if (this.#pending.size > 0 && !this.#closed) this.#start();
  }
}
