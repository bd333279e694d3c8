/**
 * Tools at work in one directory: `bench-tools.ts DIR FILES [ROW,…]`. Makes a git repository of FILES files there at its first run, then
 * times `git status` and `rg` on it (warm: the second run counts), a clone of it, a tar of it unpacked, and `npm ci` of a few
 * packages that npm has in its cache: the first run anywhere fetches them. Nanoseconds each, as JSON.
 */
import { execFileSync, execSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';

const [dir = '.', count = '2000', rows = ''] = process.argv.slice(2);
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

/** With what they need, 125 packages when this was written: npm resolves them the first time. */
const PACKAGE = {
  name: 'bench',
  version: '1.0.0',
  dependencies: {
    express: '4.21.2',
    typescript: '5.8.3',
    fastify: '5.3.2',
    lodash: '4.17.21',
    zod: '3.24.4',
  },
};

/** A project that can be installed without the net. Its lock file is made once for all places. */
function project(): string {
  const place = `${dir}/project`;
  if (existsSync(place)) return place;
  const model = `${tmpdir()}/gate-bench-npm-${process.getuid!()}`;
  if (!existsSync(`${model}/done`)) {
    mkdirSync(model, { recursive: true });
    writeFileSync(`${model}/package.json`, JSON.stringify(PACKAGE));
    execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund'], {
      cwd: model,
      stdio: 'ignore',
    });
    rmSync(`${model}/node_modules`, { recursive: true });
    writeFileSync(`${model}/done`, '');
  }
  mkdirSync(place);
  for (const name of ['package.json', 'package-lock.json'])
    copyFileSync(`${model}/${name}`, `${place}/${name}`);
  return place;
}

const quiet = { stdio: 'ignore' } as const;
const tools: Record<string, () => number> = {
  gitStatus: () => warm(() => execFileSync('git', ['-C', tree, 'status', '--porcelain'], quiet)),
  rg: () => warm(() => execFileSync('rg', ['-c', '--no-ignore', 'value7', `${tree}/src`], quiet)),
  gitClone: () => time(() => execFileSync('git', ['clone', '-q', tree, `${dir}/clone`], quiet)),
  untar: () => {
    mkdirSync(`${dir}/unpacked`);
    return time(() => execSync(`tar c -C '${tree}/src' . | tar x -C '${dir}/unpacked'`, quiet));
  },
  npmCi: () => {
    const cwd = project();
    rmSync(`${cwd}/node_modules`, { recursive: true, force: true });
    const args = ['ci', '--offline', '--ignore-scripts', '--no-audit', '--no-fund'];
    return time(() => execFileSync('npm', args, { cwd, ...quiet }));
  },
};
const wanted = rows === '' ? Object.keys(tools) : rows.split(',');
if (wanted.some((key) => key !== 'npmCi') && !existsSync(tree)) make();
const figures: Record<string, number> = {};
for (const [key, tool] of Object.entries(tools)) if (wanted.includes(key)) figures[key] = tool();
for (const name of ['clone', 'unpacked']) rmSync(`${dir}/${name}`, { recursive: true, force: true });
process.stdout.write(JSON.stringify(figures));
