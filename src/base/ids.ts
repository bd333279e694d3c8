import { randomBytes } from 'node:crypto';

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

/** A new id that nobody else has: `prefix_` and 16 characters of Crockford's base 32 (80 bits). */
export function newId(prefix: string): string {
  let text = '';
  for (const byte of randomBytes(16)) text += ALPHABET[byte & 31];
  return `${prefix}_${text}`;
}

/** A secret of 256 bits, hexadecimal. */
export function newSecret(): string {
  return randomBytes(32).toString('hex');
}
