/** Every name in a state directory, in one place. */
import { accessSync, chmodSync, constants, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

export interface StateFiles {
  readonly dir: string;
  /** Options of the person: flag, then environment, then this. */
  readonly config: string;
  /** Bearer token of the TCP port, mode 0600. Made by the broker. */
  readonly token: string;
  readonly brokerSocket: string;
  /** Where the broker that runs can be reached: `BrokerRecord`. */
  readonly broker: string;
  readonly supervisorSocket: string;
  readonly supervisorLock: string;
  readonly supervisor: string;
  /** One `NAME.json` for each view that is to be up. */
  readonly views: string;
  readonly logs: string;
  /** Mount points of ordinary users. */
  readonly mounts: string;
}

export function stateFiles(dir: string): StateFiles {
  return {
    dir,
    config: `${dir}/config.json`,
    token: `${dir}/token`,
    brokerSocket: `${dir}/broker.sock`,
    broker: `${dir}/broker.json`,
    supervisorSocket: `${dir}/supervisor.sock`,
    supervisorLock: `${dir}/supervisor.lock`,
    supervisor: `${dir}/supervisor.json`,
    views: `${dir}/views`,
    logs: `${dir}/logs`,
    mounts: `${dir}/mnt`,
  };
}

/** True when `dir` is a directory that this user can write, or can be made. */
export function canWrite(dir: string): boolean {
  try {
    accessSync(dir, constants.W_OK | constants.X_OK);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return false;
    const parent = dir.slice(0, dir.lastIndexOf('/')) || '/';
    return parent !== dir && canWrite(parent);
  }
}

/** `given`, else /var/lib/gate when this user can write there, else $XDG_STATE_HOME/gate. */
export function defaultStateDir(env: Readonly<Record<string, string | undefined>>, home: string): string {
  if (canWrite('/var/lib/gate')) return '/var/lib/gate';
  return `${env.XDG_STATE_HOME || `${home}/.local/state`}/gate`;
}

/** Writes a file so that a reader, or a crash, sees the old one or the new one, never half. */
export function writeFileAtomic(path: string, text: string, mode = 0o600): void {
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, text, { mode, flush: true });
  chmodSync(temporary, mode);
  renameSync(temporary, path);
}

/**
 * Makes a folder and what is missing above it; gives the folders made, the deepest first. Throws what mkdir throws. Not mkdirSync's
 * `recursive`: that never ends where a folder that is there answers ENOENT to whoever wants to make something in it, as /proc does.
 */
export function makeDirs(dir: string, mode = 0o755): string[] {
  const made: string[] = [];
  const make = (path: string, aboveIsThere: boolean) => {
    try {
      mkdirSync(path, mode);
      made.unshift(path);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EEXIST') return;
      if (code !== 'ENOENT' || aboveIsThere || dirname(path) === path) throw error;
      make(dirname(path), false);
      make(path, true);
    }
  };
  make(dir, false);
  return made;
}

/** Makes the state directory and the folders in it. Throws what mkdir throws. */
export function makeStateDir(dir: string): StateFiles {
  const files = stateFiles(dir);
  makeDirs(dir);
  makeDirs(files.views, 0o700);
  makeDirs(files.logs, 0o700);
  return files;
}
