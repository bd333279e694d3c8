/**
 * A process that does file operations on command, for tests of who waits for whom. It reads lines of JSON
 * `{id, op, args}` and answers `{id, ok}` or `{id, error}` when the operation is done; several may be under way.
 */
import { constants, promises as fs } from 'node:fs';
import { createInterface } from 'node:readline';

const files = new Map<number, fs.FileHandle>();
let nextFile = 1;

const operations: Record<string, (...args: never[]) => Promise<unknown>> = {
  async open(path: string, flags: string, mode = 0o644) {
    const handle = await fs.open(path, flagsOf(flags), mode);
    files.set(nextFile, handle);
    return nextFile++;
  },
  close: async (file: number) => {
    await files.get(file)!.close();
    files.delete(file);
  },
  write: async (file: number, text: string) => (await files.get(file)!.write(text)).bytesWritten,
  read: async (file: number) => (await files.get(file)!.readFile()).toString(),
  fstat: async (file: number) => ({ size: (await files.get(file)!.stat()).size }),
  ftruncate: async (file: number, size: number) => files.get(file)!.truncate(size),
  fsync: async (file: number) => files.get(file)!.sync(),
  fchmod: async (file: number, mode: number) => files.get(file)!.chmod(mode),
  readFile: async (path: string) => fs.readFile(path, 'utf8'),
  writeFile: async (path: string, text: string) => fs.writeFile(path, text),
  rename: async (from: string, to: string) => fs.rename(from, to),
  unlink: async (path: string) => fs.unlink(path),
  link: async (from: string, to: string) => fs.link(from, to),
  symlink: async (target: string, path: string) => fs.symlink(target, path),
  mkdir: async (path: string) => void (await fs.mkdir(path)),
  rmdir: async (path: string) => fs.rmdir(path),
  truncate: async (path: string, size: number) => fs.truncate(path, size),
  chmod: async (path: string, mode: number) => fs.chmod(path, mode),
  utimes: async (path: string, atime: number, mtime: number) => fs.utimes(path, atime, mtime),
  stat: async (path: string) => {
    const s = await fs.stat(path);
    return { size: s.size, mode: s.mode, mtimeMs: s.mtimeMs, nlink: s.nlink };
  },
  readdir: async (path: string) => fs.readdir(path),
  chdir: async (path: string) => process.chdir(path),
  pid: async () => process.pid,
};

/** Node knows no names for some of the errnos that a lock can end with. */
function nameOf(error: NodeJS.ErrnoException): string {
  return (
    { [-35]: 'EDEADLK', [-37]: 'ENOLCK', [-116]: 'ESTALE' }[error.errno ?? 0] ?? error.code ?? String(error)
  );
}

function flagsOf(flags: string): number {
  let bits = 0;
  for (const name of flags.split('|')) bits |= constants[`O_${name}` as keyof typeof constants] as number;
  return bits;
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, op, args } = JSON.parse(line) as { id: number; op: string; args: never[] };
  operations[op]!(...args).then(
    (ok) => process.stdout.write(`${JSON.stringify({ id, ok: ok ?? null })}\n`),
    (error: NodeJS.ErrnoException) =>
      process.stdout.write(`${JSON.stringify({ id, error: nameOf(error) })}\n`),
  );
});
process.stdout.write('{"id":0,"ok":"ready"}\n');
