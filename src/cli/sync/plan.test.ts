import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Item } from './list.ts';
import { type Agreed, planSync } from './plan.ts';

const file = (version: string): Item => ({ type: 'f', size: 1, mtime: version, mode: '644', link: '' });
const dir: Item = { type: 'd', size: 0, mtime: '', mode: '', link: '' };
const listing = (items: Record<string, Item | undefined>) =>
  new Map(Object.entries(items).filter((entry): entry is [string, Item] => entry[1] !== undefined));
const NOTHING = { send: [], remove: [], kept: [], theirs: [], conflicts: [] };

/** What becomes of one name, of which these versions stand at `from`, at `to`, and stood on both after the last sync. */
function one(from: string | null, to: string | null, base: string | null, choices = {}) {
  const at = (version: string | null) => listing({ x: version === null ? undefined : file(version) });
  const agreed = new Map<string, Agreed>(base === null ? [] : [['x', { from: file(base), to: file(base) }]]);
  const plan = planSync(at(from), at(to), agreed, { delete: false, force: false, ...choices });
  return Object.entries(plan)
    .flatMap(([kind, paths]) => ((paths as string[]).length > 0 ? [kind] : []))
    .join();
}

test('what becomes of a name', () => {
  assert.equal(one('1', null, null), 'send');
  assert.equal(one('2', '1', '1'), 'send');
  assert.equal(one('1', '1', null), '');
  assert.equal(one('1', '2', '1'), 'theirs');
  assert.equal(one('1', null, '1'), 'theirs');
  assert.equal(one('2', '3', '1'), 'conflicts');
  assert.equal(one('2', '3', null), 'conflicts');
  assert.equal(one('2', null, '1'), 'conflicts');
  assert.equal(one(null, '2', '1'), 'conflicts');
  assert.equal(one(null, '1', '1'), 'kept');
  assert.equal(one(null, '1', null), 'kept');
  assert.equal(one(null, '1', '1', { delete: true }), 'remove');
  assert.equal(one(null, '1', null, { delete: true }), 'remove');
  assert.equal(one(null, '2', '1', { delete: true }), 'conflicts');
  assert.equal(one('2', '3', '1', { force: true }), 'send,conflicts');
  assert.equal(one(null, '2', '1', { force: true }), 'conflicts');
  assert.equal(one(null, '2', '1', { force: true, delete: true }), 'remove,conflicts');
});

test('directories: made before what is in them, removed after it, and only when all of it goes', () => {
  const choices = { delete: true, force: false };
  const made = planSync(listing({ a: dir, 'a/b': dir, 'a/b/c': file('1') }), listing({}), new Map(), choices);
  assert.deepEqual(made, { ...NOTHING, send: ['a', 'a/b', 'a/b/c'] });
  const removed = planSync(listing({}), listing({ a: dir, 'a/b': file('1') }), new Map(), choices);
  assert.deepEqual(removed, { ...NOTHING, remove: ['a/b', 'a'] });
  const agreed = new Map([['a/b', { from: file('1'), to: file('1') }]]);
  const half = planSync(listing({}), listing({ a: dir, 'a/b': file('2') }), agreed, choices);
  assert.deepEqual(half, { ...NOTHING, conflicts: ['a/b'] });
});

test('a file never swallows a directory unasked', () => {
  const agreed = new Map([['a', { from: dir, to: dir }]]);
  const plan = planSync(listing({ a: file('1') }), listing({ a: dir, 'a/b': file('1') }), agreed, {
    delete: false,
    force: false,
  });
  assert.deepEqual([plan.send, plan.conflicts], [[], ['a']]);
});

test('what differs in time alone is no conflict', () => {
  const plan = planSync(
    listing({ x: file('1') }),
    listing({ x: file('2') }),
    new Map(),
    { delete: false, force: false },
    new Set(['x']),
  );
  assert.deepEqual(plan, NOTHING);
});
