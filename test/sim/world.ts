/** What all actors of a play share: the machine room, the checker, the tree of files, and what is still to be answered. */
import type { Target } from '../../src/lock/types.ts';
import { BrokerHost, type BrokerTimes } from './broker-host.ts';
import { Checker, type Handle, type Inode } from './checker.ts';
import { Disk } from './disk.ts';
import { type Chance, Kernel, type Process } from './kernel.ts';
import { Network, type Observer } from './network.ts';

/** Few names, so that everybody meets. */
export const FILES = ['a', 'b', 'd/x', 'd/y', 'e/x'] as const;
const TREES = ['d', 'e', 'd', 'e', ''] as const;

/** Until when a client may act, by its own clock, as far as can be seen on its wire. */
export class Authority implements Observer {
  readonly #process: Process;
  readonly #ttlMs: number;
  readonly #sent = new Map<number, number>();
  #endsBootMs = Number.NEGATIVE_INFINITY;
  /** Grows with each new session. */
  generation = 0;

  constructor(process: Process, ttlMs: number) {
    this.#process = process;
    this.#ttlMs = ttlMs;
  }

  sent(messages: readonly { op: string; id: number; resume?: boolean }[]): void {
    for (const { op, id, resume } of messages) {
      if (op === 'hello' && resume === false) {
        this.generation++;
        this.#endsBootMs = Number.NEGATIVE_INFINITY;
        this.#sent.clear();
      }
      if (op === 'hello' || op === 'renew') this.#sent.set(id, this.#process.bootMs());
    }
  }

  received(messages: readonly { id?: number; ok?: unknown }[]): void {
    for (const { id, ok } of messages) {
      const sentMs = id === undefined ? undefined : this.#sent.get(id);
      if (sentMs === undefined) continue;
      this.#sent.delete(id!);
      // A session that is over by its own clock is not taken up again.
      if (this.#endsBootMs > Number.NEGATIVE_INFINITY && !this.lives) continue;
      if (ok !== undefined) this.#endsBootMs = Math.max(this.#endsBootMs, sentMs + this.#ttlMs);
    }
  }

  get lives(): boolean {
    return this.#process.alive && this.#process.bootMs() < this.#endsBootMs;
  }

  /** For a lock of the session of now. */
  mayAct(): () => boolean {
    const { generation } = this;
    return () => this.generation === generation && this.lives;
  }
}

export class World {
  readonly kernel: Kernel;
  readonly chance: Chance;
  readonly network: Network;
  readonly disk: Disk;
  readonly broker: BrokerHost;
  readonly checker: Checker;
  readonly times: BrokerTimes;
  /** Questions without an answer, by whom. */
  readonly pending = new Map<object, { readonly process: Process; readonly what: string }>();
  readonly processes = new Set<Process>();
  volume: string | null = null;
  /** No new business. */
  closing = false;
  /** How much rarer programs beside the views ask than they otherwise would. */
  pace = 1;
  readonly #files = new Map<string, Inode>();
  #nextInode = 1;
  /** What an actor's own code threw. */
  failure: Error | null = null;
  readonly counts = {
    refused: {} as Record<string, number>,
    sessionsLost: 0,
    moves: 0,
    breaks: 0,
    faults: 0,
  };

  constructor(seed: number, times: BrokerTimes) {
    this.times = times;
    this.kernel = new Kernel(seed);
    this.chance = this.kernel.chance;
    this.network = new Network(this.kernel);
    this.disk = new Disk(this.kernel);
    this.checker = new Checker(this.kernel);
    this.broker = new BrokerHost(this.kernel, this.network, this.disk, times);
    this.broker.onFailure = (error) => this.fail(error);
    this.disk.onWritten = (changes, told) => this.checker.written(changes, told);
    this.disk.onLost = () => this.checker.lost(this.disk.rows('hold'), this.disk.rows('waiter'));
    for (const path of FILES) if (this.chance.oneIn(2)) this.create(path);
  }

  fail(error: Error): void {
    this.failure ??= error;
  }

  refused(code: string): void {
    this.counts.refused[code] = (this.counts.refused[code] ?? 0) + 1;
  }

  /** Something asked for that must be answered one day, unless the asker dies. */
  asked(process: Process, what: string): object {
    const token = {};
    this.pending.set(token, { process, what });
    return token;
  }

  answered(token: object): void {
    this.pending.delete(token);
  }

  kill(process: Process): void {
    process.kill();
    this.processes.delete(process);
    this.network.processDied(process);
    for (const [token, { process: asker }] of this.pending) if (asker === process) this.pending.delete(token);
    for (const handle of [...this.checker.live]) if (!handle.mayAct()) this.checker.ends(handle);
  }

  // ------------------------------------------------------------ files

  inodeAt(path: string): Inode | null {
    return this.#files.get(path) ?? null;
  }

  create(path: string): Inode {
    const inode: Inode = { id: this.#nextInode++, path };
    this.#files.set(path, inode);
    return inode;
  }

  rename(from: string, to: string): readonly Inode[] {
    const inode = this.#files.get(from);
    if (inode === undefined || from === to) return [];
    this.unlink(to);
    this.#files.delete(from);
    this.#files.set(to, inode);
    inode.path = to;
    return [inode];
  }

  renameTree(from: string, to: string): readonly Inode[] {
    const moved: Inode[] = [];
    for (const path of [...this.#files.keys()]) if (path.startsWith(`${to}/`)) this.unlink(path);
    for (const path of [...this.#files.keys()])
      if (path.startsWith(`${from}/`)) moved.push(...this.rename(path, `${to}${path.slice(from.length)}`));
    return moved;
  }

  exchange(a: string, b: string): readonly Inode[] {
    const x = this.#files.get(a);
    const y = this.#files.get(b);
    if (x === undefined || y === undefined || a === b) return [];
    this.#files.set(a, y);
    this.#files.set(b, x);
    x.path = b;
    y.path = a;
    return [x, y];
  }

  unlink(path: string): void {
    const inode = this.#files.get(path);
    if (inode === undefined) return;
    inode.path = null;
    this.#files.delete(path);
  }

  // ------------------------------------------------------------ choices

  targets(): Target[] {
    const { chance } = this;
    const mode = chance.pick(['read', 'read', 'write', 'write', 'replace'] as const);
    if (chance.oneIn(8)) return [{ path: chance.pick(TREES), mode, scope: 'tree' }];
    const targets: Target[] = [{ path: chance.pick(FILES), mode, scope: 'file' }];
    if (chance.oneIn(4)) {
      const path = chance.pick(FILES);
      if (path !== targets[0]!.path) targets.push({ path, mode: chance.pick(['read', mode]), scope: 'file' });
    }
    return targets;
  }

  waitMs(): number | null {
    return this.chance.pick([null, null, null, null, 0, this.chance.between(1, 400)]);
  }

  handle(handle: Omit<Handle, 'over' | 'volume'>): Handle {
    return { ...handle, volume: this.volume!, over: false };
  }
}
