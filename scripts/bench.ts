/**
 * Figures for this machine: the native directory, the view of it, and any other directory, in interleaved rounds; medians.
 * Absolute times mean little on a shared machine, so each is also given as speed relative to native.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { existingView, OwnMounts, type Place } from './bench-places.ts';
import { runAsUser } from './bench-user.ts';

const HELP = `scripts/bench [--view DIR] [--against DIR]… [--peer COMMAND]… [--user UID] [--rounds N] [--budget-ms N] [--dir DIR] [--json FILE]

  --view DIR             a mounted view (default: makes some of its own, and takes them down: one, and where it has kernel
                         passthrough another without)
  --against DIR          another directory to set beside them; may be repeated
  --peer [NAME=]COMMAND  mounts $ROOT on $MOUNT, for example 'passthrough_ll -o source=$ROOT $MOUNT'; may be repeated
  --user UID             as root: everything is done by this ordinary user, also the mounts
  --rounds N             interleaved rounds, of which the median counts (default 5)
  --files N              also time git, rg and tar on a tree of N files (default 0: not)
  --budget-ms N          time for each measure of each round (default 100)
  --dir DIR              where its own directories and state are made (default: the temporary directory)
  --json FILE            write the medians there too
`;

const { values: flags, tokens } = parseArgs({
  options: {
    view: { type: 'string' },
    against: { type: 'string', multiple: true, default: [] },
    peer: { type: 'string', multiple: true, default: [] },
    user: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    files: { type: 'string', default: '0' },
    'budget-ms': { type: 'string', default: '100' },
    dir: { type: 'string', default: tmpdir() },
    json: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
  tokens: true,
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
  process.exit(runAsUser(Number(flags.user), flags.dir, flags.json, rest));
}

const here = import.meta.dirname;
const rounds = Number(flags.rounds);
const budgetMs = Number(flags['budget-ms']);
const files = Number(flags.files);
type Figures = Record<string, number>;

interface Measure {
  readonly name: string;
  /** Of one operation, for throughputs. */
  readonly bytes?: number;
}

const TOOLS: Readonly<Record<string, Measure>> = {
  gitStatus: { name: `git status, warm, ${files} files` },
  rg: { name: 'rg, warm' },
  gitClone: { name: 'git clone' },
  untar: { name: 'tar c | tar x' },
};

/** What is shown of each measure. */
const MEASURES: Readonly<Record<string, Measure>> = {
  openClose: { name: 'open+close, reading' },
  openCloseWrite: { name: 'open+close, writing' },
  create: { name: 'create+close' },
  stat: { name: 'stat' },
  readMiB: { name: 'read, 1 MiB each', bytes: 1024 * 1024 },
  writeMiB: { name: 'write, 1 MiB each', bytes: 1024 * 1024 },
  read4k: { name: 'read, 4 KiB each', bytes: 4096 },
  write4k: { name: 'write, 4 KiB each', bytes: 4096 },
  ...(files > 0 && TOOLS),
};

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

function measureAll(places: readonly Place[]): Map<string, Figures> {
  const seen = new Map<string, Figures[]>(places.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++)
    for (const { name, dir } of places) {
      process.stderr.write(`round ${round} of ${rounds}: ${name}          \r`);
      const figures = child('bench-loop.ts', dir, String(budgetMs));
      if (files > 0) Object.assign(figures, child('bench-tools.ts', dir, String(files)));
      seen.get(name)!.push(figures);
    }
  process.stderr.write(`${' '.repeat(60)}\r`);
  const medianOf = (figures: Figures[]) =>
    Object.fromEntries(Object.keys(MEASURES).map((key) => [key, median(figures.map((one) => one[key]!))]));
  return new Map([...seen].map(([name, figures]) => [name, medianOf(figures)]));
}

function shown(ns: number, bytes: number | undefined): string {
  if (bytes !== undefined) return `${((bytes / ns) * (1e9 / 1024 / 1024)).toFixed(0)} MiB/s`;
  return ns < 1e6 ? `${(ns / 1000).toFixed(1)} µs` : `${(ns / 1e6).toFixed(0)} ms`;
}

function printTable(places: readonly Place[], medians: Map<string, Figures>): void {
  const native = medians.get('native')!;
  const rows = [['', ...places.map(({ name }) => name)]];
  for (const [key, { name, bytes }] of Object.entries(MEASURES))
    rows.push([
      name,
      ...places.map((place) => {
        const ns = medians.get(place.name)![key]!;
        const ratio = place.name === 'native' ? '' : `  ${(native[key]! / ns).toFixed(2)} ×`;
        return `${shown(ns, bytes)}${ratio}`;
      }),
    ]);
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  for (const row of rows)
    console.log(
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('   '),
    );
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
  const medians = measureAll(places);
  const broker = median(Array.from({ length: 3 }, () => child('bench-broker.ts', '--json').pairsPerSecond!));
  console.log(`Linux ${release()}, Node ${process.versions.node}, medians of ${rounds} interleaved rounds`);
  if (process.geteuid!() !== 0) console.log('as an ordinary user: no view has kernel passthrough');
  console.log('× is speed relative to native: above 1 is faster\n');
  printTable(places, medians);
  console.log(`\nbroker, one connection, pipelined, durable: ${broker} acquire+release pairs/s`);
  if (flags.json !== undefined)
    writeFileSync(
      flags.json,
      `${JSON.stringify({ kernel: release(), rounds, ns: Object.fromEntries(medians), brokerPairsPerSecond: broker }, null, 2)}\n`,
    );
} finally {
  for (const dir of made)
    try {
      rmSync(dir, { recursive: true, force: true });
    } catch (error) {
      console.error(`${dir} is left over: ${(error as Error).message}`);
    }
  own.end();
}
