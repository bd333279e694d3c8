/**
 * How long the kernel may remember names and attributes before it asks again. What is changed through the view itself is right at once
 * whatever this says; it bounds only how late a change made beside the view is noticed.
 */

/** The tree below can be changed by others, and nobody tells of it. */
export const OUTSIDE_MS = 1000;
/**
 * Changes beside the view are followed (watch.ts). Not for ever, because of the little that cannot be followed: writes through a mapping that
 * is never closed, a second name that a file gets where the view has never looked.
 */
const FOLLOWED_MS = 600_000;
/** Of a remote kernel, which is told of changes through other doors: at most. */
export const REMOTE_MS = 60_000;
/** Nobody else can change the tree below. */
const ALONE_MS = 3_600_000;

/** Of one view; it may change while the view runs. Milliseconds. */
export interface Validity {
  /** Of names and attributes in general. */
  ms: number;
  /** Where changes beside the view are followed. */
  followedMs: number;
}

/** `asked`: what the person wants, undefined: nothing. `alone`: the view is mounted in place, and nobody works in the tree below. */
export function validityOf(asked: number | undefined, alone: boolean): Validity {
  if (asked !== undefined) return { ms: asked, followedMs: asked };
  return alone ? { ms: ALONE_MS, followedMs: ALONE_MS } : { ms: OUTSIDE_MS, followedMs: FOLLOWED_MS };
}
