import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isBelow, isNormalised, normalisePath, parentOf } from './paths.ts';

test('a path has one spelling', () => {
  for (const path of ['a/b', '/a/b', 'a//b', './a/./b/', '//a/b//']) assert.equal(normalisePath(path), 'a/b');
  for (const path of ['', '/', '.', './/.']) assert.equal(normalisePath(path), '');
  assert.equal(normalisePath('...'), '...');
  assert.equal(normalisePath('.a/..b/c..'), '.a/..b/c..');
});

test('what a normalised path is, isNormalised knows', () => {
  for (const path of ['', 'a', 'a/b', '...', 'a/.b']) assert.ok(isNormalised(path), path);
  for (const path of ['/', '/a', 'a/', 'a//b', '.', 'a/.', '..', 'a/../b', 'a\0'])
    assert.ok(!isNormalised(path), path);
});

test('NUL, .. and what is too long are refused, and the field is named', () => {
  assert.throws(() => normalisePath('a/../b', 'from'), /from: '\.\.'/);
  assert.throws(() => normalisePath('a\0b'), /path: contains a NUL/);
  assert.throws(() => normalisePath('é'.repeat(128)), /255/);
  assert.throws(() => normalisePath('abcdefg/'.repeat(2100)), /16384/);
});

test('below means below, not beside', () => {
  assert.ok(
    isBelow('a/b', 'a') && isBelow('a', '') && !isBelow('ab', 'a') && !isBelow('a', 'a') && !isBelow('', ''),
  );
  assert.equal(parentOf('a/b'), 'a');
  assert.equal(parentOf('a'), '');
});
