import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { FuseApi } from '../fuse/types.ts';
import * as sys from '../sys/index.ts';
import type { Node } from '../view/node.ts';
import { Tree } from '../view/tree.ts';
import type { View } from '../view/view.ts';
import { openWatch, parentOf, Watch } from './watch.ts';

/** A tree of real directories, watched by a real group, with nobody behind it. */
function watched(t: TestContext, directoriesMax: number) {
  const dir = fs.mkdtempSync('/var/tmp/gate-watch-');
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const tree = new Tree(sys.openat(sys.AT_FDCWD, dir, sys.O_PATH | sys.O_DIRECTORY), 100, new sys.StatBuf());
  const opened = openWatch(tree.root.fd);
  if (!('group' in opened)) return { why: opened.why };
  t.after(() => {
    sys.close(opened.group);
    tree.close();
  });
  const clock = { now: 0, nowMs: () => clock.now, after: () => ({ cancel() {} }) };
  const logged: string[] = [];
  const watch = new Watch({
    view: { tree, clock } as unknown as View,
    api: { negotiated: { minor: 45 } } as FuseApi,
    group: opened.group,
    directoriesMax,
    notify: () => {},
    repeat: () => {},
    wake: () => {},
    log: (message) => logged.push(message),
  });
  const look = (parent: Node, name: string): Node => {
    const found = tree.lookup(parent, name, new sys.StatBuf());
    assert.ok(typeof found !== 'number');
    found.lookups++;
    return found;
  };
  return { dir, tree, watch, clock, logged, look };
}

test('beyond the limit of directories nothing is followed, until others are forgotten', (t) => {
  const made = watched(t, 3);
  if ('why' in made) return t.skip(made.why);
  const { dir, tree, watch, clock, logged, look } = made;
  for (const name of ['a', 'b', 'c', 'd']) {
    fs.mkdirSync(join(dir, name));
    fs.writeFileSync(join(dir, name, 'file'), '');
  }
  const nodes = ['a', 'b', 'c', 'd'].map((name) => look(tree.root, name));
  for (const node of nodes) watch.ensure(node);
  assert.deepEqual(
    nodes.map((node) => watch.follows(node)),
    [true, true, true, false],
  );
  assert.equal(watch.directories, 3);
  assert.equal(watch.follows(look(nodes[0]!, 'file')), true);
  assert.equal(watch.follows(look(nodes[3]!, 'file')), false);
  watch.ensure(nodes[3]!);
  assert.equal(logged.length, 1);

  tree.forget(nodes[1]!, 1);
  assert.equal(watch.directories, 2);
  watch.ensure(nodes[3]!);
  assert.equal(watch.follows(nodes[3]!), false, 'not at once: it is asked again only after a while');
  clock.now += 60_000;
  watch.ensure(nodes[3]!);
  assert.equal(watch.follows(nodes[3]!), true);
});

test('a file with a second name is not followed: it can be changed by a name elsewhere', (t) => {
  const made = watched(t, 3);
  if ('why' in made) return t.skip(made.why);
  const { dir, tree, watch, look } = made;
  fs.writeFileSync(join(dir, 'one'), '');
  watch.ensure(tree.root);
  assert.equal(watch.follows(look(tree.root, 'one')), true);
  fs.linkSync(join(dir, 'one'), join(dir, 'two'));
  assert.equal(watch.follows(look(tree.root, 'one')), false);
});

test('the directory of a path', () => {
  assert.equal(parentOf('a/b/c'), 'a/b');
  assert.equal(parentOf('a'), '');
  assert.equal(parentOf(''), '');
});
