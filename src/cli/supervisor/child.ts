/**
 * A process that the supervisor keeps alive. It is started in a session of its own, with its output in a log
 * file, and says on descriptor 3 that it is ready, as one line of JSON. When it ends by itself it is started again, after a
 * pause that grows. A supervisor that was itself restarted adopts it by its recorded identity.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { type Clock, delay, type Timer } from '../../base/clock.ts';
import { type Logger, tailOf } from '../../base/log.ts';
import { isAlive, type ProcessId, processId, signalProcess } from '../../base/process.ts';
import { projectDir } from '../../base/version.ts';
import { CliError } from '../context.ts';

/** Pauses before a restart; the last one repeats. A run of a minute starts over. */
const BACKOFF_MS = [200, 500, 1000, 2000, 5000, 10_000, 30_000];
const STEADY_MS = 60_000;
/** How long a child may take to say that it is ready. */
const READY_MS = 30_000;
/** How long a child may take to end after SIGTERM. */
const TERM_MS = 5_000;
const ADOPTED_POLL_MS = 300;

export interface ChildSpec {
  /** For people: `the broker`, `the mount of NAME`. */
  readonly label: string;
  readonly args: () => readonly string[];
  readonly logFile: string;
  /** Descriptors that it inherits, as 4, 5, … */
  readonly fds?: () => readonly number[];
  /** Runs before each start: makes the place clean. */
  readonly before?: () => Promise<void>;
  /** Runs after each successful start, also of a restart. */
  readonly started?: (ready: Readonly<Record<string, unknown>>, process: ProcessId) => void | Promise<void>;
}

/** Its environment: nothing that would make it somebody else's actor or change its options. */
export function childEnv(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [key, value] of Object.entries(env))
    if (value !== undefined && !key.startsWith('GATE_')) kept[key] = value;
  return kept;
}

export class ManagedChild {
  readonly #spec: ChildSpec;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #env: Record<string, string>;
  #process: ProcessId | undefined;
  #wanted = false;
  #failures = 0;
  #startedAtMs = 0;
  #restart: Timer | undefined;
  #child: ChildProcess | undefined;
  /** Where the log of the latest start begins. */
  #logFrom = 0;

  constructor(spec: ChildSpec, clock: Clock, log: Logger, env: Record<string, string>) {
    this.#spec = spec;
    this.#clock = clock;
    this.#log = log;
    this.#env = env;
  }

  get process(): ProcessId | undefined {
    return isAlive(this.#process) ? this.#process : undefined;
  }

  get restarts(): number {
    return this.#failures;
  }

  /** Takes over a process that a former supervisor started. */
  adopt(process: ProcessId): void {
    this.#process = process;
    this.#wanted = true;
    this.#startedAtMs = this.#clock.nowMs();
    const look = () => {
      if (this.#process !== process) return;
      if (isAlive(process)) this.#clock.after(ADOPTED_POLL_MS, look);
      else this.#ended(process, 'ended');
    };
    look();
  }

  /** Starts it and waits until it is ready. Throws a CliError with the end of its log. */
  async start(): Promise<void> {
    this.#wanted = true;
    this.#restart?.cancel();
    await this.#launch();
  }

  async #launch(): Promise<void> {
    await this.#spec.before?.();
    const log = openSync(this.#spec.logFile, 'a', 0o600);
    this.#logFrom = fstatSync(log).size;
    const child = spawn(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        `${projectDir}/src/cli/main.ts`,
        ...this.#spec.args(),
        '--ready-fd',
        '3',
      ],
      {
        cwd: '/',
        detached: true,
        env: this.#env,
        stdio: ['ignore', log, log, 'pipe', ...(this.#spec.fds?.() ?? [])],
      },
    );
    closeSync(log);
    this.#child = child;
    const exited = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(`could not be started: ${error.message}`));
      child.once('exit', (code, signal) =>
        resolve(signal ? `was ended by ${signal}` : `ended with status ${code}`),
      );
    });
    const identity = child.pid === undefined ? undefined : processId(child.pid);
    this.#process = identity;
    this.#startedAtMs = this.#clock.nowMs();
    const result = await Promise.race([
      readyLine(child.stdio[3] as Readable),
      exited,
      new Promise<string>((late) => {
        this.#clock.after(READY_MS, () => late(`was not ready after ${READY_MS / 1000} s`));
      }),
    ]);
    if (typeof result === 'string' || identity === undefined) {
      this.#process = undefined;
      if (identity) await endProcess(identity);
      throw new CliError(`${this.#spec.label} ${typeof result === 'string' ? result : 'ended at once'}`, {
        detail: this.logTail(),
        hint: `All of its log: ${this.#spec.logFile}`,
      });
    }
    try {
      await this.#spec.started?.(result, identity);
    } catch (error) {
      this.#process = undefined;
      await endProcess(identity);
      throw error;
    }
    this.#log.info(`${this.#spec.label} runs`, { child: identity.pid });
    void exited.then((how) => this.#ended(identity, how));
  }

  #ended(which: ProcessId, how: string): void {
    if (this.#process !== which) return;
    this.#process = undefined;
    if (!this.#wanted) return;
    if (this.#clock.nowMs() - this.#startedAtMs > STEADY_MS) this.#failures = 0;
    this.#again(how);
  }

  #again(why: string): void {
    const pauseMs = BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length - 1)]!;
    this.#failures++;
    this.#log.warn(`${this.#spec.label} ${why}; starting it again in ${pauseMs} ms`);
    this.#restart = this.#clock.after(pauseMs, () => {
      if (!this.#wanted || this.process) return;
      this.#launch().catch(
        (error: Error) => this.#wanted && this.#again(`could not be started again: ${error.message}`),
      );
    });
  }

  /** From now on an end of it is meant. */
  expectEnd(): void {
    this.#wanted = false;
    this.#restart?.cancel();
  }

  /** Leaves it to itself: it goes on when this process ends. */
  letGo(): void {
    this.expectEnd();
    this.#child?.unref();
  }

  async stop(): Promise<void> {
    this.expectEnd();
    const running = this.#process;
    this.#process = undefined;
    if (running) await endProcess(running);
  }

  /** The end of what the latest start has logged. */
  logTail(lines = 12): string[] {
    try {
      return tailOf(readFileSync(this.#spec.logFile).toString('utf8', this.#logFrom), lines);
    } catch {
      return [];
    }
  }
}

/** SIGTERM, and SIGKILL when that did not end it in time. */
export async function endProcess(which: ProcessId, termMs = TERM_MS): Promise<void> {
  signalProcess(which, 'SIGTERM');
  for (let waitedMs = 0; isAlive(which); waitedMs += 20) {
    if (waitedMs >= termMs && waitedMs % 1000 < 20) signalProcess(which, 'SIGKILL');
    if (waitedMs > termMs + 5000) return;
    await delay(20);
  }
}

/** The one line of JSON on descriptor 3; never resolves when the pipe ends without one: the exit says more. */
function readyLine(pipe: Readable): Promise<Record<string, unknown>> {
  return new Promise((resolve) => {
    let text = '';
    pipe.setEncoding('utf8');
    pipe.on('error', () => {});
    pipe.on('data', (chunk: string) => {
      text += chunk;
      const end = text.indexOf('\n');
      if (end >= 0) {
        resolve(JSON.parse(text.slice(0, end)) as Record<string, unknown>);
        pipe.destroy();
      }
    });
  });
}
