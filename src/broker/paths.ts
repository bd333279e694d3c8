/** Paths at the edge: what is refused, and how an HTTP path becomes a key. */
import { decodePath, encodePath } from '../base/bytes.ts';
import { GateError } from '../base/errors.ts';
import { LIMITS } from '../base/limits.ts';

/** An empty, `.` or `..` component. */
const oddComponent = /(?:^|\/)\.{0,2}(?:\/|$)/;
const MOST_BYTES_OF_A_CHARACTER = 3;

function refuse(field: string, why: string): never {
  throw new GateError('invalid_request', `${field}: ${why}`, { field });
}

function checkText(field: string, path: string): void {
  if (path.includes('\0')) refuse(field, 'the path has a NUL in it');
  if (!path.isWellFormed() && decodePath(encodePath(path)) !== path)
    refuse(field, 'the path has a surrogate that stands for no byte');
  const limit = LIMITS.pathBytes;
  if (path.length * MOST_BYTES_OF_A_CHARACTER > limit && encodePath(path).length > limit)
    refuse(field, `the path is longer than ${limit} bytes`);
}

/** Checks a normalised path below a volume's root, as the session protocol sends it. Throws `invalid_request`. */
export function checkKey(field: string, path: string): void {
  checkText(field, path);
  if (path !== '' && oddComponent.test(path))
    refuse(field, 'the path must be relative to the volume, without ".", ".." and empty parts');
}

/** Normalises a path of an HTTP client: `//` and `.` go, `..` and NUL are refused. Absolute stays absolute. */
export function normalise(field: string, path: string): string {
  checkText(field, path);
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) refuse(field, 'the path has ".." in it');
  return (path.startsWith('/') ? '/' : '') + parts.join('/');
}

/** The part of `path` below `root` (`''` for the root itself), or undefined. Both absolute and normalised. */
export function below(path: string, root: string): string | undefined {
  if (path === root) return '';
  if (root === '/') return path.slice(1);
  return path.startsWith(`${root}/`) ? path.slice(root.length + 1) : undefined;
}
