/** The database's shape, and how one is opened or refused. */
import { closeSync, existsSync, openSync, statSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { GateError } from '../../base/errors.ts';
import { NoRoom } from '../types.ts';

/** `GATE`, in the header of the file (`PRAGMA application_id`). */
const APPLICATION_ID = 0x47415445;
/** Grows when the shape changes; kept in the header (`PRAGMA user_version`). */
export const SCHEMA_VERSION = 2;
/** Larger databases are not checked as a whole at start: reading every row must do. */
const CHECKED_BYTES = 64 * 1024 * 1024;

/** https://www.sqlite.org/rescode.html */
const SQLITE_BUSY = 5;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_NOTADB = 26;

// Bodies are JSON. Keys of locks grow, so new rows go to the end of the tree.
const SCHEMA = `
  CREATE TABLE hold (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE waiter (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE session (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE volume (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE unclean (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE meta (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE event (last_seq INTEGER PRIMARY KEY, body TEXT NOT NULL);
  CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), head INTEGER NOT NULL);
  INSERT INTO head VALUES (1, 0);
`;

/** What brings an older database to the next version; `MIGRATIONS[0]` makes version 2 of version 1. */
const MIGRATIONS = ['CREATE TABLE unclean (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID'] as const;

export type Durability = 'process' | 'power';

export function corrupt(path: string, why: string): GateError {
  return new GateError(
    'internal',
    `The database ${path} is damaged (${why}). Gate leaves it as it is. Restore a backup, or move it away ` +
      'together with its -wal file to start with no locks.',
  );
}

/** What an error of SQLite means for whoever started the broker. */
export function storeError(path: string, error: unknown): GateError {
  if (error instanceof GateError) return error;
  const code = ((error as { errcode?: number }).errcode ?? 0) & 0xff;
  const why = (error as Error).message;
  if (code === SQLITE_CORRUPT || code === SQLITE_NOTADB) return corrupt(path, why);
  if (code === SQLITE_FULL) return new NoRoom(path);
  if (code === SQLITE_BUSY)
    return new GateError('unavailable', `The database ${path} is in use by another process.`);
  return new GateError('internal', `The database ${path} cannot be used: ${why}.`);
}

function pragma(db: DatabaseSync, name: string): unknown {
  return Object.values(db.prepare(`PRAGMA ${name}`).get() ?? {})[0];
}

function prepareSchema(db: DatabaseSync, path: string): void {
  const version = pragma(db, 'user_version') as number;
  const application = pragma(db, 'application_id');
  const tables = (db.prepare('SELECT count(*) AS n FROM sqlite_schema').get() as { n: number }).n;
  if (version === 0 && application === 0 && tables === 0) {
    db.exec(
      `BEGIN; ${SCHEMA} PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`,
    );
    return;
  }
  if (application !== APPLICATION_ID) throw corrupt(path, 'it is not a database of Gate');
  if (version > SCHEMA_VERSION)
    throw new GateError(
      'internal',
      `The database ${path} was written by a newer Gate (its schema is ${version}, this one knows ${SCHEMA_VERSION}). ` +
        'Gate leaves it as it is. Update Gate, or use another state directory.',
    );
  if (version < 1) throw corrupt(path, `it has no schema version`);
  for (let from = version; from < SCHEMA_VERSION; from++)
    db.exec(`BEGIN IMMEDIATE; ${MIGRATIONS[from - 1]}; PRAGMA user_version = ${from + 1}; COMMIT`);
}

/** Opens or creates the database, for this process alone. Throws GateError, and changes nothing then. */
export function openDatabase(path: string, durability: Durability): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    const sizeBytes = existsSync(path) ? statSync(path).size : 0;
    closeSync(openSync(path, 'a', 0o600));
    db = new DatabaseSync(path);
    // EXCLUSIVE before WAL: the index of the log then lies in memory, and nobody else can open the file.
    db.exec('PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE');
    prepareSchema(db, path);
    db.exec('PRAGMA journal_mode = WAL');
    db.exec(`PRAGMA synchronous = ${durability === 'power' ? 'FULL' : 'NORMAL'}`);
    db.exec(
      'PRAGMA wal_autocheckpoint = 4096; PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536',
    );
    if (sizeBytes > 0 && sizeBytes < CHECKED_BYTES) {
      const check = pragma(db, 'quick_check(1)');
      if (check !== 'ok') throw corrupt(path, String(check).replaceAll('\n', ' '));
    }
    // Takes the exclusive lock now, not at the first write.
    db.exec('BEGIN EXCLUSIVE; COMMIT');
    return db;
  } catch (error) {
    db?.close();
    throw storeError(path, error);
  }
}
