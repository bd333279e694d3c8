/** Which views are mounted, from /proc/self/mountinfo (proc_pid_mountinfo(5)): never touches a mount. */
import { readFileSync } from 'node:fs';

export const VIEW_TYPE = 'fuse.gate';

export interface MountEntry {
  readonly mountPoint: string;
  readonly type: string;
  readonly source: string;
}

function plain(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Mounts in the order in which they were made: of two on one place the later one is seen. */
export function mountEntries(text = readFileSync('/proc/self/mountinfo', 'latin1')): MountEntry[] {
  return text.split('\n').flatMap((line) => {
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6);
    if (dash < 0) return [];
    const utf8 = (field: string | undefined) => Buffer.from(plain(field ?? ''), 'latin1').toString('utf8');
    return [{ mountPoint: utf8(fields[4]), type: fields[dash + 1] ?? '', source: utf8(fields[dash + 2]) }];
  });
}

function contains(dir: string, path: string): boolean {
  return path === dir || dir === '/' || path.startsWith(`${dir}/`);
}

export function isInside(path: string, dir: string): boolean {
  return contains(dir, path);
}

/** The mount that an absolute, resolved path lies on. */
export function mountOf(path: string, mounts = mountEntries()): MountEntry | undefined {
  let best: MountEntry | undefined;
  for (const entry of mounts)
    if (contains(entry.mountPoint, path) && entry.mountPoint.length >= (best?.mountPoint.length ?? 0))
      best = entry;
  return best;
}

/** What is mounted exactly there, the uppermost. */
export function mountAt(path: string, mounts = mountEntries()): MountEntry | undefined {
  return mounts.filter((entry) => entry.mountPoint === path).at(-1);
}

export function mountedViews(mounts = mountEntries()): MountEntry[] {
  return mounts.filter((entry) => entry.type === VIEW_TYPE);
}
