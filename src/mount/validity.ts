/**
 * How long the kernel may remember names and attributes before it asks again. What is changed through the view itself is right at once
 * whatever this says; it bounds only how late a change made beside the view is noticed.
 */

/** The tree below can be changed by others, and nobody tells of it. */
export const OUTSIDE_MS = 1000;
/** Nobody else can change the tree below. */
const ALONE_MS = 3_600_000;

/** Of one view; it may change while the view runs. */
export interface Validity {
  ms: number;
}

/** `asked`: what the person wants, undefined: nothing. `alone`: the view is mounted in place, and nobody works in the tree below. */
export function validityMs(asked: number | undefined, alone: boolean): number {
  if (asked !== undefined) return asked;
  return alone ? ALONE_MS : OUTSIDE_MS;
}
