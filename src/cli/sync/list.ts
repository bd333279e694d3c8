/** What a tree holds, on this machine or another: by the same program, so that both are told in the same way. */
import { spawn } from 'node:child_process';
import { decodePath, type PathString } from '../../base/bytes.ts';
import { type SshTarget, shellWord, sshArguments } from '../../ssh/index.ts';
import { CliError } from '../context.ts';

/** One name of a tree. Of a directory only that it is one: its times change with what is in it. */
export interface Item {
  readonly type: 'f' | 'd' | 'l';
  readonly size: number;
  /** Seconds with their fraction, as find(1) prints them. */
  readonly mtime: string;
  readonly mode: string;
  /** Of a symbolic link: where it leads. */
  readonly link: PathString;
}

export type Listing = ReadonlyMap<PathString, Item>;

/** A folder of a machine; `target` null: of this one. */
export interface Side {
  readonly target: SshTarget | null;
  readonly dir: string;
}

/** Our own folder in a tree: what is kept there belongs to that machine. */
const PRUNED = ['.gate'];

/** Runs a shell's line where `side` is, in its folder. Throws CliError. */
export async function runAt(
  side: Side,
  what: string,
  line: string,
  input: Buffer = Buffer.alloc(0),
): Promise<Buffer> {
  const script = `cd ${shellWord(side.dir)} && ${line}`;
  const [program, args] =
    side.target === null
      ? (['sh', ['-c', script]] as const)
      : (['ssh', sshArguments(side.target, script)] as const);
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const out: Buffer[] = [];
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => (said += chunk));
  // Its end is told by its status.
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const status = await new Promise<number | string>((done) => {
    child.once('error', (error) => done(error.message));
    child.once('close', (code, signal) => done(code ?? signal ?? 'gone'));
  });
  if (status !== 0)
    throw new CliError(`cannot ${what} (${status})`, { detail: said.split('\n').filter(Boolean).slice(-10) });
  return Buffer.concat(out);
}

/**
 * Everything below a folder but special files and names in `exclude`, wherever they stand. Throws CliError. `mayMiss`: nothing is there
 * when the folder is not.
 */
export async function list(side: Side, exclude: readonly string[], mayMiss = false): Promise<Listing> {
  const skip = [
    ...PRUNED.map((name) => `-path ${shellWord(`./${name}`)}`),
    ...exclude.map((name) => `-name ${shellWord(name)}`),
  ].join(' -o ');
  const format = '%y\\t%s\\t%T@\\t%m\\t%P\\0%l\\0';
  const find = `LC_ALL=C find . -mindepth 1 \\( ${skip} \\) -prune -o -printf '${format}'`;
  const found = await runAt(
    mayMiss ? { ...side, dir: '/' } : side,
    `list ${side.dir}`,
    mayMiss ? `{ [ ! -e ${shellWord(side.dir)} ] || { cd ${shellWord(side.dir)} && ${find}; }; }` : find,
  );
  return parse(found);
}
function parse(found: Buffer): Listing {
  const items = new Map<PathString, Item>();
  for (let at = 0; at < found.length; ) {
    const end = found.indexOf(0, at);
    const linkEnd = found.indexOf(0, end + 1);
    if (end < 0 || linkEnd < 0) break;
    const line = found.subarray(at, end);
    const link = decodePath(found.subarray(end + 1, linkEnd));
    at = linkEnd + 1;
    const [type, size, mtime, mode] = line.toString('latin1').split('\t', 4);
    const head = [type, size, mtime, mode].join('\t').length + 1;
    if (type !== 'f' && type !== 'd' && type !== 'l') continue;
    const item = { type, size: Number(size), mtime: mtime!, mode: mode!, link } as const;
    items.set(
      decodePath(line.subarray(head)),
      type === 'f' ? item : { ...item, size: 0, mtime: '', mode: '' },
    );
  }
  return items;
}
