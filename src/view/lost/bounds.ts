/** How much is kept, and for how long: decides what goes. Nothing goes before people were warned of it. */
import type { Kept } from './folder.ts';

export interface Bounds {
  readonly bytes: number;
  readonly days: number;
}

export const DEFAULT_BOUNDS: Bounds = { bytes: 1024 ** 3, days: 14 };

const DAY_MS = 86_400_000;
/** People are warned when more than this share of the room is taken, and a day before something is too old; then so much is made free. */
const WARN_SHARE = 0.8;
/** From the warning to the first removal; until then sweeps over the bound are not kept at all. */
export const WARNED_MS = 3_600_000;

export interface Verdict {
  readonly bytes: number;
  /** What would go, or soon will: a reason to warn. */
  readonly soon: number;
  /** Ids of what is too old, or takes the room that is to be free, the first to go first. */
  readonly over: readonly string[];
}

/** What may still be written to never goes; sweeps go before conflicts, older before younger. */
export function judge(kept: readonly Kept[], bounds: Bounds, nowMs: number): Verdict {
  const order = kept
    .filter(({ record }) => record.state !== 'watched')
    .sort((a, b) => {
      if (a.record.state !== b.record.state) return a.record.state === 'sweep' ? -1 : 1;
      return a.record.keptAtMs - b.record.keptAtMs;
    });
  let bytes = 0;
  for (const { diskBytes } of kept) bytes += diskBytes;
  const isOld = ({ record }: Kept, marginMs: number) =>
    nowMs - record.keptAtMs > bounds.days * DAY_MS - marginMs;
  const over: string[] = [];
  let left = bytes;
  for (const each of order) {
    if (!isOld(each, 0) && left <= bounds.bytes * WARN_SHARE) continue;
    over.push(each.record.id);
    left -= each.diskBytes;
  }
  const aging = order.filter((each) => isOld(each, DAY_MS)).length;
  return { bytes, soon: Math.max(aging, bytes > bounds.bytes * WARN_SHARE ? 1 : 0), over };
}
