import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { contains, overlaps } from './conflict.ts';
import { type Region, RegionSet } from './regions.ts';

const region: fc.Arbitrary<Region> = fc.record({
  path: fc.constantFrom('', 'a', 'ab', 'a/b', 'a/b/c', 'a/bc', 'd'),
  scope: fc.constantFrom('file' as const, 'tree' as const),
});

test('a set of regions answers as a list of all that was put into it would', () => {
  fc.assert(
    fc.property(fc.array(region, { maxLength: 8 }), region, (members, asked) => {
      const set = new RegionSet();
      for (const member of members) set.add(member, true);
      assert.equal(
        set.covering(asked) !== undefined,
        members.some((m) => contains(m, asked)),
      );
      assert.equal(
        set.overlaps(asked),
        members.some((m) => overlaps(m, asked)),
      );
    }),
    { numRuns: 5000 },
  );
});

test('a region inside a member is not a member of its own, so that it goes when that one goes', () => {
  const set = new RegionSet<true>();
  set.add({ path: 'd', scope: 'tree' }, true);
  set.add({ path: 'd/x', scope: 'file' }, true);
  assert.equal(set.size, 1);
  set.delete({ path: 'd', scope: 'tree' });
  assert.equal(set.covering({ path: 'd/x', scope: 'file' }), undefined);
});
