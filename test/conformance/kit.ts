/**
 * What a check works with. A check is a function over an empty directory of its own: it passes by returning, fails by throwing,
 * and is left out by `skip`. It may be run on any file system, so it says nothing of locks or of views.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { errnoName } from '../../src/sys/index.ts';

export interface Place {
  /** An empty directory that everybody may enter. */
  readonly dir: string;
  /** The same directory where many files are made faster: natively `dir` itself, for a view the one beneath. */
  readonly beneath: string;
  path(name: string): string;
}

export type Check = (place: Place) => void | Promise<void>;
export type Checks = Readonly<Record<string, Check>>;

export class Skipped extends Error {}

export function skip(why: string): never {
  throw new Skipped(why);
}

/** Most of what concerns other users takes root to set up. */
export function needsRoot(): void {
  if (process.geteuid!() !== 0) skip('needs root');
}

export function needs(program: string): string {
  for (const dir of ['/usr/bin', '/bin', '/usr/sbin', '/sbin'])
    if (existsSync(join(dir, program))) return join(dir, program);
  return skip(`${program} is not installed`);
}

/** `ok`, or the errno's name, of a call that returns `-errno`. */
export function outcome(code: number): string {
  return code < 0 ? errnoName(-code) : 'ok';
}

/** The errno's name that `run` throws, or `ok`. */
export function thrown(run: () => unknown): string {
  try {
    run();
    return 'ok';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

/** Another user, with supplementary groups. */
export interface User {
  readonly uid: number;
  readonly gid: number;
  readonly groups?: readonly number[];
}

/** Nobody in particular. */
export const OTHER: User = { uid: 60_001, gid: 60_001 };

function command(program: string, args: readonly string[], user: User | undefined): [string, string[]] {
  if (user === undefined) return [program, [...args]];
  const groups = user.groups === undefined ? ['--clear-groups'] : ['--groups', user.groups.join(',')];
  const ids = ['--reuid', String(user.uid), '--regid', String(user.gid), ...groups];
  return [needs('setpriv'), [...ids, '--', program, ...args]];
}

const ENV: Record<string, string> = {
  PATH: '/usr/bin:/bin:/usr/sbin:/sbin',
  LC_ALL: 'C.UTF-8',
  // In a view all processes of the suite are one actor, which does not wait for itself.
  ...(process.env.GATE_ACTOR === undefined ? {} : { GATE_ACTOR: process.env.GATE_ACTOR }),
};

/** Runs a program in the place's directory: its output. Throws when it fails. */
export function run(place: Place, program: string, args: readonly string[], user?: User): string {
  const done = spawnSync(...command(program, args, user), {
    cwd: place.dir,
    env: ENV,
    encoding: 'utf8',
    timeout: 60_000,
    maxBuffer: 64 * 1024 * 1024,
  });
  if (done.error !== undefined) throw done.error;
  if (done.status !== 0)
    throw new Error(`${program} ended with ${done.status ?? done.signal}: ${done.stderr}`);
  return done.stdout.trimEnd();
}

export function sh(place: Place, script: string, user?: User): string {
  return run(place, '/bin/sh', ['-c', script], user);
}

/** `E(f, …)`: 'ok' or the errno's name. `say(…)`: what the check looks at, as JSON. */
const PRELUDE = `
import ctypes, errno, fcntl, json, mmap, os, stat, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def E(f, *a, **k):
    try:
        f(*a, **k)
        return 'ok'
    except OSError as e:
        return errno.errorcode[e.errno]
def C(code):
    return 'ok' if code >= 0 else errno.errorcode[ctypes.get_errno()]
def say(*a):
    print(json.dumps(a[0] if len(a) == 1 else a), flush=True)
`;

function interpreter(): string {
  return needs('python3');
}

/** Runs Python in the place's directory; what it said last. */
export function py(place: Place, script: string, user?: User): unknown {
  const out = run(place, interpreter(), ['-c', PRELUDE + script], user);
  return out === '' ? null : JSON.parse(out.slice(out.lastIndexOf('\n') + 1));
}

/** Python that goes on: it is told to by lines on its input, and says lines. */
export class Other {
  readonly child: ChildProcess;
  #text = '';
  #wake: (() => void) | null = null;

  constructor(place: Place, script: string, user?: User) {
    this.child = spawn(...command(interpreter(), ['-c', PRELUDE + script], user), {
      cwd: place.dir,
      env: ENV,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.child.stdout!.on('data', (part) => {
      this.#text += part;
      this.#wake?.();
    });
    this.child.on('close', () => this.#wake?.());
  }

  /** The next line it says. */
  async said(): Promise<unknown> {
    for (;;) {
      const end = this.#text.indexOf('\n');
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return JSON.parse(line);
      }
      if (this.child.exitCode !== null || this.child.signalCode !== null)
        throw new Error(`the other process ended with ${this.child.exitCode ?? this.child.signalCode}`);
      await new Promise<void>((done) => {
        this.#wake = done;
      });
    }
  }

  tell(line = ''): void {
    this.child.stdin!.write(`${line}\n`);
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const over = new Promise((done) => this.child.once('close', done));
    this.child.kill('SIGKILL');
    await over;
  }
}
