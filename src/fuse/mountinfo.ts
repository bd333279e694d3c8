/** What is mounted where: /proc/self/mountinfo, proc_pid_mountinfo(5). */
import { readFileSync } from 'node:fs';
import { decodePath, type PathString } from '../base/bytes.ts';

export interface MountInfo {
  readonly mountId: number;
  readonly parentId: number;
  /** `major:minor` of the file system's st_dev. */
  readonly dev: { readonly major: number; readonly minor: number };
  /** The directory of that file system that is mounted. */
  readonly root: PathString;
  readonly mountPoint: PathString;
  /** Of this mount: `rw`, `nosuid`, `relatime`, ... */
  readonly options: readonly string[];
  /** `fuse.gate`, `ext4`, ... */
  readonly fsType: string;
  readonly source: PathString;
  /** Of the file system. */
  readonly superOptions: readonly string[];
}

/** Space, tab, newline and backslash are written as `\` and three octal digits (fs/seq_file.c mangle_path). */
function unmangle(field: Buffer): PathString {
  if (!field.includes(0x5c)) return decodePath(field);
  const bytes: number[] = [];
  for (let i = 0; i < field.length; i++) {
    const octal = field[i] === 0x5c ? field.toString('latin1', i + 1, i + 4) : '';
    if (/^[0-3][0-7]{2}$/.test(octal)) {
      bytes.push(Number.parseInt(octal, 8));
      i += 3;
    } else bytes.push(field[i]!);
  }
  return decodePath(Buffer.from(bytes));
}

function split(bytes: Buffer, separator: number): Buffer[] {
  const parts: Buffer[] = [];
  let from = 0;
  for (let at = bytes.indexOf(separator); at >= 0; at = bytes.indexOf(separator, from)) {
    parts.push(bytes.subarray(from, at));
    from = at + 1;
  }
  if (from < bytes.length) parts.push(bytes.subarray(from));
  return parts;
}

function parseLine(line: Buffer): MountInfo | undefined {
  const fields = split(line, 0x20);
  const dash = fields.findIndex((field, index) => index >= 6 && field.length === 1 && field[0] === 0x2d);
  if (dash < 0 || fields.length < dash + 3) return undefined;
  const text = (index: number) => fields[index]?.toString('latin1') ?? '';
  const [major, minor] = text(2).split(':').map(Number);
  return {
    mountId: Number(text(0)),
    parentId: Number(text(1)),
    dev: { major: major ?? 0, minor: minor ?? 0 },
    root: unmangle(fields[3]!),
    mountPoint: unmangle(fields[4]!),
    options: text(5).split(','),
    fsType: text(dash + 1),
    source: unmangle(fields[dash + 2]!),
    superOptions: text(dash + 3).split(','),
  };
}

/** In the order of the file: of several at one mount point the last is the visible one. Lines it cannot read are left out. */
export function parseMounts(content: Buffer = readFileSync('/proc/self/mountinfo')): MountInfo[] {
  const mounts: MountInfo[] = [];
  for (const line of split(content, 0x0a)) {
    const mount = parseLine(line);
    if (mount !== undefined) mounts.push(mount);
  }
  return mounts;
}

/** The visible mount at exactly this path. Reads a table only, so a mount that hangs cannot hang it. */
export function mountAt(mountPoint: PathString): MountInfo | undefined {
  return parseMounts().findLast((mount) => mount.mountPoint === mountPoint);
}
