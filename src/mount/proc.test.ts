import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseStat, runsIn, startStackIn } from './proc.ts';

test('the stack is found in the bytes of a stat file as in its text, whatever the program is called', () => {
  const own = readFileSync('/proc/self/stat');
  for (const name of ['node', 'a b', ') 1 2 (', '))', '']) {
    const bytes = Buffer.from(own.toString('latin1').replace(/\(.*\)/s, `(${name})`), 'latin1');
    const wanted = parseStat(bytes.toString('latin1'))!.startStack;
    assert.notEqual(wanted, '0');
    assert.equal(String(startStackIn(bytes, bytes.length)), wanted);
  }
});

test('what is no stat file, or the rest of one, has no stack', () => {
  const stale = readFileSync('/proc/self/stat');
  for (const length of [-3, 0, 5, 40]) assert.equal(startStackIn(stale, length), -1);
  assert.equal(startStackIn(Buffer.from('1 (node) S 1'), 12), -1);
});

test('who runs, or waits in the kernel, is told from who sleeps, is stopped, or is gone', () => {
  const runs = (text: string) => runsIn(Buffer.from(text), text.length);
  for (const state of 'RD') assert.equal(runs(`7 (a) S (b)) ${state} 1 7`), true);
  for (const state of 'STtZXI') assert.equal(runs(`7 (R) ${state} 1 7`), false);
  for (const length of [-3, 0, 2]) assert.equal(runsIn(Buffer.from('7 (a) R 1'), length), false);
});
