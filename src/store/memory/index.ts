/**
 * A store that forgets everything with its process, for tests and simulations. Its rows are kept as JSON, so that
 * a row which JSON cannot carry, or which is changed after its commit, is found here and not in production.
 */
import { GateError } from '../../base/errors.ts';
import { LIMITS } from '../../base/limits.ts';
import { RowBatch, TABLE_NAMES } from '../batch.ts';
import type { Batch, Store, StoredEvent, TableName, Tables } from '../types.ts';

/** What would be the disk: open it again to see what a restarted broker sees. */
export class MemoryDisk {
  head = 0;
  readonly tables: Record<TableName, Map<string, string>> = {
    hold: new Map(),
    waiter: new Map(),
    session: new Map(),
    volume: new Map(),
    unclean: new Map(),
    meta: new Map(),
  };
  readonly chunks: { lastSeq: number; body: string }[] = [];
}

export class MemoryStore implements Store {
  readonly #disk: MemoryDisk;
  readonly #historyEvents: number;
  #head: number;

  constructor(disk = new MemoryDisk(), historyEvents: number = LIMITS.historyEvents) {
    this.#disk = disk;
    this.#historyEvents = historyEvents;
    this.#head = disk.head;
  }

  get head(): number {
    return this.#head;
  }

  batch(): Batch {
    return new RowBatch();
  }

  commit(batch: Batch): undefined {
    const changes = batch as RowBatch;
    if (changes.empty) return;
    if (this.#disk.head !== this.#head)
      throw new GateError('unavailable', 'Another broker has written to this store.');
    for (const table of TABLE_NAMES)
      for (const [key, change] of changes.changes[table])
        if (change.row === undefined) this.#disk.tables[table].delete(key);
        else this.#disk.tables[table].set(key, JSON.stringify(change.row));
    const lastSeq = changes.events.at(-1)?.seq;
    if (lastSeq !== undefined) {
      const chunks = this.#disk.chunks;
      chunks.push({ lastSeq, body: JSON.stringify(changes.events) });
      while (chunks.length > 0 && chunks[0]!.lastSeq <= lastSeq - this.#historyEvents) chunks.shift();
    }
    this.#head = ++this.#disk.head;
  }

  *rows<T extends TableName>(table: T): Iterable<readonly [string, Tables[T]]> {
    for (const [key, body] of this.#disk.tables[table]) yield [key, JSON.parse(body) as Tables[T]];
  }

  *events(needle?: string): Iterable<StoredEvent> {
    for (const { body } of this.#disk.chunks.toReversed())
      if (needle === undefined || body.includes(needle)) yield* (JSON.parse(body) as StoredEvent[]).reverse();
  }

  close(): void {}
}
