/** The rows of scripts/bench: what is measured, by which script, and how it is shown. */

/** `loop`, `tools`: for every place (bench-loop.ts, bench-tools.ts). `pairs`, `waiters`, `locks`: of a broker (bench-broker.ts). `idle`: of the first view. */
export type Group = 'loop' | 'tools' | 'pairs' | 'waiters' | 'locks' | 'idle';

export interface Row {
  /** What `--row` takes. */
  readonly key: string;
  readonly name: string;
  readonly group: Group;
  /** Bytes of one operation, for throughputs. */
  readonly bytes?: number;
}

const MiB = 1024 * 1024;

export const ROWS: readonly Row[] = [
  { key: 'openClose', name: 'open+close, reading', group: 'loop' },
  { key: 'openCloseWrite', name: 'open+close, writing', group: 'loop' },
  { key: 'create', name: 'create+close', group: 'loop' },
  { key: 'stat', name: 'stat', group: 'loop' },
  { key: 'readMiB', name: 'read, 1 MiB each', group: 'loop', bytes: MiB },
  { key: 'writeMiB', name: 'write, 1 MiB each', group: 'loop', bytes: MiB },
  { key: 'read4k', name: 'read, 4 KiB each', group: 'loop', bytes: 4096 },
  { key: 'write4k', name: 'write, 4 KiB each', group: 'loop', bytes: 4096 },
  { key: 'gitStatus', name: 'git status, warm', group: 'tools' },
  { key: 'rg', name: 'rg, warm', group: 'tools' },
  { key: 'gitClone', name: 'git clone', group: 'tools' },
  { key: 'untar', name: 'tar c | tar x', group: 'tools' },
  { key: 'npmCi', name: 'npm ci, packages in its cache', group: 'tools' },
  { key: 'pairs', name: 'broker, one connection, pipelined, durable', group: 'pairs' },
  { key: 'nextGrant', name: 'release to next grant, 1,000 waiters', group: 'waiters' },
  { key: 'lockBytes', name: 'memory of a held lock', group: 'locks' },
  { key: 'restart', name: 'restart with all these locks', group: 'locks' },
  { key: 'idle', name: 'CPU of an idle mount', group: 'idle' },
];

/** The rows of these keys, in the table's order; all for none. Throws for an unknown one. */
export function rowsOf(keys: readonly string[]): readonly Row[] {
  for (const key of keys)
    if (!ROWS.some((row) => row.key === key))
      throw new Error(`there is no row '${key}', but ${ROWS.map((row) => row.key).join(', ')}`);
  return keys.length === 0 ? ROWS : ROWS.filter((row) => keys.includes(row.key));
}

export function keysOf(rows: readonly Row[], group: Group): string[] {
  return rows.filter((row) => row.group === group).map((row) => row.key);
}
