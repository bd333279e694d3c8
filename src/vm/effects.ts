/**
 * Everything that the virtual machines do to this host goes through here: programs that run, files that are written. So a
 * dry run can print each of them instead, and `--verbose` beside.
 */
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  closeSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Clock } from '../base/clock.ts';
import { type ProcessId, processId } from '../base/process.ts';
import { makeDirs } from '../base/state.ts';
import { VmError } from './errors.ts';

/** How much of a program's output is kept for its error. */
const TAIL_LINES = 15;
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

export interface RunOptions {
  /** What the step does, for the error: `build the root file system`. */
  readonly what: string;
  readonly input?: string | Buffer | Readable;
  readonly cwd?: string;
  readonly limitMs?: number;
  /** Gives the status instead of throwing when it is not 0. */
  readonly anyStatus?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  /** Told each line of the output as it comes. */
  readonly line?: (line: string) => void;
  /** Only looks: runs in a dry run, too, and is not printed. */
  readonly looks?: boolean;
}

export interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const DEFAULT_LIMIT_MS = 120_000;

/** A command line as one would type it. */
export function shown(program: string, args: readonly string[]): string {
  return [program, ...args]
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`))
    .join(' ');
}

export interface EffectsOptions {
  readonly clock: Clock;
  /** Nothing is done; each deed is told here. */
  readonly dry?: (line: string) => void;
  readonly verbose?: (line: string) => void;
}

export class Effects {
  readonly clock: Clock;
  readonly #dry: ((line: string) => void) | undefined;
  readonly #verbose: ((line: string) => void) | undefined;

  constructor(options: EffectsOptions) {
    this.clock = options.clock;
    this.#dry = options.dry;
    this.#verbose = options.verbose;
  }

  get dry(): boolean {
    return this.#dry !== undefined;
  }

  /** Tells a deed. True when it is not to be done. */
  #told(line: string): boolean {
    (this.#dry ?? this.#verbose)?.(line);
    return this.#dry !== undefined;
  }

  /** Runs a program to its end. Throws a VmError with the end of its output when it fails. */
  async run(program: string, args: readonly string[], options: RunOptions): Promise<Ran> {
    if (!options.looks && this.#told(`run    ${shown(program, args)}`))
      return { status: 0, stdout: '', stderr: '' };
    const limitMs = options.limitMs ?? DEFAULT_LIMIT_MS;
    const child = spawn(program, [...args], {
      cwd: options.cwd ?? '/',
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      ...(options.env && { env: { ...options.env } }),
    });
    const gather = (stream: Readable) => {
      const kept: string[] = [];
      let bytes = 0;
      let rest = '';
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        bytes += chunk.length;
        if (bytes <= OUTPUT_BYTES_MAX) kept.push(chunk);
        if (!options.line) return;
        const lines = (rest + chunk).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) options.line(line);
      });
      return () => kept.join('');
    };
    const stdout = gather(child.stdout!);
    const stderr = gather(child.stderr!);
    if (child.stdin) {
      child.stdin.on('error', () => {});
      if (typeof options.input === 'object' && !Buffer.isBuffer(options.input))
        void pipeline(options.input, child.stdin).catch(() => child.kill('SIGKILL'));
      else child.stdin.end(options.input);
    }
    // Not spawn's own: that one goes on when the program could not be started, and keeps this process.
    const timer = this.clock.after(limitMs, () => child.kill('SIGKILL'));
    const [status, signal] = await new Promise<[number, NodeJS.Signals | null]>((resolve, reject) => {
      child.once('error', (error: NodeJS.ErrnoException) =>
        reject(
          error.code === 'ENOENT'
            ? new VmError(`cannot ${options.what}: the program ${program} is missing`, {
                hint: hintFor(program),
              })
            : new VmError(`cannot ${options.what}: ${program}: ${error.message}`),
        ),
      );
      child.once('close', (code, by) => resolve([code ?? 128, by]));
    }).finally(() => {
      timer.cancel();
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
    });
    const result = { status, stdout: stdout(), stderr: stderr() };
    if (status === 0 || options.anyStatus) return result;
    const how =
      signal === 'SIGKILL' ? `was not done after ${limitMs / 1000} s` : `ended with status ${status}`;
    throw new VmError(`cannot ${options.what}: ${program} ${how}`, {
      detail: `${result.stdout}\n${result.stderr}`.split('\n').filter(Boolean).slice(-TAIL_LINES),
    });
  }

  /**
   * Starts a program that goes on when this process ends: in a session of its own, its output in a file. `exited` resolves with how
   * it ended, when it does before this process.
   */
  start(
    program: string,
    args: readonly string[],
    logFile: string,
  ): { process: ProcessId; exited: Promise<string> } | undefined {
    if (this.#told(`start  ${shown(program, args)}`)) return undefined;
    const log = openSync(logFile, 'a', 0o600);
    const child = spawn(program, [...args], { cwd: '/', detached: true, stdio: ['ignore', log, log] });
    closeSync(log);
    const exited = new Promise<string>((resolve) => {
      child.once('error', (error: NodeJS.ErrnoException) =>
        resolve(error.code === 'ENOENT' ? 'is missing' : `could not be started: ${error.message}`),
      );
      child.once('exit', (code, by) => resolve(by ? `was ended by ${by}` : `ended with status ${code}`));
    });
    child.unref();
    const identity = child.pid === undefined ? undefined : processId(child.pid);
    return { process: identity ?? { pid: child.pid ?? 0, startTicks: -1, bootId: '' }, exited };
  }

  write(path: string, content: string | Buffer, mode = 0o644): void {
    if (this.#told(`write  ${path} (${Buffer.byteLength(content)} bytes, mode ${mode.toString(8)})`)) return;
    const temporary = `${path}.${process.pid}.tmp`;
    writeFileSync(temporary, content, { mode });
    chmodSync(temporary, mode);
    renameSync(temporary, path);
  }

  append(path: string, line: string): void {
    if (this.dry) return;
    try {
      appendFileSync(path, line, { mode: 0o600 });
    } catch {
      // The machine was just deleted, or the disk is full: a line of a log is never worth the command.
    }
  }

  makeDir(path: string, mode = 0o755): string[] {
    if (this.#told(`mkdir  ${path}`)) return [];
    return makeDirs(path, mode);
  }

  remove(path: string): void {
    if (this.#told(`remove ${path}`)) return;
    rmSync(path, { recursive: true, force: true });
  }

  rename(from: string, to: string): void {
    if (this.#told(`rename ${from} to ${to}`)) return;
    renameSync(from, to);
  }
}

/** The Debian package that brings a program. */
const PACKAGES: Readonly<Record<string, string>> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  mmdebstrap: 'mmdebstrap',
  mke2fs: 'e2fsprogs',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  rsync: 'rsync',
  sshfs: 'sshfs',
  lz4: 'lz4',
  genisoimage: 'genisoimage',
  nft: 'nftables',
  ip: 'iproute2',
  strip: 'binutils',
};

export function hintFor(program: string): string | undefined {
  const name = PACKAGES[program];
  return name === undefined ? undefined : `On Debian or Ubuntu: apt-get install ${name}`;
}

/** The last lines of a file; none when it is not there. */
export function tailOfFile(path: string, lines = TAIL_LINES): string[] {
  try {
    return (
      readFileSync(path, 'utf8')
        // A console's colours and carriage returns.
        .replace(/\u001b\[[0-9;?]*[A-Za-z]|\r/g, '')
        .split('\n')
        .filter((line) => line.trim())
        .slice(-lines)
    );
  } catch {
    return [];
  }
}
