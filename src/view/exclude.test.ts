import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import * as sys from '../sys/index.ts';
import { Exclusions } from './exclude.ts';
import { scratch } from './scratch.ts';
import { Tree } from './tree.ts';

let dir: string;
let tree: Tree;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gate-exclude-'));
});
afterEach(() => {
  tree.close();
  rmSync(dir, { recursive: true });
});

function put(path: string, text = ''): void {
  mkdirSync(dirname(join(dir, path)), { recursive: true });
  writeFileSync(join(dir, path), text);
}

function load(lockIgnored = false): Exclusions {
  tree = new Tree(openSync(dir, sys.O_PATH | sys.O_DIRECTORY), 100, new sys.StatBuf());
  return new Exclusions(tree, { lockIgnored });
}

function excluded(exclusions: Exclusions, path: string): boolean {
  const parts = path.split('/');
  const name = parts.pop()!;
  let at = tree.root;
  for (const part of parts) {
    const found = tree.lookup(at, part, scratch);
    assert.ok(typeof found !== 'number', `${part} of ${path}`);
    at = found;
  }
  const node = tree.lookup(at, name, scratch);
  return exclusions.excludes(at, name, typeof node !== 'number' && node.isDirectory);
}

test('built-in defaults: git, dependencies, editor litter, logs, databases', () => {
  for (const path of [
    '.git/config',
    'a/node_modules/x/y.js',
    'src/.a.ts.swp',
    'src/4913',
    'a.txt~',
    '#a#',
    'b.log',
    'c.sqlite3',
    'c.db-wal',
    'd.db',
  ])
    put(path);
  for (const path of ['src/a.ts', 'a/node_modules.ts', 'dbx/a', 'logs/a.logs']) put(path);
  const e = load();
  for (const path of [
    '.git/config',
    '.git',
    'a/node_modules/x/y.js',
    'a/node_modules/x',
    'src/.a.ts.swp',
    'src/4913',
    'a.txt~',
    '#a#',
    'b.log',
    'c.sqlite3',
    'c.db-wal',
    'd.db',
  ])
    assert.equal(excluded(e, path), true, path);
  for (const path of ['src/a.ts', 'a/node_modules.ts', 'dbx/a', 'logs/a.logs', 'src'])
    assert.equal(excluded(e, path), false, path);
});

test('.gateignore is case-sensitive, and can lock a default after all', () => {
  put('.gateignore', 'Build/\n*.gen.ts\n!keep.log\n');
  for (const path of ['Build/x', 'build/x', 'a.gen.ts', 'a.GEN.ts', 'keep.log', 'other.log']) put(path);
  const e = load();
  assert.deepEqual(
    ['Build/x', 'build/x', 'a.gen.ts', 'a.GEN.ts', 'keep.log', 'other.log'].map((p) => excluded(e, p)),
    [true, false, true, false, false, true],
  );
});

test('what git ignores is excluded, nested rules win, --lock-ignored locks it', () => {
  put('.gitignore', 'dist/\n*.o\n');
  put('pkg/.gitignore', '!main.o\n/only-here\n');
  put('.git/info/exclude', 'private\n');
  for (const path of [
    'dist/a.js',
    'x.o',
    'pkg/main.o',
    'pkg/other.o',
    'pkg/only-here',
    'only-here',
    'private',
    'src.ts',
  ])
    put(path);
  const wanted = [true, true, false, true, true, false, true, false];
  const paths = [
    'dist/a.js',
    'x.o',
    'pkg/main.o',
    'pkg/other.o',
    'pkg/only-here',
    'only-here',
    'private',
    'src.ts',
  ];
  const e = load();
  assert.deepEqual(
    paths.map((p) => excluded(e, p)),
    wanted,
  );
  tree.close();
  const locked = load(true);
  assert.deepEqual(
    paths.map((p) => excluded(locked, p)),
    paths.map(() => false),
  );
});

test('a changed rule file counts from the next question on', () => {
  put('a.gen');
  const e = load();
  assert.equal(excluded(e, 'a.gen'), false);
  put('.gateignore', '*.gen\n');
  assert.equal(excluded(e, 'a.gen'), false);
  e.changed();
  assert.equal(excluded(e, 'a.gen'), true);
});

test('names that are no text do no harm', () => {
  put('.gateignore', 'x*\n');
  const e = load();
  for (const name of ['\udcff\udcfe', ' ', '..a', '...', 'a\nb', '\\', 'x\udcff', '!', '#', '*'])
    assert.equal(typeof e.excludes(tree.root, name, false), 'boolean', JSON.stringify(name));
  assert.equal(e.excludes(tree.root, 'x\udcff', false), true);
});
