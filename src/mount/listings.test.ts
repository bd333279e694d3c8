/** Which listings the kernel is allowed to keep and to show again, and whose names a cookie is one of. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import * as sys from '../sys/index.ts';
import { Node } from '../view/node.ts';
import { Listing } from './listing.ts';
import { Listings } from './listings.ts';

const CACHE = 8;
const KEEP = 2;

function rig(t: TestContext, namesMax?: number) {
  const dir = mkdtempSync('/var/tmp/gate-listings-');
  const opened: Listing[] = [];
  t.after(() => {
    for (const listing of opened) listing.close();
    rmSync(dir, { recursive: true });
  });
  const changed: string[] = [];
  // The clock is ahead: what changed a moment ago counts as quiet since.
  let wallMs = Date.now() + 60_000;
  const nodes = new Map<string, Node>();
  const listings = new Listings(
    () => wallMs,
    (node) => changed.push([...nodes].find(([, n]) => n === node)![0]),
    namesMax,
  );
  const open = (name: string): [Listing, number] => {
    const node = nodes.get(name) ?? new Node(nodes.size + 2, 1, nodes.size + 2, 0, 0, sys.S_IFDIR);
    nodes.set(name, node);
    const fd = sys.openat(sys.AT_FDCWD, `${dir}/${name}`, sys.O_RDONLY | sys.O_DIRECTORY);
    const listing = new Listing(opened.length + 1, node, fd, null);
    opened.push(listing);
    return [listing, listings.opened(listing)];
  };
  const make = (name: string, ...files: string[]) => {
    mkdirSync(`${dir}/${name}`, { recursive: true });
    for (const file of files) writeFileSync(`${dir}/${name}/${file}`, '');
  };
  /** All names and their cookies, from `cookie` on. */
  const read = (listing: Listing, cookie = 0) => {
    const found = listings.at(listing, cookie);
    assert.ok(typeof found !== 'number');
    const { names, list, position } = found;
    return list.slice(position).map((each, i) => ({
      name: each.name.toString(),
      cookie: listings.cookie(names, position + i),
    }));
  };
  const setWall = (ms: number) => {
    wallMs = ms;
  };
  return { dir, listings, open, make, read, changed, setWall };
}

test('a directory that did not change is shown from what the kernel has; one that did is not', (t) => {
  const { dir, listings, open, make, read, changed } = rig(t);
  make('d', 'a', 'b');
  const [first, flags] = open('d');
  assert.equal(flags, CACHE);
  read(first);
  listings.closed(first);
  assert.equal(open('d')[1], CACHE | KEEP);
  unlinkSync(`${dir}/d/a`);
  assert.deepEqual(changed, []);
  assert.equal(open('d')[1], CACHE);
  assert.deepEqual(changed, ['d']);
  assert.equal(open('d')[1], CACHE | KEEP);
});

test('a directory that changed just now is neither kept nor shown again', (t) => {
  const { open, make, setWall } = rig(t);
  make('d', 'a');
  setWall(Date.now());
  assert.deepEqual([open('d')[1], open('d')[1]], [0, 0]);
  setWall(Date.now() + 1000);
  assert.deepEqual([open('d')[1], open('d')[1]], [CACHE, CACHE | KEEP]);
});

test('a cookie leads on in the names that it is of, also when the directory was read anew meanwhile', (t) => {
  const { dir, open, make, read } = rig(t);
  make('d', 'a', 'b', 'c', 'e');
  const [one] = open('d');
  const before = read(one);
  unlinkSync(`${dir}/d/b`);
  const [two] = open('d');
  const after = read(two);
  assert.equal(after.length, before.length - 1);
  const cookies = [...before, ...after].map((each) => each.cookie);
  assert.equal(new Set(cookies).size, cookies.length);
  assert.ok(cookies.every((cookie) => cookie < 2 ** 31));
  // The kernel may show either what the other was told, and then ask for the rest.
  for (const listing of [one, two]) {
    assert.deepEqual(read(listing, before[1]!.cookie), before.slice(2));
    assert.deepEqual(read(listing, after[1]!.cookie), after.slice(2));
  }
  // Read from the start again, the first one shows what is there now.
  assert.deepEqual(
    read(one).map((each) => each.name),
    after.map((each) => each.name),
  );
});

test('open for long while others read it anew, a directory has cookies of its own', (t) => {
  const { listings, open, make, read } = rig(t);
  make('d', 'a');
  const [long] = open('d');
  const early = read(long);
  for (let i = 0; i < 20; i++) {
    make('d', `n${i}`);
    const [other, flags] = open('d');
    assert.equal(flags, CACHE);
    const cookies = read(other).map((each) => each.cookie);
    assert.ok(!cookies.includes(early[0]!.cookie));
    listings.closed(other);
  }
  assert.deepEqual(read(long, early[0]!.cookie), early.slice(1));
  const many = Array.from({ length: 8 }, (_, i) => {
    make('d', `m${i}`);
    const [listing, flags] = open('d');
    read(listing);
    return flags;
  });
  assert.deepEqual(many, [CACHE, CACHE, CACHE, CACHE, CACHE, CACHE, 0, 0]);
});

test('what is kept for directories that nobody reads is bounded', (t) => {
  const { listings, open, make, read } = rig(t, 10);
  for (const name of ['d', 'e', 'f']) {
    make(name, 'a', 'b');
    const [listing] = open(name);
    read(listing);
    listings.closed(listing);
  }
  assert.deepEqual([open('d')[1], open('e')[1], open('f')[1]], [CACHE, CACHE | KEEP, CACHE | KEEP]);
});
