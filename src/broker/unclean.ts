/**
 * Unclean paths: where somebody may still write whom no lock stops any more. A hold that ended other than by its holder's own
 * release (its cap, a lost session, force) may have a writer left: a passthrough descriptor or a mapping goes on
 * writing whatever becomes of the view. So its path is written down here, and every grant that touches it says so,
 * until a view has looked and reports it `clean`.
 *
 * - One record a path; one for a whole volume (path `''`, scope `tree`) when a delegate died, because the broker does not know
 *   what it had granted. That one stands for all older records of the volume.
 * - Records of one volume are bounded (`LIMITS.uncleanPaths`): beyond it they become one for the whole volume.
 * - A hold that did not guard content (`replace`), or guarded names below a folder, leaves nothing unclean; nor does a broken
 *   read. Paths of the volume `default` are in no view, so nobody could clean them: they are not recorded.
 */
import { overlaps } from '../lock/conflict.ts';
import type { Hold, ReleaseReason, Target } from '../lock/types.ts';
import type { Batch, UncleanRow } from '../store/types.ts';
import { shownOwner } from './owners.ts';
import { DEFAULT_VOLUME, DELEGATE_OWNER, type UncleanPath } from './wire.ts';

/** Prefix of targets that stand for an inode, not for a path (view/targets.ts). */
const INODE_PREFIX = '#ino/';

export interface UncleanParts {
  readonly rows: Iterable<readonly [string, UncleanRow]>;
  readonly pathsMax: number;
  readonly newId: () => string;
  readonly nowMs: () => number;
  /** Puts a change into the batch of this turn. */
  readonly change: (write: (batch: Batch) => void) => void;
}

export class Unclean {
  readonly #parts: UncleanParts;
  /** By volume, then by path. */
  readonly #volumes = new Map<string, Map<string, UncleanRow>>();
  /** A record was made. */
  onAdded: (row: UncleanRow) => void = () => {};

  constructor(parts: UncleanParts) {
    this.#parts = parts;
    for (const [, row] of parts.rows) this.#of(row.volume).set(row.path, row);
  }

  /** A hold is gone for a reason that is not its holder's release. */
  ended(hold: Hold, reason: ReleaseReason): void {
    if (hold.volume === DEFAULT_VOLUME || hold.owner === DELEGATE_OWNER || hold.detached) return;
    const records = this.#volumes.get(hold.volume);
    // Its view died with it, and left the whole volume unclean.
    if (reason === 'session_lost' && records?.get('')?.session === hold.session) return;
    for (const { path, mode, scope } of hold.targets)
      if (mode === 'write' && scope === 'file' && !path.startsWith(INODE_PREFIX))
        this.#add({ path, scope, why: reason, owner: shownOwner(hold.owner).owner, ...aboutHold(hold) });
  }

  /** Nobody knows what was held in this volume. */
  whole(volume: string, session: string, why: UncleanRow['why']): void {
    for (const row of [...this.#of(volume).values()]) this.#drop(row);
    this.#add({ volume, session, path: '', scope: 'tree', why, owner: '' });
  }

  /** Records that these targets touch; undefined when there are none. */
  touching(volume: string, targets: readonly Target[]): UncleanPath[] | undefined {
    const records = this.#volumes.get(volume);
    if (records === undefined || records.size === 0) return undefined;
    const found = new Set<UncleanRow>();
    const root = records.get('');
    if (root !== undefined) found.add(root);
    for (const target of targets)
      if (target.scope === 'tree') {
        for (const row of records.values()) if (overlaps(row, target)) found.add(row);
      } else {
        const row = records.get(target.path);
        if (row !== undefined) found.add(row);
      }
    return found.size === 0 ? undefined : [...found].map(shown);
  }

  of(volume: string): UncleanPath[] {
    return [...(this.#volumes.get(volume)?.values() ?? [])].map(shown);
  }

  /**
   * A view has looked: nobody can write there any more, except on `still`, whose records take the place of one for the whole
   * volume. Ids that are not known (any more) do not matter.
   */
  clean(volume: string, ids: readonly string[], still: readonly string[]): void {
    const wanted = new Set(ids);
    for (const row of [...(this.#volumes.get(volume)?.values() ?? [])]) {
      if (!wanted.has(row.id)) continue;
      this.#drop(row);
      const { session, why, owner } = row;
      if (row.scope === 'tree')
        for (const path of still) this.#add({ volume, path, scope: 'file', session, why, owner });
    }
  }

  #add(record: Omit<UncleanRow, 'id' | 'sinceMs'>): void {
    const records = this.#of(record.volume);
    if (records.size >= this.#parts.pathsMax && !records.has(record.path))
      return this.whole(record.volume, record.session, record.why);
    const row: UncleanRow = { ...record, id: this.#parts.newId(), sinceMs: this.#parts.nowMs() };
    records.set(row.path, row);
    this.#parts.change((batch) => batch.put('unclean', keyOf(row), row));
    this.onAdded(row);
  }

  #drop(row: UncleanRow): void {
    const records = this.#of(row.volume);
    records.delete(row.path);
    if (records.size === 0) this.#volumes.delete(row.volume);
    this.#parts.change((batch) => batch.delete('unclean', keyOf(row)));
  }

  #of(volume: string): Map<string, UncleanRow> {
    const known = this.#volumes.get(volume);
    if (known !== undefined) return known;
    const records = new Map<string, UncleanRow>();
    this.#volumes.set(volume, records);
    return records;
  }
}

function aboutHold({ volume, session }: Hold): { volume: string; session: string } {
  return { volume, session };
}

/** Volume ids have no blanks. */
function keyOf({ volume, path }: UncleanRow): string {
  return `${volume} ${path}`;
}

export function shown({ id, path, scope, sinceMs, why, owner }: UncleanRow): UncleanPath {
  return { id, path, scope, sinceMs, why, owner };
}
