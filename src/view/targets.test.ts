import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as sys from '../sys/index.ts';
import { Exclusions } from './exclude.ts';
import type { Node } from './node.ts';
import { scratch } from './scratch.ts';
import { Planner } from './targets.ts';
import { Tree } from './tree.ts';

test('what an open locks is remembered until a directory above it moves, here or beneath, or the rules change', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'gate-targets-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  mkdirSync(join(dir, 'a/b'), { recursive: true });
  writeFileSync(join(dir, 'a/b/f'), 'x');
  const tree = new Tree(openSync(dir, sys.O_PATH), 100, new sys.StatBuf());
  t.after(() => tree.close());
  const exclusions = new Exclusions(tree, { lockIgnored: false });
  const planner = new Planner(tree, exclusions);
  const look = (parent: Node, name: string): Node => {
    const node = tree.lookup(parent, name, scratch);
    assert.ok(typeof node !== 'number');
    node.lookups++;
    return node;
  };
  const a = look(tree.root, 'a');
  const file = look(look(a, 'b'), 'f');
  const plan = () => planner.ofOpen(file, 'write');
  assert.deepEqual(plan()?.targets, [{ path: 'a/b/f', mode: 'write', scope: 'file' }]);
  assert.equal(plan()?.targets, plan()?.targets);
  assert.deepEqual(planner.ofOpen(file, 'read')?.targets, [{ path: 'a/b/f', mode: 'read', scope: 'file' }]);

  renameSync(join(dir, 'a'), join(dir, 'c'));
  tree.renamed(tree.root, 'a', tree.root, 'c');
  exclusions.changed();
  assert.equal(plan()?.path, 'c/b/f');

  renameSync(join(dir, 'c'), join(dir, 'd'));
  look(tree.root, 'd');
  assert.equal(plan()?.path, 'd/b/f');

  writeFileSync(join(dir, '.gateignore'), 'f\n');
  exclusions.changed();
  assert.equal(plan(), null);
});
