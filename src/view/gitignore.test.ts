import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodePath } from '../base/bytes.ts';
import { IgnoreRules } from './gitignore.ts';

/** Trees with random patterns, compared with what git itself says of each name. GATE_SEED=N plays one. */
const SEEDS = 150;
const FIRST = 1;

test('every name is ignored exactly when git ignores it', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'gate-ignore-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const only = process.env.GATE_SEED;
  const seeds = only === undefined ? Array.from({ length: SEEDS }, (_, i) => FIRST + i) : [Number(only)];
  for (const seed of seeds) compare(join(dir, String(seed)), seed);
});

const NAMES = [
  'a',
  'b',
  'ab',
  'ba',
  'a.b',
  'foo',
  'a b',
  'b ',
  '[a]',
  '!a',
  '#b',
  '\\a',
  'é',
  'a*',
  '-',
  ']',
  'A',
  'a\r',
];
const PARTS = [
  'a',
  'b',
  'ab',
  'foo',
  '*',
  '*',
  '**',
  '?',
  '/',
  '/',
  '.',
  'é',
  ' ',
  '\\',
  '\\ ',
  '!',
  '#',
  '[ab]',
  '[!a]',
  '[^b]',
  '[a-',
  '[',
  ']',
  '[]a]',
  '[[:alpha:]]',
  '[[:nope:]]',
  '[a-c]',
  '[c-a]',
  '[\\]]',
  '-',
  '***',
  '/**/',
  '**/',
  '/**',
  '\\*',
  'A',
  '\r',
];

function compare(dir: string, seed: number): void {
  const random = generator(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
  const directories = [''];
  const all: { path: string; directory: boolean }[] = [];
  mkdirSync(dir, { recursive: true });
  for (let i = 0; i < 40; i++) {
    const parent = pick(directories);
    const path = parent === '' ? pick(NAMES) : `${parent}/${pick(NAMES)}`;
    if (all.some((one) => one.path === path)) continue;
    const directory = random() < 0.5;
    if (directory) mkdirSync(join(dir, path));
    else writeFileSync(join(dir, path), '');
    if (directory) directories.push(path);
    all.push({ path, directory });
  }
  const files = new Map<string, string>();
  for (const at of ['', pick(directories)]) {
    const lines = Array.from({ length: 1 + Math.floor(random() * 6) }, () => {
      const parts = Array.from({ length: 1 + Math.floor(random() * 6) }, () => pick(PARTS));
      return (random() < 0.25 ? '!' : '') + parts.join('');
    });
    files.set(at, `${lines.join('\n')}${random() < 0.8 ? '\n' : ''}`);
    writeFileSync(join(dir, at, '.gitignore'), files.get(at)!);
  }
  const asked = all.map((one) => one.path).join('\0');
  spawnSync('git', ['init', '-q'], { cwd: dir });
  const said = spawnSync('git', ['check-ignore', '--no-index', '-z', '--stdin'], { cwd: dir, input: asked });
  const ignored = new Set(said.stdout.toString().split('\0').filter(Boolean));
  const levels = [...files]
    .sort(([a], [b]) => b.length - a.length)
    .map(([at, text]) => ({ at, rules: new IgnoreRules(text) }));
  const excluded = (path: string, directory: boolean): boolean => {
    const slash = path.lastIndexOf('/');
    if (slash >= 0 && excluded(path.slice(0, slash), true)) return true;
    for (const { at, rules } of levels) {
      if (at !== '' && !path.startsWith(`${at}/`)) continue;
      const verdict = rules.test(at === '' ? path : path.slice(at.length + 1), directory);
      if (verdict !== undefined) return verdict === 'ignored';
    }
    return false;
  };
  for (const { path, directory } of all)
    assert.equal(
      excluded(path, directory),
      ignored.has(path),
      `GATE_SEED=${seed} node --test src/view/gitignore.test.ts: ${JSON.stringify(path)} of ${JSON.stringify([...files])}`,
    );
}

/** mulberry32. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

test('bytes that are not UTF-8 are bytes', () => {
  const rules = new IgnoreRules(decodePath(Buffer.from([0x61, 0xff, 0x0a, 0x3f, 0x3f])));
  assert.equal(rules.test(decodePath(Buffer.from([0x61, 0xff])), false), 'ignored');
  assert.equal(rules.test('é', false), 'ignored', 'two bytes, two question marks');
  assert.equal(rules.test('e', false), undefined);
});

test('no pattern takes longer than pattern times path', () => {
  assert.equal(new IgnoreRules(`${'*'.repeat(5000)}\n`).test('a', false), undefined, 'longer than a path');
  const deep = `${'a/'.repeat(2000)}c`;
  const name = 'a'.repeat(255);
  for (const pattern of ['**/a/'.repeat(200), '*a'.repeat(120), '**/*a*/'.repeat(100), '/**'.repeat(400)]) {
    const rules = new IgnoreRules(`${pattern}b`);
    assert.equal(rules.test(deep, false), undefined);
    assert.equal(rules.test(name, false), undefined);
  }
});
