import { encodePath, type PathString } from '../base/bytes.ts';
import { GateError } from '../base/errors.ts';
import { LIMITS } from '../base/limits.ts';

/** Matches whatever `normalisePath` would change or refuse: NUL, and the components ``, `.` and `..`. */
const unclean = /\0|(?:^|\/)\.{0,2}(?:\/|$)/;

/** True for a path that `normalisePath` gives back as it is (its length is not looked at). */
export function isNormalised(path: PathString): boolean {
  return path === '' || !unclean.test(path);
}

/** Throws `invalid_request` when a path, or one name in it, is longer than a file system takes. */
export function checkPathLength(path: PathString, field: string): void {
  // A UTF-16 unit is at most three bytes: most paths need no counting.
  if (path.length * 3 <= LIMITS.nameBytes) return;
  if (encodePath(path).length > LIMITS.pathBytes)
    throw new GateError('invalid_request', `${field}: longer than ${LIMITS.pathBytes} bytes`, { field });
  for (const name of path.split('/'))
    if (encodePath(name).length > LIMITS.nameBytes)
      throw new GateError('invalid_request', `${field}: a name longer than ${LIMITS.nameBytes} bytes`, {
        field,
      });
}

/**
 * The one spelling of a path below a volume's root: no leading, trailing or double slash, no `.`; `''` is
 * the root. Throws `invalid_request`, naming `field`, on a NUL, on `..`, and on a path that is too long.
 */
export function normalisePath(path: PathString, field = 'path'): PathString {
  let clean = path;
  if (!isNormalised(path)) {
    if (path.includes('\0')) throw new GateError('invalid_request', `${field}: contains a NUL`, { field });
    const names = path.split('/').filter((name) => name !== '' && name !== '.');
    if (names.includes('..'))
      throw new GateError('invalid_request', `${field}: '..' is not allowed`, { field });
    clean = names.join('/');
  }
  checkPathLength(clean, field);
  return clean;
}

/** The path of the directory that a path lies in; the parent of `a` is `''`. Not for `''`. */
export function parentOf(path: PathString): PathString {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

/** True when `path` lies below `directory`; no path lies below itself. */
export function isBelow(path: PathString, directory: PathString): boolean {
  if (path.length <= directory.length) return false;
  if (directory === '') return true;
  return path.charCodeAt(directory.length) === 47 && path.startsWith(directory);
}
