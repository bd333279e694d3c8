/** Volumes: shared trees that views have registered, each with an id that outlives everything. */
import { newId } from '../base/ids.ts';
import type { VolumeRow } from '../store/types.ts';
import { below, normalise } from './paths.ts';
import type { BrokerState } from './state.ts';
import { DEFAULT_VOLUME } from './wire.ts';

/** Earlier mount points remembered for one volume. */
const EARLIER_MOUNTS = 8;

export interface Key {
  readonly volume: string;
  readonly path: string;
}

export class Volumes {
  readonly #state: BrokerState;
  readonly #byRoot = new Map<string, VolumeRow>();

  constructor(state: BrokerState) {
    this.#state = state;
    for (const [, row] of state.parts.store.rows('volume')) this.#byRoot.set(row.root, row);
  }

  list(): VolumeRow[] {
    return [...this.#byRoot.values()];
  }

  /** The same root is the same volume, for ever; where it is mounted, and its inode, may change. */
  register(wanted: { root: string; mount: string | null; dev: string; ino: string }): VolumeRow {
    const known = this.#byRoot.get(wanted.root);
    const mounts = [known?.mount, ...(known?.earlierMounts ?? [])];
    const earlierMounts = mounts
      .filter((one) => one != null && one !== wanted.mount)
      .slice(0, EARLIER_MOUNTS) as string[];
    const row: VolumeRow = known
      ? { ...known, ...wanted, earlierMounts }
      : { id: newId('vol'), registeredAtMs: this.#state.nowMs(), ...wanted };
    if (JSON.stringify(row) === JSON.stringify(known)) return row;
    this.#byRoot.set(row.root, row);
    this.#state.change((batch) => batch.put('volume', row.id, row));
    this.#state.event({
      type: 'volume_registered',
      volume: row.id,
      message: `${row.root} at ${row.mount ?? 'no mount'}`,
    });
    return row;
  }

  /**
   * The key of an HTTP client's path: inside a registered root or mount (the deepest one) it is relative to that
   * volume; any other path belongs to the volume `default`. A path with a volume named is relative to that.
   */
  keyOf(field: string, path: string, volume: string | undefined): Key {
    const clean = normalise(field, path);
    if (volume === undefined && clean.startsWith('/')) {
      let best: Key | undefined;
      let bestLength = -1;
      for (const row of this.#byRoot.values())
        for (const [rank, top] of [row.root, row.mount, ...(row.earlierMounts ?? [])].entries()) {
          const inside = top === null ? undefined : below(clean, top);
          if (inside === undefined) continue;
          // The deepest; of two volumes that were mounted on one place, the one that is.
          const length = top!.length + (rank < 2 ? 0.5 : 0);
          if (length <= bestLength) continue;
          best = { volume: row.id, path: inside };
          bestLength = length;
        }
      if (best) return best;
    }
    return { volume: volume ?? DEFAULT_VOLUME, path: clean.replace(/^\//, '') };
  }
}
