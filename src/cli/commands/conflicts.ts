import { spawnSync } from 'node:child_process';
import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { systemClock } from '../../base/clock.ts';
import type { Kept } from '../../view/lost/folder.ts';
import type { LostRecord } from '../../view/lost/record.ts';
import { CliError, type Context, EXIT, usage } from '../context.ts';
import { absolute } from '../locate.ts';
import { keptIn, keptPath, type LostPlace, lostPlaces, withLost } from '../lost.ts';
import { bytes, duration, print, printJson, say, snake, table, visible } from '../output.ts';

interface Flags {
  json?: boolean;
  stateDir?: string;
  content?: boolean;
  to?: string;
  all?: boolean;
  olderThan?: string;
}

const DAY_MS = 86_400_000;

const STATES: Readonly<Record<LostRecord['state'], string>> = {
  watched: 'may still be written to',
  conflict: 'written to after it lost its name',
  sweep: 'before it was changed by another',
};

const WHYS: Readonly<Record<LostRecord['why'], string>> = {
  cap: 'its lock was held past its cap',
  forced: 'its lock was broken by force',
  session_lost: 'its view was lost',
  lease_expired: 'the lease of its lock ran out',
  replaced: 'another file was renamed over it',
  removed: 'it was removed',
  truncated: 'it was cut',
};

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  const sub = (name: string, summary: string, args = '') => {
    const made = command.command(`${name}${args}`, { isDefault: name === 'list' }).description(summary);
    return made
      .option('--json', 'one JSON document on stdout')
      .option('--state-dir <DIR>', 'whose views [GATE_STATE_DIR]');
  };
  command.description('What would have been lost: copies of what was written without a lock, or swept away.');
  sub('list', 'everything that is kept', ' [PATH]').action(async (path: string | undefined, flags: Flags) =>
    finish(await list(context, path, flags)),
  );
  sub('show', 'what is known of one', ' <ID>')
    .option('--content', 'its content, on stdout')
    .action(async (id: string, flags: Flags) => finish(await show(context, id, flags)));
  sub('diff', 'from the file as it is now to what is kept', ' <ID>').action(
    async (id: string, flags: Flags) => finish(await diff(context, id, flags)),
  );
  sub('restore', 'write it back, through the view and its locks', ' <ID>')
    .option('--to <PATH>', 'to this name, which must be free')
    .action(async (id: string, flags: Flags) => finish(await restore(context, id, flags)));
  sub('prune', 'remove what is not needed any more', ' [ID...]')
    .option('--older-than <DAYS>', 'all that is older')
    .option('--all', 'everything that nobody may still write to')
    .action(async (ids: string[], flags: Flags) => finish(await prune(context, ids, flags)));
}

interface Found {
  readonly place: LostPlace;
  readonly kept: Kept;
}

async function everything(context: Context, flags: Flags, path?: string): Promise<Found[]> {
  const places = await lostPlaces(context, flags.stateDir, path);
  return places.flatMap((place) => keptIn(place).map((kept) => ({ place, kept })));
}

/** The one whose id begins so. */
async function one(context: Context, flags: Flags, id: string): Promise<Found> {
  const found = (await everything(context, flags)).filter(({ kept }) => kept.record.id.startsWith(id));
  if (found.length === 1) return found[0]!;
  throw new CliError(
    found.length === 0 ? `nothing is kept as '${id}'` : `'${id}' may be any of ${found.length}`,
    {
      hint: 'gate conflicts lists what is kept.',
    },
  );
}

function shownPath({ place, kept }: Found): string {
  const { path } = kept.record;
  return path === '' ? '(unknown)' : `${place.mount ?? place.root}/${path}`;
}

function document(found: Found): unknown {
  const { record, sizeBytes, mtimeMs } = found.kept;
  const { path, hash: _hash, ...rest } = record;
  const file = keptPath(found.place, record.id);
  return { ...rest, path: shownPath(found), keptSizeBytes: sizeBytes, keptMtimeMs: mtimeMs, file };
}

async function list(context: Context, path: string | undefined, flags: Flags): Promise<number> {
  let found = await everything(context, flags, path);
  if (path !== undefined) {
    const at = absolute(context, path);
    found = found.filter(({ place, kept }) =>
      [place.root, place.mount].some((top) => {
        const full = `${top}/${kept.record.path}`;
        return top !== null && (full === at || full.startsWith(`${at}/`));
      }),
    );
  }
  if (flags.json) printJson(snake({ conflicts: found.map(document) }));
  else if (found.length === 0) print('nothing is kept: nothing was lost');
  else {
    const nowMs = systemClock.wallMs();
    const rows = found.map((each) => {
      const { record, sizeBytes } = each.kept;
      const age = duration(nowMs - record.keptAtMs);
      return [record.id, shownPath(each), STATES[record.state], record.owner || '?', age, bytes(sizeBytes)];
    });
    print(table([['ID', 'PATH', 'WHAT', 'WHOSE', 'SINCE', 'SIZE'], ...rows]));
  }
  return EXIT.done;
}

async function show(context: Context, id: string, flags: Flags): Promise<number> {
  const found = await one(context, flags, id);
  const { record, sizeBytes, mtimeMs } = found.kept;
  const file = keptPath(found.place, record.id);
  if (flags.content) {
    await pipeline(createReadStream(file), process.stdout, { end: false });
    return EXIT.done;
  }
  if (flags.json) printJson(snake(document(found)));
  else
    print(
      table([
        ['id', record.id],
        ['path', shownPath(found)],
        ['what', `${STATES[record.state]}: ${WHYS[record.why] ?? record.why}`],
        ['whose', record.owner || 'unknown (of a view that died)'],
        ['taken over by', record.by || 'unknown'],
        ['kept since', new Date(record.keptAtMs).toISOString()],
        ['last written', new Date(mtimeMs).toISOString()],
        ['size', `${bytes(sizeBytes)} (${bytes(record.sizeBytes)} when it was kept)`],
        ['file', file],
      ]),
    );
  return EXIT.done;
}

async function diff(context: Context, id: string, flags: Flags): Promise<number> {
  const found = await one(context, flags, id);
  const { record } = found.kept;
  const now = `${found.place.mount ?? found.place.base}/${record.path}`;
  const args = ['-u', '-N', '--label', visible(shownPath(found)), '--label', `kept ${record.id}`, '--', now];
  const ran = spawnSync('diff', [...args, keptPath(found.place, record.id)], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (ran.error) throw new CliError(`diff cannot be run: ${ran.error.message}`);
  return ran.status === 2 ? EXIT.failed : EXIT.done;
}

async function restore(context: Context, id: string, flags: Flags): Promise<number> {
  const found = await one(context, flags, id);
  const { place, kept } = found;
  if (flags.to === undefined && (place.mount === null || kept.record.path === ''))
    throw new CliError(`${shownPath(found)} cannot be written: the view is not mounted`, {
      hint: "'gate up' mounts it; --to PATH writes it to another name.",
    });
  const to = flags.to === undefined ? `${place.mount}/${kept.record.path}` : absolute(context, flags.to);
  if (flags.to !== undefined && existsSync(to)) throw usage(`--to: ${to} exists already`);
  // Through the view: it waits for its turn like everybody, and what it writes over is kept in turn.
  const output = createWriteStream(to, { flags: flags.to === undefined ? 'w' : 'wx' });
  await pipeline(createReadStream(keptPath(place, kept.record.id)), output);
  if (flags.json) printJson({ restored: kept.record.id, to });
  else say(`${visible(to)} is written; 'gate conflicts prune ${kept.record.id}' removes the copy`);
  return EXIT.done;
}

async function prune(context: Context, ids: string[], flags: Flags): Promise<number> {
  const days = flags.olderThan === undefined ? undefined : Number(flags.olderThan);
  if (days !== undefined && !(days >= 0))
    throw usage(`--older-than: '${flags.olderThan}' is not a number of days`);
  if (ids.length === 0 && days === undefined && !flags.all)
    throw usage('prune wants an ID, --older-than DAYS or --all');
  let found: Found[] = [];
  for (const id of ids) found.push(await one(context, flags, id));
  if (ids.length === 0) {
    const beforeMs = systemClock.wallMs() - (days ?? 0) * DAY_MS;
    const all = await everything(context, flags);
    found = all.filter(({ kept: { record } }) => record.state !== 'watched' && record.keptAtMs <= beforeMs);
  }
  for (const { place, kept } of found)
    withLost(place, (folder) => folder.open() && folder.remove(kept.record.id));
  if (flags.json) printJson({ pruned: found.map(({ kept }) => kept.record.id) });
  else say(found.length === 0 ? 'nothing to prune' : `${found.length} removed`);
  return EXIT.done;
}
