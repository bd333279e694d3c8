/**
 * What a sync does, decided from what stands on both sides now and stood there after the last one. One way only: from `from`
 * to `to`; what changed on the other side alone is never written over, and nothing is removed unless that is asked for.
 */
import type { PathString } from '../../base/bytes.ts';
import type { Item, Listing } from './list.ts';

/** Both sides as they were left by the last sync: names on which they agreed. */
export interface Agreed {
  readonly from: Item;
  readonly to: Item;
}

export interface SyncPlan {
  /** Names to be sent, a directory before what is in it. */
  readonly send: readonly PathString[];
  /** Gone at `from`, and to be removed at `to`: only with `delete`. What is in a directory comes before it. */
  readonly remove: readonly PathString[];
  /** Names that only `to` has, or that are gone at `from`: they stay, because `delete` was not asked for. */
  readonly kept: readonly PathString[];
  /** Changed, or removed, at `to` alone: left as they are. */
  readonly theirs: readonly PathString[];
  /** Changed on both sides. With `force` they are among `send` or `remove`, too. */
  readonly conflicts: readonly PathString[];
}

export interface SyncChoices {
  readonly delete: boolean;
  readonly force: boolean;
}

/** Each side's git has its own: it remembers that machine's inodes, and is written by `git status`. */
const OWN = new Set(['.git/index']);

export function same(a: Item | undefined, b: Item | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.type === b.type && a.size === b.size && a.mtime === b.mtime && a.mode === b.mode && a.link === b.link
  );
}

/** `equal`: names of which the content was compared, and is the same on both sides. */
export function planSync(
  from: Listing,
  to: Listing,
  agreed: ReadonlyMap<PathString, Agreed>,
  choices: SyncChoices,
  equal: ReadonlySet<PathString> = new Set(),
): SyncPlan {
  const send: PathString[] = [];
  const remove: PathString[] = [];
  const kept: PathString[] = [];
  const theirs: PathString[] = [];
  const conflicts: PathString[] = [];
  for (const path of new Set([...from.keys(), ...to.keys()])) {
    const ours = from.get(path);
    const other = to.get(path);
    if (same(ours, other) || (equal.has(path) && ours !== undefined && other !== undefined)) continue;
    const base = agreed.get(path);
    const oursChanged = !same(ours, base?.from);
    // What is no directory any more would take along all that is in it.
    const swallows = other?.type === 'd' && ours !== undefined && ours.type !== 'd';
    const theirsChanged = swallows || !same(other, base?.to);
    const isGone = ours === undefined;
    if (oursChanged && theirsChanged) {
      // Nobody ever had it here: it is theirs alone.
      if (isGone && base === undefined) {
        if (choices.delete) remove.push(path);
        else kept.push(path);
        continue;
      }
      if (OWN.has(path)) {
        theirs.push(path);
        continue;
      }
      conflicts.push(path);
      if (choices.force && !isGone) send.push(path);
      if (choices.force && isGone && choices.delete) remove.push(path);
    } else if (oursChanged) {
      if (!isGone) send.push(path);
      else if (choices.delete) remove.push(path);
      else kept.push(path);
    } else if (isGone) {
      if (choices.delete) remove.push(path);
      else kept.push(path);
    } else theirs.push(path);
  }
  const sorted = (paths: PathString[]) => paths.sort();
  return {
    send: withParents(sorted(send), from, to),
    remove: whole(sorted(remove).reverse(), to),
    kept: sorted(kept),
    theirs: sorted(theirs),
    conflicts: sorted(conflicts),
  };
}

/** A file in a directory that `to` lacks brings that along. */
function withParents(paths: readonly PathString[], from: Listing, to: Listing): PathString[] {
  const all = new Set<PathString>();
  for (const path of paths) {
    const names = path.split('/');
    for (let n = 1; n < names.length; n++) {
      const parent = names.slice(0, n).join('/');
      if (to.get(parent)?.type !== 'd' && from.has(parent)) all.add(parent);
    }
    all.add(path);
  }
  return [...all].sort();
}

/** A directory goes only when all in it goes. `paths`: the deepest first. */
function whole(paths: readonly PathString[], to: Listing): PathString[] {
  const going = new Set(paths);
  const stays = new Set<PathString>();
  for (const path of to.keys()) {
    if (going.has(path)) continue;
    for (let at = path.lastIndexOf('/'); at > 0; at = path.lastIndexOf('/', at - 1))
      stays.add(path.slice(0, at));
  }
  return paths.filter((path) => !stays.has(path));
}
