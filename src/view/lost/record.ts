/**
 * What is kept below `<root>/.gate/lost/`: an inode or a copy by the name `<id>`, and beside it `<id>.json` that says whose it is.
 */
import type { PathString } from '../../base/bytes.ts';

/** At the volume's root. The view shows a virtual directory of that name instead. */
export const GATE_DIRECTORY = '.gate';
export const LOST_DIRECTORY = 'lost';
export const RECORD_SUFFIX = '.json';

/**
 * `watched`: somebody may still write to it; it goes when nobody can and nothing was written.
 * `conflict`: something was written to it after its path went to somebody else.
 * `sweep`: what somebody wrote, before somebody else cut, removed or replaced it.
 */
export type LostState = 'watched' | 'conflict' | 'sweep';
/** Why the path went to somebody else. */
export type LostWhy =
  | 'cap'
  | 'forced'
  | 'session_lost'
  | 'lease_expired'
  | 'replaced'
  | 'removed'
  | 'truncated';

export interface LostRecord {
  readonly id: string;
  /** Where it stood, relative to the volume's root. */
  readonly path: PathString;
  readonly state: LostState;
  readonly why: LostWhy;
  /** Whose writes these are; `''` unknown: of a view that died. */
  readonly owner: string;
  /** Who got the path; `''` unknown. */
  readonly by: string;
  /** Unix milliseconds. */
  readonly keptAtMs: number;
  /** When the conflict was seen. */
  readonly seenAtMs?: number;
  readonly ino: string;
  /** Of the content that the path's new holder found, or that was swept. */
  readonly sizeBytes: number;
  readonly mtimeMs: number;
  /** SHA-256 of that content, hexadecimal; absent for a sweep, which nobody compares. */
  readonly hash?: string;
}

const ID = /^[0-9a-z]+-[0-9a-z]+$/;
const STATES: ReadonlySet<unknown> = new Set<LostState>(['watched', 'conflict', 'sweep']);

export function isLostId(name: string): boolean {
  return ID.test(name);
}

/** Ids sort by time. */
export function lostId(wallMs: number, unique: string): string {
  return `${Math.floor(wallMs).toString(36).padStart(9, '0')}-${unique}`;
}

/** Undefined when it is not a record: somebody edited it, or the disk was full. */
export function parseRecord(id: string, text: string): LostRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const record = value as Record<string, unknown>;
  const texts = ['path', 'why', 'owner', 'by', 'ino'].every((key) => typeof record[key] === 'string');
  const numbers = ['keptAtMs', 'sizeBytes', 'mtimeMs'].every((key) => Number.isFinite(record[key]));
  if (!texts || !numbers || !STATES.has(record.state)) return undefined;
  return { ...(record as unknown as LostRecord), id };
}
