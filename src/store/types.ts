/**
 * What the broker must not forget, behind one interface, so that it can lie in SQLite, in memory (tests) or,
 * one day, in a cluster.
 *
 * - Rows are written in guarded batches only: a batch carries the head (a number) that the writer believes in;
 *   a store whose head differs refuses it whole with GateError `unavailable`, because somebody else has written.
 *   There is no other write, and nothing is read between batches: the broker's memory is the truth that it loaded.
 * - A row put and deleted in the same batch is never written.
 * - Events are appended in chunks, one a batch, and the oldest are forgotten.
 */
import { GateError } from '../base/errors.ts';
import type { Hold, ReleaseReason, Scope, Waiter } from '../lock/types.ts';

/** The disk of the store is full. */
export class NoRoom extends GateError {
  constructor(what: string) {
    super(
      'unavailable',
      `There is no room left on the disk of ${what}. Make some: the broker goes on by itself.`,
    );
  }
}

export interface SessionRow {
  readonly id: string;
  /** SHA-256 of the secret, hexadecimal. */
  readonly secretHash: string;
  readonly client: { readonly kind: string; readonly pid?: number; readonly host?: string };
  readonly startedAtMs: number;
  /** Greatest message id that was carried out. */
  readonly lastId: number;
  /** Volumes whose locks it decides itself. */
  readonly delegated?: readonly { readonly volume: string; readonly epoch: string }[];
}

export interface VolumeRow {
  readonly id: string;
  readonly root: string;
  /** Where it was mounted last. */
  readonly mount: string | null;
  /** Where it was mounted before, and may still be: the latest first. */
  readonly earlierMounts?: readonly string[];
  readonly dev: string;
  readonly ino: string;
  readonly registeredAtMs: number;
}

/** A path whose last hold did not end by its holder's release: see broker/unclean.ts. */
export interface UncleanRow {
  readonly id: string;
  readonly volume: string;
  readonly path: string;
  readonly scope: Scope;
  readonly sinceMs: number;
  readonly why: ReleaseReason;
  /** Whose hold it was; `''` unknown: a dead view's. */
  readonly owner: string;
  readonly session: string;
}

/** Tables and what a row of each is. `meta` holds the high-water marks. */
export interface Tables {
  hold: Hold;
  waiter: Waiter;
  session: SessionRow;
  volume: VolumeRow;
  unclean: UncleanRow;
  meta: number;
}
export type TableName = keyof Tables;

/** An event as the store sees it: a number that grows by one, and anything JSON can carry. */
export interface StoredEvent {
  readonly seq: number;
}

/** Changes gathered over one turn. Rows are read at commit: they must be plain data that nobody changes. */
export interface Batch {
  /** `fresh`: the store has no row of that key, so that a later delete in this batch cancels both. */
  put<T extends TableName>(table: T, key: string, row: Tables[T], fresh?: boolean): void;
  delete(table: TableName, key: string): void;
  event(event: StoredEvent): void;
  readonly empty: boolean;
}

export interface Store {
  /** Grows by one with each batch. */
  readonly head: number;
  batch(): Batch;
  /**
   * Writes a batch, all or nothing. When it returns (or its promise resolves) the batch survives the death of this
   * process; with `synced`, or durability `power`, power loss too.
   * Throws GateError `unavailable` when the head is not the one that this store last saw, `internal` when the disk refuses; `NoRoom` when it is
   * full: nothing of the batch was written then, and it may be committed again.
   */
  commit(batch: Batch, options?: { readonly synced?: boolean }): Promise<void> | undefined;
  /** All rows of a table. For the start: the broker keeps them in memory from then on. */
  rows<T extends TableName>(table: T): Iterable<readonly [string, Tables[T]]>;
  /** The latest events whose JSON contains `needle`, newest first. */
  events(needle?: string): Iterable<StoredEvent>;
  close(): void;
}
