/**
 * The embedded store: one SQLite file in WAL mode, used by one process.
 *
 * A commit is one transaction. With `synchronous=NORMAL` it has reached the kernel when it returns, so it survives
 * any death of this process; a batch committed with `synced`, and every batch under durability `power`, is flushed to
 * the disk before (`synchronous=FULL`, https://www.sqlite.org/pragma.html#pragma_synchronous). Flushing one flushes
 * all before it: they lie in the same log.
 *
 * Does NOT protect from a disk that lies about flushing, nor from two machines on one network file system.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { GateError } from '../../base/errors.ts';
import { LIMITS } from '../../base/limits.ts';
import type { Hold } from '../../lock/types.ts';
import { RowBatch, TABLE_NAMES } from '../batch.ts';
import type { Batch, Store, StoredEvent, TableName, Tables } from '../types.ts';
import { type Intern, interner, packHold, unpackHold } from './pack.ts';
import { corrupt, type Durability, openDatabase, storeError } from './schema.ts';

export interface SqliteOptions {
  readonly path: string;
  readonly durability?: Durability;
  readonly historyEvents?: number;
}

/** Events between two prunings of the history. */
const PRUNE_EVERY_EVENTS = 1024;

interface Statements {
  readonly begin: StatementSync;
  readonly commit: StatementSync;
  readonly rollback: StatementSync;
  readonly head: StatementSync;
  readonly event: StatementSync;
  readonly prune: StatementSync;
  readonly put: Record<TableName, StatementSync>;
  readonly delete: Record<TableName, StatementSync>;
}

function prepare(db: DatabaseSync): Statements {
  const each = (sql: (table: TableName) => string) =>
    Object.fromEntries(TABLE_NAMES.map((table) => [table, db.prepare(sql(table))])) as Record<
      TableName,
      StatementSync
    >;
  return {
    begin: db.prepare('BEGIN IMMEDIATE'),
    commit: db.prepare('COMMIT'),
    rollback: db.prepare('ROLLBACK'),
    head: db.prepare('UPDATE head SET head = head + 1 WHERE head = ?'),
    event: db.prepare('INSERT INTO event VALUES (?, ?)'),
    prune: db.prepare('DELETE FROM event WHERE last_seq <= ?'),
    put: each(
      (table) => `INSERT INTO ${table} VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body`,
    ),
    delete: each((table) => `DELETE FROM ${table} WHERE key = ?`),
  };
}

export class SqliteStore implements Store {
  readonly #db: DatabaseSync;
  readonly #path: string;
  readonly #sql: Statements;
  readonly #alwaysSynced: boolean;
  readonly #historyEvents: number;
  #head: number;
  #unprunedEvents = PRUNE_EVERY_EVENTS;

  /** Throws GateError when the file is damaged, newer, or in use; it is then left as it is. */
  constructor(options: SqliteOptions) {
    this.#path = options.path;
    this.#alwaysSynced = options.durability === 'power';
    this.#historyEvents = options.historyEvents ?? LIMITS.historyEvents;
    this.#db = openDatabase(options.path, options.durability ?? 'process');
    try {
      this.#sql = prepare(this.#db);
      const row = this.#db.prepare('SELECT head FROM head').get() as { head: number } | undefined;
      if (!row) throw corrupt(this.#path, 'it has no head');
      this.#head = row.head;
    } catch (error) {
      this.#db.close();
      throw storeError(this.#path, error);
    }
  }

  get head(): number {
    return this.#head;
  }

  batch(): Batch {
    return new RowBatch();
  }

  commit(batch: Batch, options?: { readonly synced?: boolean }): undefined {
    if (batch.empty) return;
    const raise = options?.synced === true && !this.#alwaysSynced;
    try {
      if (raise) this.#db.exec('PRAGMA synchronous = FULL');
      this.#sql.begin.run();
      try {
        this.#write(batch as RowBatch);
        this.#sql.commit.run();
      } catch (error) {
        if (this.#db.isTransaction) this.#sql.rollback.run();
        throw error;
      }
    } catch (error) {
      throw storeError(this.#path, error);
    } finally {
      if (raise) this.#db.exec('PRAGMA synchronous = NORMAL');
    }
    this.#head++;
  }

  #write(batch: RowBatch): void {
    if (this.#sql.head.run(this.#head).changes !== 1)
      throw new GateError('unavailable', `Another broker has written to ${this.#path}.`);
    for (const table of TABLE_NAMES) {
      const put = this.#sql.put[table];
      const drop = this.#sql.delete[table];
      for (const [key, change] of batch.changes[table])
        if (change.row === undefined) drop.run(key);
        else put.run(key, JSON.stringify(table === 'hold' ? packHold(change.row as Hold) : change.row));
    }
    const last = batch.events.at(-1);
    if (!last) return;
    this.#sql.event.run(last.seq, JSON.stringify(batch.events));
    this.#unprunedEvents += batch.events.length;
    if (this.#unprunedEvents < PRUNE_EVERY_EVENTS) return;
    this.#unprunedEvents = 0;
    this.#sql.prune.run(last.seq - this.#historyEvents);
  }

  *rows<T extends TableName>(table: T): Iterable<readonly [string, Tables[T]]> {
    const intern = interner();
    try {
      const select = this.#db.prepare(`SELECT key, body FROM ${table}`);
      select.setReturnArrays(true);
      for (const [key, body] of select.iterate() as unknown as Iterable<[string, string]>)
        yield [key, this.#row(key, body, table, intern) as Tables[T]];
    } catch (error) {
      throw storeError(this.#path, error);
    }
  }

  *events(needle?: string): Iterable<StoredEvent> {
    const order = 'ORDER BY last_seq DESC';
    const found =
      needle === undefined
        ? this.#db.prepare(`SELECT body FROM event ${order}`).iterate()
        : this.#db.prepare(`SELECT body FROM event WHERE instr(body, ?) ${order}`).iterate(needle);
    for (const row of found as Iterable<{ body: string }>)
      yield* (this.#parse(row.body, 'event') as StoredEvent[]).reverse();
  }

  #row(key: string, body: string, table: TableName, intern: Intern): unknown {
    const value = this.#parse(body, table);
    if (table !== 'hold') return value;
    try {
      return unpackHold(key, value, intern);
    } catch (error) {
      throw corrupt(this.#path, (error as Error).message);
    }
  }

  #parse(body: string, table: string): unknown {
    let value: unknown;
    try {
      value = JSON.parse(body);
    } catch {
      throw corrupt(this.#path, `a row of ${table} is not JSON`);
    }
    const wanted = table === 'meta' ? 'number' : 'object';
    if (typeof value !== wanted || value === null) throw corrupt(this.#path, `a row of ${table} is not one`);
    return value;
  }

  close(): void {
    if (this.#db.isOpen) this.#db.close();
  }
}
