/**
 * Paths are bytes; JavaScript and JSON have strings. A `PathString` carries any bytes without loss:
 * valid UTF-8 as itself, each byte that is not as the lone surrogate U+DC00 + byte, which JSON writes
 * as `"\udcXX"`. It is Python's `surrogateescape` (PEP 383), so `os.fsdecode` and `os.fsencode` agree.
 */
export type PathString = string;

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const ascii = /^[\x00-\x7f]*$/;

/** Length in bytes of the valid UTF-8 sequence at `at`, or 0 when there is none (RFC 3629). */
function sequenceLength(bytes: Uint8Array, at: number, end: number): number {
  const lead = bytes[at]!;
  if (lead < 0x80) return 1;
  const length =
    lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
  if (length === 0 || at + length > end) return 0;
  for (let i = 1; i < length; i++) if ((bytes[at + i]! & 0xc0) !== 0x80) return 0;
  const second = bytes[at + 1]!;
  if (lead === 0xe0 && second < 0xa0) return 0;
  if (lead === 0xed && second >= 0xa0) return 0;
  if (lead === 0xf0 && second < 0x90) return 0;
  if (lead === 0xf4 && second >= 0x90) return 0;
  return length;
}

function decodeEscaped(bytes: Buffer): PathString {
  let text = '';
  let at = 0;
  while (at < bytes.length) {
    const length = sequenceLength(bytes, at, bytes.length);
    if (length === 0) text += String.fromCharCode(0xdc00 + bytes[at++]!);
    else {
      text += bytes.toString('utf8', at, at + length);
      at += length;
    }
  }
  return text;
}

/** Bytes of a path or name to a string. Never throws, never loses anything. */
export function decodePath(bytes: Buffer): PathString {
  const text = bytes.toString('latin1');
  if (ascii.test(text)) return text;
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return decodeEscaped(bytes);
  }
}

/** The bytes that `decodePath` was given. */
export function encodePath(path: PathString): Buffer {
  if (path.isWellFormed()) return Buffer.from(path, 'utf8');
  const parts: Buffer[] = [];
  let from = 0;
  for (let i = 0; i < path.length; i++) {
    const code = path.charCodeAt(i);
    if (
      code >= 0xd800 &&
      code < 0xdc00 &&
      i + 1 < path.length &&
      (path.charCodeAt(i + 1) & 0xfc00) === 0xdc00
    ) {
      i++;
      continue;
    }
    if (code < 0xdc80 || code > 0xdcff) continue;
    if (i > from) parts.push(Buffer.from(path.slice(from, i), 'utf8'));
    parts.push(Buffer.of(code - 0xdc00));
    from = i + 1;
  }
  if (from < path.length) parts.push(Buffer.from(path.slice(from), 'utf8'));
  return Buffer.concat(parts);
}
