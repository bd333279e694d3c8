import { isBelow } from './paths.ts';
import type { Kind, Mode, Target } from './types.ts';

/**
 * What a target excludes depends on its mode and, for a read, on its kind. That makes four classes; a mask has
 * one bit for each.
 */
export type Class = 0 | 1 | 2 | 3;
export const WRITE = 0;
export const REPLACE = 1;
export const NAME_READ = 2;
export const HANDLE_READ = 3;

/** Class by class: the classes that it conflicts with. Symmetric. */
export const CONFLICTS: readonly number[] = [
  0b1111, // a write: everything
  0b0111, // a replace: everything but a handle read, whose inode stays
  0b0011, // a name read: writes and replaces
  0b0001, // a handle read: writes
];

export function classOf(mode: Mode, kind: Kind): Class {
  if (mode === 'write') return WRITE;
  if (mode === 'replace') return REPLACE;
  return kind === 'name' ? NAME_READ : HANDLE_READ;
}

/**
 * True when who holds `held` needs nothing more for `asked`: everybody whom `asked` shuts out is shut out
 * already, and what `asked` permits is permitted. So write covers all, a name read covers a handle read (not the
 * other way round: a handle read does not keep the name), and replace covers replace only, for it says nothing
 * about the content.
 */
export function classCovers(held: Class, asked: Class): boolean {
  if (held === REPLACE) return asked === REPLACE;
  return (CONFLICTS[held]! | CONFLICTS[asked]!) === CONFLICTS[held];
}

type Region = Pick<Target, 'path' | 'scope'>;

/** True when every path of `b` is a path of `a`. */
export function contains(a: Region, b: Region): boolean {
  if (a.path === b.path) return a.scope === 'tree' || b.scope === 'file';
  return a.scope === 'tree' && isBelow(b.path, a.path);
}

/** True when some path belongs to both. */
export function overlaps(a: Region, b: Region): boolean {
  if (a.path === b.path) return true;
  return (a.scope === 'tree' && isBelow(b.path, a.path)) || (b.scope === 'tree' && isBelow(a.path, b.path));
}
