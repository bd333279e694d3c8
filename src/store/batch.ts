import type { Batch, StoredEvent, TableName, Tables } from './types.ts';

interface Change {
  /** undefined: deleted. */
  row: unknown;
  /** The store has no row of this key. */
  readonly fresh: boolean;
}

/** The changes of one turn, the last one of each row only. */
export class RowBatch implements Batch {
  readonly changes: Record<TableName, Map<string, Change>> = {
    hold: new Map(),
    waiter: new Map(),
    session: new Map(),
    volume: new Map(),
    unclean: new Map(),
    meta: new Map(),
  };
  readonly events: StoredEvent[] = [];

  put<T extends TableName>(table: T, key: string, row: Tables[T], fresh = false): void {
    const rows = this.changes[table];
    const before = rows.get(key);
    if (before) rows.set(key, { row, fresh: before.fresh });
    else rows.set(key, { row, fresh });
  }

  delete(table: TableName, key: string): void {
    const rows = this.changes[table];
    if (rows.get(key)?.fresh) rows.delete(key);
    else rows.set(key, { row: undefined, fresh: false });
  }

  event(event: StoredEvent): void {
    this.events.push(event);
  }

  get empty(): boolean {
    if (this.events.length > 0) return false;
    for (const table of TABLE_NAMES) if (this.changes[table].size > 0) return false;
    return true;
  }
}

export const TABLE_NAMES: readonly TableName[] = ['hold', 'waiter', 'session', 'volume', 'unclean', 'meta'];
