/**
 * A silent hang is the first reason to throw a tool away: after three seconds a waiter is told on its own terminal who is in
 * the way. Only when its stderr is a terminal in canonical mode, so that no full-screen program is written into.
 */
import { closeSync, constants, openSync, readlinkSync, writeSync } from 'node:fs';
import type { Clock, Timer } from '../base/clock.ts';
import type { GateSession } from '../client/index.ts';
import { ioctl, TCGETS } from '../sys/index.ts';

const AFTER_MS = 3000;
/** c_lflag is the fourth word of struct termios (asm-generic/termbits.h); ICANON is 2. */
const LFLAG = 12;
const ICANON = 2;

interface Waiting {
  readonly tid: number;
  readonly path: string;
  readonly mode: string;
  timer: Timer | null;
}

export class Announcer {
  readonly #clock: Clock;
  readonly #session: () => GateSession;
  readonly #volume: string;
  readonly #mountPoint: string;
  readonly #waiting = new Map<string, Waiting>();

  constructor(clock: Clock, session: () => GateSession, volume: string, mountPoint: string) {
    this.#clock = clock;
    this.#session = session;
    this.#volume = volume;
    this.#mountPoint = mountPoint;
  }

  asked(requestId: string, tid: number, path: string, mode: string): void {
    this.#waiting.set(requestId, { tid, path, mode, timer: null });
  }

  queued(requestId: string): void {
    const waiting = this.#waiting.get(requestId);
    if (waiting === undefined || waiting.tid === 0 || waiting.timer !== null) return;
    waiting.timer = this.#clock.after(AFTER_MS, () => void this.#announce(requestId, waiting));
  }

  ended(requestId: string): void {
    this.#waiting.get(requestId)?.timer?.cancel();
    this.#waiting.delete(requestId);
  }

  async #announce(requestId: string, waiting: Waiting): Promise<void> {
    const who = await this.#whoHolds(waiting.path).catch(() => 'somebody');
    if (!this.#waiting.has(requestId)) return;
    const path = `${this.#mountPoint}/${waiting.path}`;
    writeToTerminal(waiting.tid, `gate: waiting for ${path}: ${who}. Ctrl-C gives up; gate who ${path}\r\n`);
  }

  async #whoHolds(path: string): Promise<string> {
    const status = await this.#session().status(path, this.#volume);
    const hold = status.holds[0];
    if (hold === undefined) return `${status.queue.length} others came first`;
    const command = hold.who?.command ?? hold.owner;
    const pid = hold.who?.pid === undefined ? '' : ` (pid ${hold.who.pid})`;
    const mode = hold.targets.find((t) => t.path === path)?.mode ?? 'write';
    return `${command}${pid} has it open to ${mode} since ${new Date(hold.grantedAtMs).toTimeString().slice(0, 8)}`;
  }
}

/** Writes a line to the terminal that is the thread's stderr, if it is one in canonical mode. */
export function writeToTerminal(tid: number, line: string): boolean {
  let fd = -1;
  try {
    const path = `/proc/${tid}/fd/2`;
    if (!/^\/dev\/(?:pts\/|tty)/.test(readlinkSync(path))) return false;
    fd = openSync(path, constants.O_WRONLY | constants.O_NOCTTY | constants.O_NONBLOCK);
    const termios = Buffer.alloc(64);
    if (ioctl(fd, TCGETS, termios) < 0 || (termios.readUInt32LE(LFLAG) & ICANON) === 0) return false;
    writeSync(fd, line);
    return true;
  } catch {
    return false;
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}
