/**
 * Holds as the database keeps them: a JSON array without names, and without what is usual at its end. That is a third of
 * the bytes, and bytes are what a commit costs. The order is part of the schema.
 */
import type { Hold, Mode, Target, Who } from '../../lock/types.ts';

const MODES: readonly Mode[] = ['read', 'write', 'replace'];

/** Targets are path, mode, scope after each other. */
type Packed = [
  requestId: string,
  session: string,
  volume: string,
  owner: string,
  handle: 0 | 1,
  targets: (string | number)[],
  ticket: number,
  token: number,
  count: number,
  grantedAtMs: number,
  coveredForMs: number,
  leaseMs?: number | null,
  leaseExpiresAtMs?: number | null,
  holdCapMs?: number | null,
  detached?: 0 | 1,
  who?: Who | null,
  joined?: readonly string[] | null,
  spread?: 1,
];

export function packHold(hold: Hold): Packed {
  const { requestId, session, volume, owner, ticket, token, count, grantedAtMs } = hold;
  const targets: (string | number)[] = [];
  for (const { path, mode, scope } of hold.targets)
    targets.push(path, MODES.indexOf(mode), scope === 'tree' ? 1 : 0);
  const handle = hold.kind === 'handle' ? 1 : 0;
  const coveredForMs = grantedAtMs - hold.coveredSinceMs;
  const packed: Packed = [
    requestId,
    session,
    volume,
    owner,
    handle,
    targets,
    ticket,
    token,
    count,
    grantedAtMs,
    coveredForMs,
  ];
  const { leaseMs, leaseExpiresAtMs, holdCapMs, detached, who, joined, spread } = hold;
  const rare = who || joined || spread;
  if (leaseMs !== null || leaseExpiresAtMs !== null || holdCapMs !== null || detached || rare)
    packed.push(leaseMs, leaseExpiresAtMs, holdCapMs, detached ? 1 : 0);
  if (rare) packed.push(who ?? null);
  if (joined || spread) packed.push(joined ?? null);
  if (spread) packed.push(1);
  return packed;
}

/** One string for all equal ones: a million locks have few sessions and owners. */
export type Intern = (text: string) => string;

export function interner(): Intern {
  const known = new Map<string, string>();
  return (text) => {
    const one = known.get(text);
    if (one !== undefined) return one;
    known.set(text, text);
    return text;
  };
}

function targetAt(flat: Packed[5], i: number): Target {
  return {
    path: String(flat[i]),
    mode: MODES[Number(flat[i + 1])]!,
    scope: flat[i + 2] === 1 ? 'tree' : 'file',
  };
}

/** Throws when it is not what `packHold` made. */
export function unpackHold(lockId: string, value: unknown, intern: Intern): Hold {
  if (!Array.isArray(value) || value.length < 11 || !Array.isArray(value[5]))
    throw new Error(`${lockId} is not a hold`);
  const row = value as Packed;
  const flat = row[5];
  // A literal has no room to grow; an array that is pushed to gets some, for ever.
  const targets = [targetAt(flat, 0)];
  for (let i = 3; i < flat.length; i += 3) targets.push(targetAt(flat, i));
  const hold: Hold = {
    lockId,
    requestId: row[0],
    session: intern(row[1]),
    volume: intern(row[2]),
    owner: intern(row[3]),
    kind: row[4] === 1 ? 'handle' : 'name',
    targets,
    ticket: row[6],
    token: row[7],
    count: row[8],
    grantedAtMs: row[9],
    coveredSinceMs: row[9] - row[10],
    leaseMs: row[11] ?? null,
    leaseExpiresAtMs: row[12] ?? null,
    holdCapMs: row[13] ?? null,
    detached: row[14] === 1,
  };
  const who = row[15];
  const joined = row[16];
  const spread = row[17] === 1 ? ({ spread: true } as const) : null;
  if (!who && !joined && !spread) return hold;
  return { ...hold, ...(who && { who }), ...(joined && { joined }), ...spread };
}
