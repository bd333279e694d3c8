/** Ways to the server's socket: on this machine, or through OpenSSH. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../base/clock.ts';
import { GateError } from '../base/errors.ts';
import { type SshTarget, shellWord, showTarget, sshArguments } from '../ssh/index.ts';
import * as sys from '../sys/index.ts';

/** Gives connected sockets, one at a time. */
export interface Transport {
  /** For people. */
  readonly name: string;
  /** A connected, non-blocking socket. Ends the one before. Throws GateError. */
  connect(): Promise<number>;
  /** What the connection's own program said last, for a message. */
  said(): string;
  close(): void;
}

/** The server's socket on this machine. */
export class SocketTransport implements Transport {
  readonly name: string;

  constructor(path: string) {
    this.name = path;
  }

  async connect(): Promise<number> {
    const fd = sys.connectUnix(this.name);
    if (fd < 0)
      throw new GateError('unavailable', `nobody serves a view at ${this.name}: ${sys.errnoName(fd)}`);
    return fd;
  }

  said(): string {
    return '';
  }

  close(): void {}
}

const CONNECT_MS = 40_000;

/**
 * Through ssh. Without `command` the server's socket is forwarded (`ssh -L`), so that nothing of ours need run over there but the
 * view; with it that command's standard input and output are the connection (`gate serve`).
 */
export class SshTransport implements Transport {
  readonly name: string;
  readonly #target: SshTarget;
  readonly #socket: string;
  readonly #command: string | null;
  readonly #dir: string;
  #child: ChildProcess | null = null;
  #said = '';
  #next = 1;

  constructor(target: SshTarget, socket: string, command: string | null) {
    this.name = showTarget(target);
    this.#target = target;
    this.#socket = socket;
    this.#command = command;
    this.#dir = mkdtempSync(join(tmpdir(), 'gate-ssh-'));
  }

  async connect(): Promise<number> {
    this.#stop();
    return this.#command === null ? this.#forwarded() : this.#piped(this.#command);
  }

  async #forwarded(): Promise<number> {
    const local = join(this.#dir, `${this.#next++}`);
    const more = ['-N', '-T', '-o', 'ExitOnForwardFailure=yes', '-L', `${local}:${this.#socket}`];
    const child = this.#start(sshArguments(this.#target, undefined, more), 'ignore');
    const fd = await until(() => {
      const got = sys.connectUnix(local);
      return got >= 0
        ? { got }
        : child.exitCode !== null || child.signalCode !== null
          ? { got: -1 }
          : undefined;
    }, CONNECT_MS);
    if (fd === undefined || fd.got < 0) throw this.#failure();
    return fd.got;
  }

  async #piped(command: string): Promise<number> {
    const pair = sys.socketpair(sys.AF_UNIX, sys.SOCK_STREAM | sys.SOCK_CLOEXEC);
    if (typeof pair === 'number') throw new GateError('internal', `no socket pair: ${sys.errnoName(pair)}`);
    const [ours, theirs] = pair;
    this.#start(sshArguments(this.#target, command, ['-T']), theirs);
    sys.close(theirs);
    sys.fcntl(ours, sys.F_SETFL, sys.fcntl(ours, sys.F_GETFL) | sys.O_NONBLOCK);
    return ours;
  }

  #start(args: string[], stdio: 'ignore' | number): ChildProcess {
    this.#said = '';
    // In a process group of its own: Ctrl-C at the terminal is for the mount, which then says good-bye.
    const child = spawn('ssh', args, { stdio: [stdio, stdio, 'pipe'], detached: true });
    child.stderr!.on('data', (text: Buffer) => {
      this.#said = (this.#said + text.toString('utf8')).slice(-2000);
    });
    child.on('error', (error) => {
      this.#said += error.message;
    });
    this.#child = child;
    return child;
  }

  #failure(): GateError {
    const how = this.#command === null ? '' : ` (${shellWord(this.#command)})`;
    return new GateError(
      'unavailable',
      `${this.name} cannot be reached by ssh${how}: ${this.said() || 'no answer'}`,
    );
  }

  said(): string {
    return this.#said.trim().split('\n').at(-1) ?? '';
  }

  #stop(): void {
    this.#child?.kill('SIGTERM');
    this.#child = null;
  }

  close(): void {
    this.#stop();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
