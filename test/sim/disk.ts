/**
 * The simulated disk, as a store: what was committed is there after a crash of the broker, what was synced also after a
 * loss of power. It may be slow, and it may fail: then nobody knows whether the batch was written.
 */
import { GateError } from '../../src/base/errors.ts';
import type { GateEvent } from '../../src/broker/wire.ts';
import { type RowBatch, TABLE_NAMES } from '../../src/store/batch.ts';
import { MemoryDisk, MemoryStore } from '../../src/store/memory/index.ts';
import {
  type Batch,
  NoRoom,
  type Store,
  type StoredEvent,
  type TableName,
  type Tables,
} from '../../src/store/types.ts';
import type { Kernel } from './kernel.ts';

export interface Written {
  readonly table: TableName;
  readonly key: string;
  /** undefined: deleted. As JSON would bring it back. */
  readonly row: unknown;
}

/** History is not what is tested here. */
const EVENTS_KEPT = 200;

export class Disk {
  readonly kernel: Kernel;
  #disk = new MemoryDisk();
  /** What each commit since the last sync would have to be undone to. */
  #unsynced: { head: number; before: Written[] }[] = [];
  /** Every commit is flushed (durability `power`). */
  alwaysSynced = true;
  /** No room: nothing is written. */
  full = false;
  slowOneIn = 0;
  failOneIn = 0;
  commits = 0;
  onWritten: (changes: readonly Written[], told: Told) => void = () => {};
  /** Rows went back: power was lost, or a backup was restored. */
  onLost: () => void = () => {};

  constructor(kernel: Kernel) {
    this.kernel = kernel;
  }

  open(): SimStore {
    return new SimStore(this, new MemoryStore(this.#disk, EVENTS_KEPT));
  }

  write(store: MemoryStore, batch: Batch, synced: boolean): void {
    const changes: Written[] = [];
    const before: Written[] = [];
    for (const table of TABLE_NAMES)
      for (const [key, change] of (batch as RowBatch).changes[table]) {
        const old = this.#disk.tables[table].get(key);
        before.push({ table, key, row: old });
        const row = change.row === undefined ? undefined : JSON.parse(JSON.stringify(change.row));
        changes.push({ table, key, row });
      }
    const head = this.#disk.head;
    store.commit(batch);
    this.commits++;
    this.#unsynced.push({ head, before });
    if (synced || this.alwaysSynced) this.#unsynced = [];
    this.onWritten(changes, toldOf(batch as RowBatch));
  }

  /** Some of the last commits that were not synced are gone. */
  losePower(): boolean {
    const lost = this.kernel.chance.below(this.#unsynced.length + 1);
    for (let i = 0; i < lost; i++) {
      const { head, before } = this.#unsynced.pop()!;
      for (const { table, key, row } of before.reverse())
        if (row === undefined) this.#disk.tables[table].delete(key);
        else this.#disk.tables[table].set(key, row as string);
      this.#disk.head = head;
    }
    this.#unsynced = [];
    if (lost > 0) this.onLost();
    return lost > 0;
  }

  rows<T extends TableName>(table: T): [string, Tables[T]][] {
    return [...new MemoryStore(this.#disk).rows(table)] as [string, Tables[T]][];
  }
}

/** What a commit's events tell of its locks, by id. */
export interface Told {
  /** Its targets changed, after it was granted should that be in this commit too. */
  readonly moved: ReadonlySet<string>;
  /** Granted to a request that came in this turn. */
  readonly fresh: ReadonlySet<string>;
}

const MOVES = new Set(['moved', 'detached', 'attached', 'linked']);

function toldOf({ events }: RowBatch): Told {
  const moved = new Set<string>();
  const fresh = new Set<string>();
  const gaveUp = new Set<string>();
  for (const event of events as unknown as readonly GateEvent[]) {
    const { type, lockId, waitedMs, session, requestId } = event;
    const request = `${session} ${requestId}`;
    if (type === 'refused') gaveUp.add(request);
    if (lockId === undefined) continue;
    if (MOVES.has(type)) moved.add(lockId);
    // Asked for anew under the same id it may have waited for a part of the turn.
    else if (type === 'granted' && (waitedMs === undefined || gaveUp.has(request))) fresh.add(lockId);
  }
  return { moved, fresh };
}

export class SimStore implements Store {
  readonly #disk: Disk;
  readonly #store: MemoryStore;
  #dead = false;
  /** A commit under way. */
  #pending: (() => void) | null = null;

  constructor(disk: Disk, store: MemoryStore) {
    this.#disk = disk;
    this.#store = store;
  }

  get head(): number {
    return this.#store.head;
  }

  batch(): Batch {
    return this.#store.batch();
  }

  commit(batch: Batch, options?: { readonly synced?: boolean }): Promise<void> | undefined {
    if (this.#dead) throw new GateError('internal', 'The broker is dead.');
    const { chance } = this.#disk.kernel;
    if (this.#pending) throw new Error('a commit began before the one before it had ended');
    const write = () => this.#disk.write(this.#store, batch, options?.synced ?? false);
    const fails = this.#disk.failOneIn > 0 && chance.oneIn(this.#disk.failOneIn);
    const slow = this.#disk.slowOneIn > 0 && chance.oneIn(this.#disk.slowOneIn);
    const refuse = () => {
      if (chance.oneIn(2)) write();
      return new GateError('internal', 'The disk refuses.');
    };
    if (this.#disk.full) throw new NoRoom('the simulated disk');
    if (!slow) {
      if (fails) throw refuse();
      write();
      return undefined;
    }
    return new Promise((resolve, reject) => {
      this.#pending = write;
      this.#disk.kernel.after(chance.delayMs(8, 400), () => {
        if (this.#dead) return;
        this.#pending = null;
        if (fails) return reject(refuse());
        write();
        resolve();
      });
    });
  }

  /** Its process is gone; what it was writing may be there or not. */
  die(): void {
    if (this.#dead) return;
    if (this.#pending && this.#disk.kernel.chance.oneIn(2)) this.#pending();
    this.#dead = true;
  }

  rows<T extends TableName>(table: T): Iterable<readonly [string, Tables[T]]> {
    return this.#store.rows(table);
  }

  events(needle?: string): Iterable<StoredEvent> {
    return this.#store.events(needle);
  }

  close(): void {
    this.#dead = true;
  }
}
