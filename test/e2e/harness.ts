/**
 * A real broker and a real mount for one test, and processes that work in it. Everything is cleaned up when the test ends,
 * whatever happened: processes by pid, the mount (lazily as the last resort), the folders.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { delay, until } from '../../src/base/clock.ts';
import { connect, type GateSession } from '../../src/client/index.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const ACTOR = fileURLToPath(new URL('./actor.ts', import.meta.url));
/** How long anything may take that is not the subject of the test. */
export const PATIENCE_MS = 20_000;

/** The environment of every process of a test: no actor and no agent of whoever runs the tests. */
export function cleanEnv(extra: Record<string, string> = {}): Record<string, string> {
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env))
    if (value !== undefined && !name.startsWith('GATE_')) env[name] = value;
  return { ...env, GATE_AGENTS: '', ...extra };
}

export interface GateOptions {
  /** TEST_PASSTHROUGH=off: never, whatever a test says. */
  readonly passthrough?: boolean;
  readonly delegation?: boolean;
  /** Mounted over its own root, with names and attributes remembered for long. Also by GATE_TEST_IN_PLACE=1, for all. */
  readonly inPlace?: boolean;
  /** Serves remote mounts, whose sessions outlive their connections for so long. */
  readonly serve?: { readonly ttlMs: number };
  /** The root is an ext4 of its own, of so many MiB. */
  readonly disk?: number;
  /** Where the state directory is made. */
  readonly stateDir?: string;
  readonly mountFlags?: readonly string[];
  readonly brokerFlags?: readonly string[];
}

export class Gate {
  readonly dir: string;
  readonly root: string;
  readonly mount: string;
  readonly state: string;
  readonly socket: string;
  readonly #test: TestContext;
  readonly #options: GateOptions;
  readonly #inPlace: boolean;
  readonly #children = new Set<ChildProcess>();
  #second: { at: string; child: ChildProcess } | undefined;
  /** Remote mounts, by their mount points. */
  readonly remotes = new Map<string, ChildProcess>();
  broker!: ChildProcess;
  mounter!: ChildProcess;
  sftp: ChildProcess | undefined;
  volume = '';
  session!: GateSession;

  constructor(test: TestContext, options: GateOptions) {
    this.#test = test;
    this.#options = options;
    // Not under /tmp where that is a tmpfs: the disk below should be a disk.
    this.dir = mkdtempSync('/var/tmp/gate-e2e-');
    this.root = join(this.dir, 'root');
    this.#inPlace = options.inPlace ?? process.env.GATE_TEST_IN_PLACE === '1';
    this.mount = this.#inPlace ? this.root : join(this.dir, 'mnt');
    this.state = options.stateDir ?? join(this.dir, 'state');
    this.socket = join(this.state, 'broker.sock');
    for (const path of new Set([this.root, this.mount, this.state])) mkdirSync(path);
    if (options.disk !== undefined) mountDisk(join(this.dir, 'disk'), this.root, options.disk);
  }

  async start(): Promise<this> {
    this.#test.after(() => this.stop());
    await this.startBroker();
    await this.startMount();
    await this.connect();
    return this;
  }

  /** A session of the test's own, in place of one that was lost. */
  async connect(): Promise<void> {
    this.session = await connect({ socket: this.socket, kind: 'test' });
  }

  async startBroker(): Promise<void> {
    const flags = ['broker', '--state-dir', this.state, '--port', '0', ...(this.#options.brokerFlags ?? [])];
    this.broker = (await this.#service(flags)).child;
  }

  async startMount(): Promise<void> {
    const place = this.#inPlace ? ['--in-place', '--attr-valid-ms', '3600000'] : ['--mount', this.mount];
    const flags = ['mount', '--root', this.root, ...place, '--state-dir', this.state];
    if (this.#options.passthrough === false || process.env.TEST_PASSTHROUGH === 'off')
      flags.push('--passthrough', 'off');
    if (this.#options.delegation === false) flags.push('--delegation', 'off');
    if (this.#options.serve)
      flags.push('--serve', this.serveSocket, '--remote-ttl-ms', `${this.#options.serve.ttlMs}`);
    const { child, ready } = await this.#service([...flags, ...(this.#options.mountFlags ?? [])]);
    this.mounter = child;
    this.volume = ready.volume as string;
  }

  /** Mounts the same root once more; the mount point. */
  async secondMount(): Promise<string> {
    const at = join(this.dir, 'mnt2');
    mkdirSync(at);
    const flags = ['mount', '--root', this.root, '--mount', at, '--state-dir', this.state];
    const { child } = await this.#service(flags);
    this.#second = { at, child };
    return at;
  }

  /** Serves the same root over SFTP; the socket. */
  async startSftp(flags: readonly string[] = []): Promise<string> {
    const listen = join(this.state, 'sftp.sock');
    const args = ['sftp', '--root', this.root, '--state-dir', this.state, '--listen', listen, ...flags];
    this.sftp = (await this.#service(args)).child;
    return listen;
  }

  /**
   * Mounts the view once more, as another machine would, at the folder `name`; the mount point. `address`: unix:FILE or ssh://…; the view
   * itself must have the option `serve`.
   */
  async remoteMount(
    address = `unix:${this.serveSocket}`,
    flags: readonly string[] = [],
    name = 'remote',
  ): Promise<string> {
    const at = join(this.dir, name);
    mkdirSync(at, { recursive: true });
    const { child } = await this.#service(['mount', '--remote', address, '--mount', at, ...flags]);
    this.remotes.set(at, child);
    return at;
  }

  get serveSocket(): string {
    return join(this.state, 'view.sock');
  }

  /** Runs the command line of Gate. */
  gate(args: readonly string[], options: { cwd?: string; env?: Record<string, string> } = {}): Running {
    const env = { GATE_STATE_DIR: this.state, ...options.env };
    return this.run(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], {
      ...options,
      env,
    });
  }

  /** Starts a command that tells on a descriptor when it is ready. */
  async #service(args: string[]): Promise<{ child: ChildProcess; ready: Record<string, unknown> }> {
    const child = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', MAIN, ...args, '--ready-fd', '3'],
      {
        env: cleanEnv(),
        stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      },
    );
    this.#children.add(child);
    let log = '';
    child.stdout!.on('data', (text) => (log += text));
    child.stderr!.on('data', (text) => {
      log += text;
      if (process.env.GATE_TEST_LOG) process.stderr.write(text);
    });
    let text = '';
    (child.stdio[3] as NodeJS.ReadableStream).on('data', (part) => (text += part));
    const line = await until(
      () => (text.includes('\n') ? text : child.exitCode !== null ? 'exited' : undefined),
      PATIENCE_MS,
    );
    if (line === undefined || line === 'exited')
      throw new Error(`gate ${args[0]} did not become ready:\n${log}`);
    return { child, ready: JSON.parse(line) as Record<string, unknown> };
  }

  /** A process that works on command. `name`: its GATE_ACTOR. */
  async actor(
    name?: string,
    options: { cwd?: string; env?: Record<string, string>; uid?: number } = {},
  ): Promise<Actor> {
    const env = cleanEnv({ ...options.env, ...(name === undefined ? {} : { GATE_ACTOR: name }) });
    const ids = options.uid === undefined ? {} : { uid: options.uid, gid: options.uid };
    const child = spawn(process.execPath, [ACTOR], {
      env,
      cwd: options.cwd ?? this.mount,
      stdio: ['pipe', 'pipe', 'inherit'],
      ...ids,
    });
    this.#children.add(child);
    const actor = new Actor(child);
    await actor.ready;
    return actor;
  }

  /** Any program; its output when it ends. */
  run(
    command: string,
    args: readonly string[] = [],
    options: { cwd?: string; env?: Record<string, string> } = {},
  ): Running {
    const child = spawn(command, args, {
      cwd: options.cwd ?? this.mount,
      env: cleanEnv(options.env),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#children.add(child);
    return new Running(child);
  }

  sh(script: string, options: { cwd?: string; env?: Record<string, string> } = {}): Running {
    return this.run('bash', ['-c', script], options);
  }

  path(name: string): string {
    return join(this.mount, name);
  }

  /** How many requests wait for a path (of the volume). */
  async waiting(path: string): Promise<number> {
    return (await this.session.status(path, this.volume)).queue.length;
  }

  async isHeld(path: string): Promise<boolean> {
    return (await this.session.status(path, this.volume)).holds.length > 0;
  }

  /** Resolves when exactly `count` requests wait for a path. */
  async queued(path: string, count: number): Promise<void> {
    const there = await until(async () => (await this.waiting(path)) === count, PATIENCE_MS);
    if (there === undefined) throw new Error(`${await this.waiting(path)} wait for ${path}, not ${count}`);
  }

  /** Resolves when nobody holds or waits for anything in the volume. */
  async idle(): Promise<void> {
    const there = await until(async () => {
      const status = await this.session.status('', this.volume);
      return status.holds.length === 0 && status.queue.length === 0;
    }, PATIENCE_MS);
    if (there === undefined)
      throw new Error(`left over: ${JSON.stringify(await this.session.status('', this.volume))}`);
  }

  async stop(): Promise<void> {
    await this.session?.close().catch(() => {});
    for (const child of this.#children)
      if (child !== this.mounter && child !== this.broker && ![...this.remotes.values()].includes(child))
        child.kill('SIGKILL');
    for (const [at, child] of this.remotes) await endMount(at, child);
    if (this.#second) await endMount(this.#second.at, this.#second.child);
    if (this.mounter) await endMount(this.mount, this.mounter);
    this.broker?.kill('SIGTERM');
    await until(() => this.broker === undefined || ended(this.broker), 5000);
    this.broker?.kill('SIGKILL');
    if (this.#options.disk !== undefined) spawnSync('umount', ['-l', this.root]);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function mountDisk(image: string, at: string, sizeMib: number): void {
  const script =
    'truncate -s "$2M" "$1" && mkfs.ext4 -q -m 0 -O ^has_journal "$1" && mount -o loop "$1" "$3" && rmdir "$3/lost+found"';
  const made = spawnSync('sh', ['-c', script, 'sh', image, String(sizeMib), at], { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(`no disk for the test: ${made.stderr}`);
}

async function endMount(at: string, child: ChildProcess): Promise<void> {
  child.kill('SIGTERM');
  await until(() => ended(child), 5000);
  for (let i = 0; i < 5 && isMounted(at); i++) spawnSync('umount', ['-l', at]);
  child.kill('SIGKILL');
}

export function ended(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

export function isMounted(path: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${path} `);
}

export async function startGate(test: TestContext, options: GateOptions = {}): Promise<Gate> {
  return new Gate(test, options).start();
}

/** A program on its way. */
export class Running {
  readonly child: ChildProcess;
  readonly done: Promise<{ status: number | null; signal: string | null; out: string; err: string }>;
  over = false;

  constructor(child: ChildProcess) {
    this.child = child;
    let out = '';
    let err = '';
    child.stdout!.on('data', (text) => (out += text));
    child.stderr!.on('data', (text) => (err += text));
    this.done = new Promise((resolve) =>
      child.on('close', (status, signal) => {
        this.over = true;
        resolve({ status, signal, out, err });
      }),
    );
  }
}

/** An operation on its way. Await it for its result; an errno is thrown as an Error with that message. */
export interface Operation extends Promise<unknown> {
  readonly over: () => boolean;
}

export class Actor {
  readonly child: ChildProcess;
  readonly ready: Promise<void>;
  readonly #answers = new Map<number, (answer: { ok?: unknown; error?: string }) => void>();
  #next = 1;

  constructor(child: ChildProcess) {
    this.child = child;
    this.ready = new Promise((done) => this.#answers.set(0, () => done()));
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const answer = JSON.parse(line) as { id: number; ok?: unknown; error?: string };
      this.#answers.get(answer.id)?.(answer);
      this.#answers.delete(answer.id);
    });
    child.on('exit', () => {
      for (const answer of this.#answers.values()) answer({ error: 'the actor ended' });
    });
  }

  get pid(): number {
    return this.child.pid!;
  }

  do(op: string, ...args: unknown[]): Operation {
    const id = this.#next++;
    let over = false;
    const result = new Promise<unknown>((resolve, reject) => {
      this.#answers.set(id, (answer) => {
        over = true;
        if (answer.error === undefined) resolve(answer.ok);
        else reject(new Error(answer.error));
      });
    });
    result.catch(() => {}); // looked at by whoever awaits it
    this.child.stdin!.write(`${JSON.stringify({ id, op, args })}\n`);
    return Object.assign(result, { over: () => over });
  }

  open(path: string, flags = 'RDONLY'): Operation {
    return this.do('open', path, flags);
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }
}

/** Gives everything that could wrongly go on the time to do so. Used only to show that something does not happen. */
export function settle(): Promise<void> {
  return delay(150);
}
