/**
 * One broker a state directory. The lock is SQLite's exclusive lock on `<state>/broker.lock`: a lock of the kernel
 * (fcntl), which ends with its process however that dies. `<state>/broker.json` says who has it, for messages and
 * for clients; it alone proves nothing.
 */
import { readFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { GateError } from '../base/errors.ts';
import { isAlive } from '../base/process.ts';
import type { BrokerInfo } from './wire.ts';

const SQLITE_BUSY = 5;

/** What broker.json says, or undefined when there is none that can be read. */
export function readBrokerInfo(path: string): BrokerInfo | undefined {
  try {
    const info = JSON.parse(readFileSync(path, 'utf8')) as Partial<BrokerInfo> | null;
    return typeof info?.pid === 'number' && typeof info.url === 'string' && typeof info.socket === 'string'
      ? (info as BrokerInfo)
      : undefined;
  } catch {
    return undefined;
  }
}

/** Takes the lock until `release` is called or the process ends. Throws `unavailable`, naming the pid that has it. */
export function takeLock(lockPath: string, infoPath: string): { release(): void } {
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(lockPath);
    db.exec('PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    const held = db;
    return { release: () => held.isOpen && held.close() };
  } catch (error) {
    db?.close();
    if ((((error as { errcode?: number }).errcode ?? 0) & 0xff) !== SQLITE_BUSY)
      throw new GateError(
        'internal',
        `The lock file ${lockPath} cannot be used: ${(error as Error).message}`,
      );
    const info = readBrokerInfo(infoPath);
    const who = info && isAlive(info) ? `pid ${info.pid}, at ${info.url}` : 'it has just started';
    throw new GateError('unavailable', `A broker runs on this state directory already (${who}).`, {
      pid: info?.pid,
    });
  }
}
