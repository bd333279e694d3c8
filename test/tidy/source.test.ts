/** Rules for the text of the source, as tests. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { extname } from 'node:path';
import { test } from 'node:test';
import { projectDir } from '../../src/base/version.ts';

/** Files that git knows or would take, less those that are gone. */
const files = execFileSync(
  'git',
  ['-c', 'safe.directory=*', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
  {
    cwd: projectDir,
    encoding: 'utf8',
  },
)
  .split('\0')
  .filter((path) => path && statSync(`${projectDir}/${path}`, { throwIfNoEntry: false })?.isFile());

const read = (path: string) => readFileSync(`${projectDir}/${path}`, 'utf8');
const source = files.filter((path) => path.startsWith('src/') && path.endsWith('.ts'));
const production = source.filter((path) => !path.endsWith('.test.ts'));
const text = files.filter(
  (path) =>
    ['.ts', '.sh', '.md', '.json', ''].includes(extname(path)) &&
    path !== 'package-lock.json' &&
    !path.startsWith('.'),
);

/** Code without comments and strings, line by line. Rough, and enough for looking for names. */
function code(path: string): string[] {
  return read(path)
    .replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ' '))
    .split('\n')
    .map((line) => line.replace(/(^|\s)\/\/.*$/, '').replace(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/g, "''"));
}

function findings(
  paths: readonly string[],
  pattern: RegExp,
  lines: (path: string) => string[] = code,
): string[] {
  return paths.flatMap((path) =>
    lines(path).flatMap((line, i) =>
      pattern.test(line) ? [`${path}:${i + 1}: ${line.trim().slice(0, 120)}`] : [],
    ),
  );
}

const plain = (path: string) => read(path).split('\n');

test('the list of files is not empty', () => {
  assert.ok(source.length > 20, `${source.length} files in src`);
});

test('time, chance and the environment come in from outside', () => {
  const elsewhere = production.filter((path) => !path.startsWith('src/base/') && path !== 'src/cli/main.ts');
  assert.deepEqual(
    findings(
      elsewhere,
      /\bDate\.now\b|\bset(?:Timeout|Interval|Immediate)\(|\bMath\.random\b|\bprocess\.env\b/,
    ),
    [],
  );
});

test('the lock core has no async', () => {
  const core = production.filter((path) => path.startsWith('src/lock/'));
  assert.deepEqual(findings(core, /\basync\b|\bawait\b|\bPromise\b/), []);
});

test('no file has more than 700 lines', () => {
  const long = files
    .filter(
      (path) =>
        ['.ts', '.sh', ''].includes(extname(path)) && !['package-lock.json', 'LICENSE'].includes(path),
    )
    .filter((path) => plain(path).length > 700)
    .map((path) => `${path}: ${plain(path).length} lines`);
  assert.deepEqual(long, []);
});

test('no path of one machine is written down', () => {
  const machine = new RegExp(['/work', '/home', '/Users', '/root'].map((top) => `${top}/[a-z.]`).join('|'));
  assert.deepEqual(findings(text, machine, plain), []);
});

test('the lock file names no registry', () => {
  const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, { resolved?: string }> };
  const resolved = Object.entries(lock.packages).flatMap(([name, entry]) => (entry.resolved ? [name] : []));
  assert.deepEqual(resolved, []);
});

test('what is to be done later stands in the roadmap', () => {
  const roadmap = read('docs/roadmap.md');
  const looked = files.filter((path) => /^(src|test|scripts)\//.test(path) && !path.startsWith('test/tidy/'));
  const marks = findings(looked, /\bTODO\b/, plain).filter(
    (line) => !roadmap.includes(/TODO:?\s*(.*)$/.exec(line)?.[1]?.trim() || '\0'),
  );
  assert.deepEqual(marks, []);
});
