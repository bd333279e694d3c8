/** The directories that scripts/bench measures: views of its own, a view that is there, peers' mounts. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';

/** A column. */
export interface Place {
  readonly name: string;
  readonly dir: string;
}

/** What is set up, and how to take it down. `places` begins with the native directory. */
export interface Setup {
  readonly places: Place[];
  end(): void;
}

const gate = resolve(import.meta.dirname, '../gate');

/** A view that somebody mounted: its root is the source of the mount. */
export function existingView(dir: string): Place[] {
  const mount = resolve(dir);
  const found = mountAt(mount);
  if (found?.type !== 'fuse.gate') throw new Error(`${mount} is not the mount point of a view`);
  return [
    { name: 'native', dir: found.source },
    { name: 'view', dir: mount },
  ];
}

function mountAt(dir: string): { source: string; type: string } | undefined {
  const fields = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((one) => one.split(' ').map((field) => field.replaceAll('\\040', ' ')))
    .findLast(([, at]) => at === dir);
  return fields === undefined ? undefined : { source: fields[0]!, type: fields[2]! };
}

/** `[NAME=]COMMAND`; the name is else the command's own. */
function parsePeer(peer: string): { name: string; command: string } {
  const named = /^([\w.,:-]+)=(.*)$/.exec(peer);
  const command = named?.[2] ?? peer;
  return { name: named?.[1] ?? command.trim().split(/\s+/)[0]!.split('/').at(-1)!, command };
}

/** Mounts of our own below a new folder in `dir`, each of a directory of its own. */
export class OwnMounts implements Setup {
  readonly base: string;
  readonly places: Place[] = [];
  readonly #env: NodeJS.ProcessEnv;
  /** Process of the first view that was made. */
  mountPid: number | null = null;
  readonly #peers: string[] = [];
  #views = false;

  constructor(dir: string) {
    this.base = mkdtempSync(`${resolve(dir)}/gate-bench-`);
    this.#env = { ...process.env, GATE_STATE_DIR: `${this.base}/state`, GATE_BROKER_PORT: '0' };
  }

  #root(name: string): string {
    const root = `${this.base}/root-${this.places.length}-${name.replaceAll(/\W/g, '-')}`;
    mkdirSync(root);
    return root;
  }

  native(): void {
    this.places.push({ name: 'native', dir: this.#root('native') });
  }

  view(name: string, ...options: string[]): void {
    const root = this.#root(name);
    this.#views = true;
    const args = ['up', root, '--mount', `${root}.view`, '--json', ...options];
    const out = execFileSync(gate, args, { env: this.#env, encoding: 'utf8' });
    const up = JSON.parse(out) as { mount: string; pids: { mount: number } };
    this.mountPid ??= up.pids.mount;
    this.places.push({ name, dir: up.mount });
  }

  /** Runs a command that mounts $ROOT on $MOUNT and returns, as libfuse's examples do. */
  peer(peer: string): void {
    const { name, command } = parsePeer(peer);
    const root = this.#root(name);
    const mount = `${root}.mount`;
    mkdirSync(mount);
    this.#peers.push(mount);
    execFileSync('/bin/sh', ['-c', command], {
      env: { ...process.env, ROOT: root, MOUNT: mount },
      stdio: 'inherit',
    });
    if (mountAt(mount) === undefined) throw new Error(`nothing is mounted after: ${command}`);
    this.places.push({ name, dir: mount });
  }

  end(): void {
    const asRoot = process.geteuid!() === 0;
    for (const mount of this.#peers) {
      if (mountAt(mount) === undefined) continue;
      if (asRoot) execFileSync('umount', ['--', mount]);
      else execFileSync('fusermount3', ['-u', '--', mount]);
    }
    if (this.#views) execFileSync(gate, ['down', '--all'], { env: this.#env, stdio: 'ignore' });
    rmSync(this.base, { recursive: true, force: true });
  }
}
