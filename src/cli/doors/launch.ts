/** Starting what a door consists of, writing it down, and taking it down again. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { delay, until } from '../../base/clock.ts';
import { tailOf } from '../../base/log.ts';
import { isAlive, type ProcessId, processId } from '../../base/process.ts';
import { makeDirs, writeFileAtomic } from '../../base/state.ts';
import { CliError } from '../context.ts';
import { mountAt, VIEW_TYPE } from '../mounts.ts';
import { childEnv } from '../supervisor/child.ts';
import { removeMadeDirs } from '../supervisor/teardown.ts';
import type { DoorMethod, DoorPlan } from './index.ts';

export interface DoorProcess {
  /** For people: `sshfs`, `the tunnel`. */
  readonly label: string;
  readonly argv: readonly string[];
  /** When the next one may start. `said`: it wrote a line to descriptor 3, which its arguments name. */
  readonly ready: { readonly when: 'said' | 'mounted' } | { readonly when: 'exists'; readonly path: string };
  /** A file of the mounted tree that can be read only when it is the right one, and what it must hold. */
  readonly proof?: { readonly path: string; readonly holds: RegExp };
}

export interface MountedDoor {
  readonly mount: string;
  readonly method: DoorMethod;
  readonly pids: readonly ProcessId[];
  readonly logFile: string;
}

interface DoorRecord extends MountedDoor {
  readonly madeDirs: readonly string[];
  readonly files: readonly string[];
}

const DOOR_TYPES: readonly string[] = [VIEW_TYPE, 'fuse.sshfs'];
const TERM_MS = 5_000;
/** Between a read that fails and the end of the process that should have answered it. */
const ENDING_MS = 1_000;

function folder(stateDir: string): string {
  return join(stateDir, 'doors');
}

/** Name of a door's files: its mount point in one word, which ssh takes for a path, too, and short enough for a socket's. */
export function doorName(mountPoint: string): string {
  const word = mountPoint
    .slice(1)
    .replace(/[^\w.-]+/g, '-')
    .slice(-24);
  return `${word}-${createHash('sha256').update(mountPoint).digest('hex').slice(0, 8)}`;
}

function recordFile(stateDir: string, mountPoint: string): string {
  return join(folder(stateDir), `${doorName(mountPoint)}.json`);
}

/** Every door that was opened with this state directory and not taken down, alive or not. */
export function doorRecords(stateDir: string): MountedDoor[] {
  let names: string[];
  try {
    names = readdirSync(folder(stateDir));
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    if (!name.endsWith('.json')) return [];
    try {
      return [JSON.parse(readFileSync(join(folder(stateDir), name), 'utf8')) as MountedDoor];
    } catch {
      return [];
    }
  });
}

export async function launch(plan: DoorPlan): Promise<MountedDoor> {
  const { mountPoint, stateDir } = plan;
  await unmountDoor(stateDir, mountPoint);
  const covering = mountAt(mountPoint);
  if (covering)
    throw new CliError(`${mountPoint} is a mount point of ${covering.source} (${covering.type}) already`);
  makeDirs(folder(stateDir), 0o700);
  const logs = join(stateDir, 'logs');
  makeDirs(logs, 0o700);
  const logFile = join(logs, `door-${doorName(mountPoint)}.log`);
  const madeDirs = makeDirs(mountPoint);
  for (const { path, text } of plan.files) writeFileAtomic(path, text);
  const pids: ProcessId[] = [];
  const record = (): DoorRecord => ({
    mount: mountPoint,
    method: plan.method,
    pids,
    logFile,
    madeDirs,
    files: plan.files.map((file) => file.path),
  });
  const log = openSync(logFile, 'a', 0o600);
  const from = fstatSync(log).size;
  try {
    for (const each of plan.processes) {
      const child = start(each, log, plan.env);
      const id = child.pid === undefined ? undefined : processId(child.pid);
      if (id !== undefined) pids.push(id);
      writeFileAtomic(recordFile(stateDir, mountPoint), `${JSON.stringify(record())}\n`);
      const life = watched(child);
      await ready(each, child, life, mountPoint, plan.limitMs);
      if (each.proof !== undefined) await prove(each, each.proof, life, mountPoint, plan.limitMs);
    }
  } catch (error) {
    const detail = tailOf(readFileSync(logFile).subarray(from).toString('utf8'), 15);
    await unmountDoor(stateDir, mountPoint);
    throw new CliError(`the door '${plan.method}' did not open: ${(error as Error).message}`, { detail });
  } finally {
    closeSync(log);
  }
  return record();
}

function start(what: DoorProcess, log: number, env: DoorPlan['env']): ChildProcess {
  const [program, ...args] = what.argv;
  const child = spawn(program!, args, {
    cwd: '/',
    // A group of its own: the ssh that it starts ends with it, and Ctrl-C at our terminal does not reach it.
    detached: true,
    env: childEnv(env),
    stdio: ['ignore', log, log, 'pipe'],
  });
  child.unref();
  return child;
}

/** How a process ended, once it has. */
interface Life {
  ended: string | undefined;
}

function watched(child: ChildProcess): Life {
  const life: Life = { ended: undefined };
  child.once('error', (error) => (life.ended = `could not be started: ${error.message}`));
  child.once('exit', (code, signal) => {
    life.ended = signal ? `was ended by ${signal}` : `ended with status ${code}`;
  });
  return life;
}

async function ready(
  what: DoorProcess,
  child: ChildProcess,
  life: Life,
  mountPoint: string,
  limitMs: number,
): Promise<void> {
  let said = '';
  const pipe = child.stdio[3] as Readable;
  pipe.on('data', (chunk: Buffer) => (said += chunk));
  const is = what.ready;
  const done = () =>
    life.ended !== undefined ||
    (is.when === 'said' && said.includes('\n')) ||
    (is.when === 'mounted' && mountAt(mountPoint) !== undefined) ||
    (is.when === 'exists' && exists(is.path));
  const came = await until(done, limitMs);
  pipe.destroy();
  if (life.ended !== undefined) throw new Error(`${what.label} ${life.ended}`);
  if (came === undefined) throw new Error(`${what.label} was not ready after ${limitMs / 1000} s`);
}

function exists(path: string): boolean {
  const at = path.lastIndexOf('/');
  return readdirSync(path.slice(0, at)).includes(path.slice(at + 1));
}

/** Read by another process: a mount that does not answer must not take us along. sshfs mounts before it has connected. */
async function prove(
  what: DoorProcess,
  proof: NonNullable<DoorProcess['proof']>,
  life: Life,
  mountPoint: string,
  limitMs: number,
): Promise<void> {
  // Over there programs start for it: in a guest that is emulated, for many seconds.
  const path = join(mountPoint, proof.path);
  try {
    const got = await new Promise<string>((done, fail) => {
      const reader = execFile('cat', [path], { timeout: limitMs, killSignal: 'SIGKILL' }, (error, out) =>
        error === null ? done(out) : fail(new Error(`${path} cannot be read: ${error.message.trim()}`)),
      );
      reader.unref();
    });
    if (proof.holds.test(got)) return;
    throw new Error(
      `${path} holds ${JSON.stringify(got.slice(0, 200))}: what is mounted there is not the view`,
    );
  } catch (error) {
    // A read that fails because nobody serves it says less than how the server ended.
    await until(() => life.ended !== undefined, ENDING_MS);
    throw life.ended === undefined ? error : new Error(`${what.label} ${life.ended}`);
  }
}

/**
 * Unmounts the door at `mountPoint`, ends its processes and removes its files; works by the record, when any of it is dead or gone.
 * Does nothing where there is no door. Throws CliError when a process or the mount cannot be removed.
 */
export async function unmountDoor(stateDir: string, mountPoint: string): Promise<void> {
  const file = recordFile(stateDir, mountPoint);
  const record = readRecord(file);
  if (record === undefined) return;
  // The last one started serves the mount; sshfs leaves by itself when it is unmounted.
  const entry = mountAt(mountPoint);
  if (entry !== undefined && DOOR_TYPES.includes(entry.type)) await detach(mountPoint);
  for (const id of [...record.pids].reverse()) await end(id);
  for (let n = 0; n < 64 && DOOR_TYPES.includes(mountAt(mountPoint)?.type ?? ''); n++)
    await detach(mountPoint);
  const left = record.pids.find((id) => isAlive(id));
  if (left !== undefined) throw new CliError(`process ${left.pid} of the door ${mountPoint} cannot be ended`);
  if (DOOR_TYPES.includes(mountAt(mountPoint)?.type ?? ''))
    throw new CliError(`${mountPoint} cannot be unmounted`);
  for (const path of record.files) rmSync(path, { force: true });
  removeMadeDirs(record.madeDirs);
  rmSync(file, { force: true });
}

function readRecord(file: string): DoorRecord | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as DoorRecord;
  } catch {
    return undefined;
  }
}

/** Lazily, so that who still stands in it does not keep the path. */
async function detach(mountPoint: string): Promise<void> {
  const root = process.geteuid?.() === 0;
  const [program, ...args] = root
    ? ['umount', '-i', '-l', mountPoint]
    : ['fusermount3', '-u', '-z', mountPoint];
  await new Promise<void>((done) => {
    const child = spawn(program!, args, { cwd: '/', stdio: 'ignore', timeout: TERM_MS });
    child.once('error', () => done());
    child.once('close', () => done());
  });
}

/** Ends a process with its group: SIGTERM, later SIGKILL. */
async function end(id: ProcessId): Promise<void> {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (!isAlive(id)) return;
    try {
      process.kill(-id.pid, signal);
    } catch {
      return;
    }
    await until(() => !isAlive(id), TERM_MS);
  }
  await delay(0);
}

/** Where a plan puts a file of its own. */
export function doorFile(stateDir: string, mountPoint: string, suffix: string): string {
  return join(folder(stateDir), `${doorName(mountPoint)}.${suffix}`);
}
