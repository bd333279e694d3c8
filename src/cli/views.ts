/**
 * Views that are to be up: one `<state>/views/NAME.json` each. They outlive the processes and the machine's
 * uptime, so that `gate up --all` brings them back and `gate down` finds what a dead supervisor left.
 */
import { readdirSync, readFileSync, unlinkSync } from 'node:fs';
import type { ProcessId } from '../base/process.ts';
import { type StateFiles, writeFileAtomic } from '../base/state.ts';
import { usage } from './context.ts';
import { isInside } from './mounts.ts';

export interface ViewRecord {
  readonly name: string;
  /** The repository, resolved. */
  readonly root: string;
  readonly mount: string;
  /** Folders that were made for the mount point, the deepest first; `down` removes them. */
  readonly madeDirs: readonly string[];
  /** Options as they were asked for, as text: see options.ts. */
  readonly brokerOptions: Readonly<Record<string, string>>;
  readonly mountOptions: Readonly<Record<string, string>>;
  /** In place: `DEVICE:INODE` of the root, and its descriptor in the mount's process. */
  readonly below?: { readonly id: string; readonly fd: number };
  /** The volume's id, once it was mounted. */
  readonly volume?: string;
  /** The `gate mount` that serves it. */
  readonly process?: ProcessId | null;
}

/** Mounted over its own root. */
export function isInPlace(record: { readonly root: string; readonly mount: string }): boolean {
  return record.root === record.mount;
}

const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/;

export function checkName(name: string): string {
  if (!NAME.test(name))
    throw usage(
      `'${name}' is no name for a view`,
      'A name has 1 to 64 letters, digits, dots, dashes and underscores, and starts with none of . and -.',
    );
  return name;
}

/** The folder's name, made a name of a view, and unique. */
export function nameFor(root: string, taken: ReadonlySet<string>): string {
  const base =
    root
      .slice(root.lastIndexOf('/') + 1)
      .replace(/[^A-Za-z0-9._-]+/g, '-')
      .replace(/^[.-]+/, '')
      .slice(0, 48) || 'root';
  let name = base;
  for (let n = 2; taken.has(name); n++) name = `${base}-${n}`;
  return name;
}

export function readViews(files: StateFiles): ViewRecord[] {
  let names: string[];
  try {
    names = readdirSync(files.views).filter((name) => name.endsWith('.json'));
  } catch {
    return [];
  }
  return names.sort().flatMap((name) => {
    try {
      const record = JSON.parse(readFileSync(`${files.views}/${name}`, 'utf8')) as ViewRecord;
      const whole =
        typeof record.name === 'string' &&
        typeof record.root === 'string' &&
        typeof record.mount === 'string';
      return whole && NAME.test(record.name) ? [{ ...record, madeDirs: record.madeDirs ?? [] }] : [];
    } catch {
      return [];
    }
  });
}

export function writeView(files: StateFiles, record: ViewRecord): void {
  writeFileAtomic(`${files.views}/${record.name}.json`, `${JSON.stringify(record, null, 2)}\n`);
}

export function removeView(files: StateFiles, name: string): void {
  try {
    unlinkSync(`${files.views}/${name}.json`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** The view whose root or mount holds an absolute path; the deepest one. */
export function viewOf(path: string, views: readonly ViewRecord[]): ViewRecord | undefined {
  return views
    .flatMap((view) =>
      [view.root, view.mount].filter((dir) => isInside(path, dir)).map((dir) => ({ view, dir })),
    )
    .sort((a, b) => b.dir.length - a.dir.length)[0]?.view;
}
