/**
 * Figures for this machine: the native directory, the view of it, and any other directory, in interleaved rounds; medians.
 * Absolute times mean little on a shared machine, so each is also given as speed relative to native.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { existingView, OwnMounts, type Place } from './bench-places.ts';
import { type Group, keysOf, ROWS, type Row, rowsOf } from './bench-rows.ts';
import { runAsUser } from './bench-user.ts';

const HELP = `scripts/bench [ROW…] [--view DIR] [--against DIR]… [--peer COMMAND]… [--user UID] [--rounds N] [--budget-ms N] [--dir DIR] [--json FILE]

  ROW, --row ROW         only these rows (default: all): ${ROWS.map((row) => row.key).join(', ')}
  --view DIR             a mounted view (default: makes some of its own, and takes them down: one, and where it has kernel
                         passthrough another without)
  --against DIR          another directory to set beside them; may be repeated
  --peer [NAME=]COMMAND  mounts $ROOT on $MOUNT, for example 'passthrough_ll -o source=$ROOT $MOUNT'; may be repeated
  --user UID             as root: everything is done by this ordinary user, also the mounts
  --rounds N             interleaved rounds, of which the median counts (default 5)
  --files N              git, rg and tar work on a tree of N files (default 20000; a peer that keeps a descriptor for each file
                         fails when it may not have as many)
  --locks N              held locks of the rows lockBytes and restart (default 1000000)
  --budget-ms N          time for each measure of each round (default 100)
  --dir DIR              where its own directories and state are made (default: the temporary directory)
  --json FILE            write the medians there too
`;

const {
  values: flags,
  tokens,
  positionals,
} = parseArgs({
  options: {
    view: { type: 'string' },
    against: { type: 'string', multiple: true, default: [] },
    peer: { type: 'string', multiple: true, default: [] },
    user: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    files: { type: 'string', default: '20000' },
    locks: { type: 'string', default: '1000000' },
    row: { type: 'string', multiple: true, default: [] },
    'budget-ms': { type: 'string', default: '100' },
    dir: { type: 'string', default: tmpdir() },
    json: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
  tokens: true,
  allowPositionals: true,
});
if (flags.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
if (flags.user !== undefined) {
  const rest = tokens.flatMap((token) =>
    token.kind === 'option' && !['user', 'dir', 'json'].includes(token.name)
      ? [token.rawName, ...(token.value === undefined ? [] : [token.value])]
      : [],
  );
  process.exit(runAsUser(Number(flags.user), flags.dir, flags.json, [...positionals, ...rest]));
}

const here = import.meta.dirname;
const rounds = Number(flags.rounds);
const budgetMs = Number(flags['budget-ms']);
const files = Number(flags.files);
type Figures = Record<string, number>;

const rows = rowsOf([...positionals, ...flags.row]);

/** A child that is not Gate, and no actor of anybody's. */
function child(script: string, ...args: string[]): Figures {
  const { GATE_ACTOR: _actor, ...env } = process.env;
  const out = execFileSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', `${here}/${script}`, ...args],
    {
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  return JSON.parse(out) as Figures;
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

/** The rows that every place has a figure for. */
const placed: readonly Row[] = rows.filter((row) => row.group === 'loop' || row.group === 'tools');

function measureAll(places: readonly Place[]): Map<string, Figures> {
  const seen = new Map<string, Figures[]>(places.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++)
    for (const { name, dir } of places) {
      process.stderr.write(`round ${round} of ${rounds}: ${name}          \r`);
      const figures: Figures = {};
      for (const [group, script, amount] of [
        ['loop', 'bench-loop.ts', budgetMs],
        ['tools', 'bench-tools.ts', files],
      ] as const) {
        const keys = keysOf(rows, group);
        if (keys.length > 0) Object.assign(figures, child(script, dir, String(amount), keys.join(',')));
      }
      seen.get(name)!.push(figures);
    }
  process.stderr.write(`${' '.repeat(60)}\r`);
  const medianOf = (figures: Figures[]) =>
    Object.fromEntries(placed.map(({ key }) => [key, median(figures.map((one) => one[key]!))]));
  return new Map([...seen].map(([name, figures]) => [name, medianOf(figures)]));
}

function shown(ns: number, bytes: number | undefined): string {
  if (bytes !== undefined) return `${((bytes / ns) * (1e9 / 1024 / 1024)).toFixed(0)} MiB/s`;
  return ns < 1e6 ? `${(ns / 1000).toFixed(1)} µs` : `${(ns / 1e6).toFixed(0)} ms`;
}

function printTable(places: readonly Place[], medians: Map<string, Figures>): void {
  const native = medians.get('native')!;
  const table = [['', ...places.map(({ name }) => name)]];
  for (const { key, name, bytes, group } of placed)
    table.push([
      group === 'tools' && key !== 'npmCi' ? `${name}, ${files} files` : name,
      ...places.map((place) => {
        const ns = medians.get(place.name)![key]!;
        const ratio = place.name === 'native' ? '' : `  ${(native[key]! / ns).toFixed(2)} ×`;
        return `${shown(ns, bytes)}${ratio}`;
      }),
    ]);
  const widths = table[0]!.map((_, i) => Math.max(...table.map((row) => row[i]!.length)));
  for (const row of table)
    console.log(
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('   '),
    );
}

const IDLE_MS = 10_000;
const TICKS_PER_SECOND = 100;

/** Share of one CPU, in percent, that a process uses while nobody asks it for anything. */
function idlePercent(pid: number): number {
  // Fields 14 and 15 of /proc/PID/stat; the name before them may hold anything.
  const ticks = () => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\)/s, '').trim().split(' ');
    return Number(fields[11]) + Number(fields[12]);
  };
  sleep(2000);
  const before = ticks();
  sleep(IDLE_MS);
  return ((ticks() - before) / TICKS_PER_SECOND / (IDLE_MS / 1000)) * 100;
}

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** The figures that are not of a place, by their rows' keys. */
function measureOthers(mountPid: number | null): Figures {
  const has = (group: Group) => rows.some((row) => row.group === group);
  const figures: Figures = {};
  if (has('idle') && mountPid !== null) figures.idle = idlePercent(mountPid);
  if (has('pairs'))
    figures.pairs = median(
      Array.from({ length: 3 }, () => child('bench-broker.ts', '--json').pairsPerSecond!),
    );
  if (has('waiters'))
    figures.nextGrant = median(
      Array.from({ length: 3 }, () => child('bench-broker.ts', '--waiters', '1000', '--json').p99Ms!),
    );
  if (has('locks')) {
    const { bytesPerLock, seconds } = child('bench-broker.ts', '--restart', flags.locks, '--json');
    Object.assign(figures, { lockBytes: bytesPerLock, restart: seconds });
  }
  return figures;
}

function shownOther(key: string, figure: number): string {
  const held = `${Number(flags.locks).toLocaleString('en')} held`;
  if (key === 'pairs') return `${figure} acquire+release pairs/s`;
  if (key === 'nextGrant') return `p99 ${figure.toFixed(2)} ms, both ways over the socket`;
  if (key === 'lockBytes') return `${figure} bytes, ${held}`;
  if (key === 'restart') return `${figure.toFixed(1)} s, ${held}`;
  return `${figure.toFixed(2)} %`;
}

/** Where to measure, native first. Mounts of our own go into `own`, to be taken down. */
function findPlaces(own: OwnMounts): Place[] {
  const there = flags.view === undefined ? null : existingView(flags.view);
  if (there === null) {
    own.native();
    own.view('view');
    if (process.geteuid!() === 0) own.view('view, no passthrough', '--passthrough', 'off');
  }
  for (const peer of flags.peer) own.peer(peer);
  const others = flags.against.map((dir) => ({ name: dir, dir: resolve(dir) }));
  return [...(there ?? []), ...own.places, ...others].map(({ name, dir }, i) => ({
    name,
    dir: `${dir}/gate-bench-${process.pid}-${i}`,
  }));
}

const own = new OwnMounts(flags.dir);
const made: string[] = [];
try {
  const places = findPlaces(own);
  for (const { dir } of places) {
    mkdirSync(dir);
    made.push(dir);
  }
  const medians = placed.length > 0 ? measureAll(places) : new Map<string, Figures>();
  const others = measureOthers(own.mountPid);
  console.log(`Linux ${release()}, Node ${process.versions.node}, medians of ${rounds} interleaved rounds`);
  if (process.geteuid!() !== 0) console.log('as an ordinary user: no view has kernel passthrough');
  console.log('× is speed relative to native: above 1 is faster\n');
  if (placed.length > 0) printTable(places, medians);
  console.log('');
  for (const { key, name } of rows)
    if (others[key] !== undefined) console.log(`${name}: ${shownOther(key, others[key])}`);
  if (flags.json !== undefined) {
    const about = { kernel: release(), node: process.versions.node, date: new Date().toISOString() };
    const asked = { command: process.argv.slice(2), rounds, files, locks: Number(flags.locks) };
    const record = { ...about, ...asked, ns: Object.fromEntries(medians), others };
    writeFileSync(flags.json, `${JSON.stringify(record, null, 2)}\n`);
  }
} finally {
  for (const dir of made)
    try {
      rmSync(dir, { recursive: true, force: true });
    } catch (error) {
      console.error(`${dir} is left over: ${(error as Error).message}`);
    }
  own.end();
}
