/**
 * Tools at work in one directory: `bench-tools.ts DIR FILES`. Makes a git repository of FILES files there at its first run, then
 * times `git status` and `rg` on it (warm: the second run counts), a clone of it, and a tar of it unpacked. Nanoseconds each, as JSON.
 */
import { execFileSync, execSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';

const [dir = '.', count = '2000'] = process.argv.slice(2);
const tree = `${dir}/tree`;
const FOLDER_FILES = 50;

function make(): void {
  for (let i = 0; i < Number(count); i++) {
    const folder = `${tree}/src/part${Math.floor(i / FOLDER_FILES)}`;
    if (i % FOLDER_FILES === 0) mkdirSync(folder, { recursive: true });
    writeFileSync(`${folder}/file${i}.ts`, `export const value${i} = ${i};\n`.repeat(20));
  }
  const git = (...args: string[]) => execFileSync('git', ['-C', tree, ...args], { stdio: 'ignore' });
  git('init', '-q');
  git('add', '-A');
  git('-c', 'user.name=b', '-c', 'user.email=b@localhost', 'commit', '-qm', 'all');
}

function time(run: () => void): number {
  const start = process.hrtime.bigint();
  run();
  return Number(process.hrtime.bigint() - start);
}

/** The second of two runs. */
function warm(run: () => void): number {
  run();
  return time(run);
}

if (!existsSync(tree)) make();
const quiet = { stdio: 'ignore' } as const;
const figures = {
  gitStatus: warm(() => execFileSync('git', ['-C', tree, 'status', '--porcelain'], quiet)),
  rg: warm(() => execFileSync('rg', ['-c', '--no-ignore', 'value7', `${tree}/src`], quiet)),
  gitClone: time(() => execFileSync('git', ['clone', '-q', tree, `${dir}/clone`], quiet)),
  untar: time(() => {
    mkdirSync(`${dir}/unpacked`);
    execSync(`tar c -C '${tree}/src' . | tar x -C '${dir}/unpacked'`, quiet);
  }),
};
for (const name of ['clone', 'unpacked']) rmSync(`${dir}/${name}`, { recursive: true });
process.stdout.write(JSON.stringify(figures));
