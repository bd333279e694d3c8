import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodePath, encodePath } from './bytes.ts';

test('any bytes survive the way to a string, through JSON, and back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const text = JSON.parse(JSON.stringify(decodePath(Buffer.from(bytes)))) as string;
      assert.deepEqual(encodePath(text), Buffer.from(bytes));
    }),
    { numRuns: 5000 },
  );
});

test('valid UTF-8 is itself, other bytes are escaped as Python does (PEP 383)', () => {
  assert.equal(decodePath(Buffer.from('grün/日本.ts')), 'grün/日本.ts');
  assert.equal(decodePath(Buffer.from([0x61, 0xff, 0x62])), 'a\udcffb');
  // A surrogate encoded as UTF-8 is not valid UTF-8 (RFC 3629): three bytes, three escapes.
  assert.equal(decodePath(Buffer.from([0xed, 0xb2, 0x80])), '\udced\udcb2\udc80');
  assert.equal(decodePath(Buffer.from([0xf0, 0x9f, 0x98])), '\udcf0\udc9f\udc98');
  assert.equal(decodePath(Buffer.from([0xc3, 0xa4, 0xff])), 'ä\udcff');
});
