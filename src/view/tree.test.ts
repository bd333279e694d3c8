import assert from 'node:assert/strict';
import { linkSync, mkdtempSync, openSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as sys from '../sys/index.ts';
import type { Node } from './node.ts';
import { scratch } from './scratch.ts';
import { Tree } from './tree.ts';

// git makes each of its objects so: without this, 20,000 of them used up the descriptors of the view.
test('a node that lost a name and kept another gives its descriptor back; one without any keeps it', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'gate-tree-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const tree = new Tree(openSync(dir, sys.O_PATH), 4, new sys.StatBuf());
  t.after(() => tree.close());
  const look = (name: string): Node => {
    const node = tree.lookup(tree.root, name, scratch);
    assert.ok(typeof node !== 'number');
    node.lookups++;
    return node;
  };
  const nodes: Node[] = [];
  for (let i = 0; i < 20; i++) {
    writeFileSync(join(dir, `temporary${i}`), '');
    const node = look(`temporary${i}`);
    linkSync(join(dir, `temporary${i}`), join(dir, `object${i}`));
    assert.equal(look(`object${i}`), node);
    tree.pin(node);
    unlinkSync(join(dir, `temporary${i}`));
    tree.removed(tree.root, `temporary${i}`);
    nodes.push(node);
  }
  assert.ok(nodes.filter((node) => node.fd >= 0).length <= 5, 'more descriptors than the cache may keep');
  for (const node of nodes) assert.equal(tree.stat(node, scratch), 0);

  const open = nodes.at(-1)!;
  tree.pin(open);
  unlinkSync(join(dir, 'object19'));
  tree.removed(tree.root, 'object19');
  for (const node of nodes) tree.fd(node);
  assert.equal(tree.stat(open, scratch), 0);
  assert.equal(scratch.nlink, 0);
});
