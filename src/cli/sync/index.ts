/**
 * `gate sync`: a repository here and its copy in another machine, one way at a time, by rsync over ssh. What was the same on both sides
 * after the last sync is remembered in the state directory; so it is known who changed what since.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodePath, type PathString } from '../../base/bytes.ts';
import { makeDirs, writeFileAtomic } from '../../base/state.ts';
import {
  CONTROL_PATH_BYTES_MAX,
  type SshTarget,
  shellWord,
  showTarget,
  sshArguments,
  sshOptions,
} from '../../ssh/index.ts';
import { CliError } from '../context.ts';
import { type Item, type Listing, list, runAt, type Side } from './list.ts';
import { type Agreed, planSync, type SyncPlan, same } from './plan.ts';

export interface SyncOptions {
  /** The folder on this machine. */
  readonly here: string;
  readonly target: SshTarget;
  /** The folder over there. Where its view is mounted, too, that is written to, so that locks hold. */
  readonly there: string;
  /** From there to here. */
  readonly back: boolean;
  readonly delete: boolean;
  /** Conflicts are decided for the sending side. */
  readonly force: boolean;
  readonly dryRun: boolean;
  /** Names that are left out wherever they stand. */
  readonly exclude: readonly string[];
  readonly stateDir: string;
}

export interface SyncResult extends SyncPlan {
  readonly back: boolean;
  readonly dryRun: boolean;
  /** The folder over there that was read and written: the view, or the repository itself. */
  readonly through: string;
  /** False: there were conflicts, and nothing was done. */
  readonly done: boolean;
}

interface Memory {
  readonly names: Record<PathString, { readonly here: Item; readonly there: Item }>;
}

/** Conflicts whose content is compared before they count, in all. */
const COMPARED_MAX = 10_000;

/** Throws CliError: one side cannot be read or written. */
export async function sync(options: SyncOptions): Promise<SyncResult> {
  makeDirs(join(options.stateDir, 'sync'), 0o700);
  // All of it goes through one connection.
  const controlPath = join(options.stateDir, 'sync', `${process.pid}.ssh`);
  const own = options.target.controlPath === null && Buffer.byteLength(controlPath) <= CONTROL_PATH_BYTES_MAX;
  if (!own) return await syncOver(options);
  const target = { ...options.target, controlPath };
  try {
    return await syncOver({ ...options, target });
  } finally {
    const ending = spawn('ssh', sshArguments(target, undefined, ['-O', 'exit']), { stdio: 'ignore' });
    await new Promise<void>((done) => ending.once('error', () => done()).once('close', () => done()));
  }
}

async function syncOver(options: SyncOptions): Promise<SyncResult> {
  const { target, back, dryRun, exclude } = options;
  const through = await throughView(target, options.there);
  const here: Side = { target: null, dir: options.here };
  const there: Side = { target, dir: through };
  const [from, to] = back ? [there, here] : [here, there];
  const memory = recall(options);
  const agreed = new Map<PathString, Agreed>(
    Object.entries(memory.names).map(([path, item]) => [
      path,
      back ? { from: item.there, to: item.here } : { from: item.here, to: item.there },
    ]),
  );
  if (!back && !dryRun)
    await runAt({ target, dir: '/' }, `make ${through}`, `mkdir -p ${shellWord(through)}`);
  const [ours, theirs] = await Promise.all([list(from, exclude), list(to, exclude, dryRun)]);
  const first = planSync(ours, theirs, agreed, options);
  const equal = await sameContent(first.conflicts, ours, theirs, from, to);
  const plan = equal.size === 0 ? first : planSync(ours, theirs, agreed, options, equal);
  const result = { ...plan, back, dryRun, through };
  if (dryRun) return { ...result, done: false };
  if (plan.conflicts.length > 0 && !options.force) return { ...result, done: false };
  // A file where a directory was, or the other way round: what stands in the way goes with what is sent.
  if (plan.send.length > 0) await transfer(plan.send, from, to);
  if (plan.remove.length > 0) await removeAt(to, plan.remove);
  await remember(options, here, there, memory, equal);
  return { ...result, done: true };
}

/** The view's mount point over there when the folder is the one that its units show, and it is mounted; else the folder. */
async function throughView(target: SshTarget, dir: string): Promise<string> {
  const script = [
    '[ -r /etc/gate/gate.env ] && . /etc/gate/gate.env',
    `[ "$GATE_REPO" = ${shellWord(dir)} ]`,
    'grep -q " $GATE_MOUNT .* - fuse.gate " /proc/self/mountinfo',
    'printf %s "$GATE_MOUNT"',
  ].join(' && ');
  const found = await runAt({ target, dir: '/' }, `reach ${showTarget(target)}`, `{ ${script}; } || :`);
  return found.toString('utf8') || dir;
}

/** Of conflicts, those whose content is the same on both sides: only their times or modes differ. */
async function sameContent(
  paths: readonly PathString[],
  ours: Listing,
  theirs: Listing,
  from: Side,
  to: Side,
): Promise<Set<PathString>> {
  const files = paths.filter((path) => {
    const [a, b] = [ours.get(path), theirs.get(path)];
    return a?.type === 'f' && b?.type === 'f' && a.size === b.size && a.mode === b.mode;
  });
  const asked = files.slice(0, COMPARED_MAX);
  if (asked.length === 0) return new Set();
  const [a, b] = await Promise.all([hashes(from, asked), hashes(to, asked)]);
  return new Set(asked.filter((_, i) => a[i] !== undefined && a[i] === b[i]));
}

async function hashes(side: Side, paths: readonly PathString[]): Promise<string[]> {
  // A name could look like an option, or have a newline in it: -z, and ./ before it.
  const out = await runAt(side, `compare files in ${side.dir}`, 'xargs -0 -r sha256sum -z --', packed(paths));
  return out
    .toString('latin1')
    .split('\0')
    .map((line) => line.slice(0, 64));
}

/** Names as xargs(1) and rsync(1) take them. */
function packed(paths: readonly PathString[]): Buffer {
  return Buffer.concat(paths.flatMap((path) => [Buffer.from('./'), encodePath(path), Buffer.of(0)]));
}

function placeOf(side: Side): string {
  if (side.target === null) return `${side.dir}/`;
  const host = side.target.host.includes(':') ? `[${side.target.host}]` : side.target.host;
  return `${host}:${side.dir}/`;
}

async function transfer(paths: readonly PathString[], from: Side, to: Side): Promise<void> {
  const target = (from.target ?? to.target)!;
  const shell = ['ssh', ...sshOptions(target)].map(shellWord).join(' ');
  // Neither owners nor groups: who receives has their own. --force: a directory that is not empty gives way to a file.
  const args = ['-lpt', '--dirs', '--force', '--protect-args', '--files-from=-', '--from0', '--timeout=600'];
  const child = spawn('rsync', [...args, '-e', shell, placeOf(from), placeOf(to)], {
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk));
  child.stdin.on('error', () => {});
  child.stdin.end(packed(paths));
  const status = await new Promise<number | string>((done) => {
    child.once('error', (error) => done(error.message));
    child.once('close', (code, signal) => done(code ?? signal ?? 'gone'));
  });
  // 24: some files vanished before they were sent.
  if (status !== 0 && status !== 24)
    throw new CliError(`rsync failed (${status})`, {
      detail: said.split('\n').filter(Boolean).slice(-10),
      hint: 'What was sent is whole; run it again for the rest.',
    });
}

async function removeAt(side: Side, paths: readonly PathString[]): Promise<void> {
  // Files as well as empty directories; one in which something came meanwhile stays, and is told.
  await runAt(side, `remove files in ${side.dir}`, 'xargs -0 -r rm -d -f --', packed(paths));
}

function memoryFile({ stateDir, here, target, there }: SyncOptions): string {
  const { user, host, port } = target;
  const key = createHash('sha256')
    .update(JSON.stringify([here, user, host, port, there]))
    .digest('hex');
  return join(stateDir, 'sync', `${key.slice(0, 32)}.json`);
}

function recall(options: SyncOptions): Memory {
  try {
    return JSON.parse(readFileSync(memoryFile(options), 'utf8')) as Memory;
  } catch {
    return { names: {} };
  }
}

/** What both sides agree on now; of other names, what they agreed on before. */
async function remember(
  options: SyncOptions,
  here: Side,
  there: Side,
  before: Memory,
  equal: ReadonlySet<PathString>,
): Promise<void> {
  const [ours, theirs] = await Promise.all([list(here, options.exclude), list(there, options.exclude)]);
  // No prototype: a file may be called __proto__.
  const names: Record<PathString, { here: Item; there: Item }> = Object.create(null);
  for (const path of new Set([...ours.keys(), ...theirs.keys()])) {
    const [a, b] = [ours.get(path), theirs.get(path)];
    const old = Object.hasOwn(before.names, path) ? before.names[path] : undefined;
    if (a !== undefined && b !== undefined && (same(a, b) || equal.has(path)))
      names[path] = { here: a, there: b };
    else if (old !== undefined) names[path] = old;
  }
  const file = memoryFile(options);
  writeFileAtomic(file, JSON.stringify({ names }));
}
