import type { Command } from 'commander';
import { systemClock } from '../../base/clock.ts';
import { isAlive } from '../../base/process.ts';
import type { HoldInfo, VolumeInfo, WaitInfo } from '../../broker/wire.ts';
import { connect } from '../../client/index.ts';
import { bypassers } from '../bypass.ts';
import type { Context } from '../context.ts';
import { absolute, placeOf, stateInUse } from '../locate.ts';
import { keptLine } from '../lost.ts';
import { mountAt, VIEW_TYPE } from '../mounts.ts';
import { duration, print, printJson, snake, table } from '../output.ts';
import { holdsTable, waitsTable } from '../people.ts';
import { supervisorOf } from '../supervisor/client.ts';
import { readBroker } from '../supervisor/supervisor.ts';
import { readViews, type ViewRecord, viewOf } from '../views.ts';
import { allMachines } from '../vm/host.ts';
import { describeMachines, isBroken, machineLines } from '../vm/status.ts';

interface Flags {
  json?: boolean;
  stateDir?: string;
}

/** `up`: mounted and served. `stale`: mounted, and its process is gone. `down`: not mounted. */
function health(view: ViewRecord): 'up' | 'stale' | 'down' {
  if (mountAt(view.mount)?.type !== VIEW_TYPE) return 'down';
  return isAlive(view.process) ? 'up' : 'stale';
}

interface Locks {
  readonly volumes: readonly VolumeInfo[];
  readonly holds: readonly HoldInfo[];
  readonly waits: readonly WaitInfo[];
}

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .argument('[PATH]', 'only what concerns this path (default: everything)')
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'where everything is kept [GATE_STATE_DIR]')
    .action(async (path: string | undefined, flags: Flags) => {
      finish(await status(context, path, flags));
    });
}

async function status(context: Context, path: string | undefined, flags: Flags): Promise<number> {
  const at = path === undefined ? undefined : absolute(context, path);
  const files = await stateInUse(context, flags.stateDir, at);
  const all = files ? readViews(files) : [];
  const only = at === undefined ? undefined : viewOf(at, all);
  const kept = new Map<ViewRecord, string | undefined>();
  for (const view of only ? [only] : all) kept.set(view, await keptLine(view.root, view.mount));
  const views = (only ? [only] : all).map((view) => ({
    name: view.name,
    root: view.root,
    mount: view.mount,
    health: health(view),
    pid: isAlive(view.process) ? view.process.pid : null,
    volume: view.volume ?? null,
    bypassing: bypassers(view.root, view.mount),
    kept: kept.get(view) ?? null,
  }));
  const info = files && readBroker(files);
  const supervisor = files && supervisorOf(files);
  const locks = info
    ? await readLocks(
        context,
        info.socket,
        path,
        views.map((view) => view.volume),
      )
    : undefined;
  const machines = only
    ? []
    : await describeMachines(await allMachines(context, { stateDir: flags.stateDir }));
  const broken =
    views.some((view) => view.health !== 'up') || (all.length > 0 && !info) || machines.some(isBroken);
  if (flags.json) {
    const broker = info
      ? { url: info.url, socket: info.socket, pid: info.pid, started_at: info.startedAt }
      : null;
    printJson(
      snake({
        stateDir: files?.dir ?? null,
        supervisor: supervisor?.pid ?? null,
        broker,
        views,
        machines,
        holds: locks?.holds ?? [],
        waits: locks?.waits ?? [],
      }),
    );
    return broken ? 1 : 0;
  }
  const nowMs = systemClock.wallMs();
  if (info)
    print(
      `broker      ${info.url}, ${info.socket} (pid ${info.pid}, up ${duration(nowMs - info.startedAt * 1000)})`,
    );
  else print(`broker      not running${files ? ` (state in ${files.dir})` : ''}`);
  print(`supervisor  ${supervisor ? `pid ${supervisor.pid}` : 'not running'}`);
  if (views.length === 0 && machines.length === 0)
    print("views       none; 'gate up' in a repository makes one");
  else if (views.length > 0) print(`\n${viewsTable(views)}`);
  for (const line of machineLines(machines)) print(line);
  for (const view of views) for (const line of view.bypassing) print(`  ${line}`);
  for (const view of views) if (view.kept !== null) print(`  ${view.kept}`);
  if (locks?.holds.length) print(`\n${holdsTable(locks.holds, locks.volumes, nowMs)}`);
  if (locks?.waits.length) print(`\n${waitsTable(locks.waits, locks.volumes, nowMs)}`);
  if (locks && locks.holds.length + locks.waits.length === 0) print('\nnobody holds or waits for anything');
  if (broken)
    print(
      "\nNot everything is up: 'gate up REPO' or 'gate up --all' repairs it, 'gate logs' says what happened.",
    );
  return broken ? 1 : 0;
}

function viewsTable(
  views: readonly { name: string; root: string; mount: string; health: string; pid: number | null }[],
): string {
  const rows = views.map((view) => [
    view.name,
    view.health,
    view.mount,
    view.root,
    view.pid === null ? '-' : String(view.pid),
  ]);
  return table([['VIEW', 'STATE', 'MOUNT', 'ROOT', 'PID'], ...rows]);
}

async function readLocks(
  context: Context,
  socket: string,
  path: string | undefined,
  volumesShown: readonly (string | null)[],
): Promise<Locks | undefined> {
  const session = await connect({ socket, kind: 'cli', pid: process.pid });
  try {
    const volumes = await session.volumes();
    if (path !== undefined) {
      const place = await placeOf(context, session, path);
      const { holds, queue } = await session.status(place.path, place.volume, true);
      return { volumes, holds, waits: queue };
    }
    const holds: HoldInfo[] = [];
    const ids = new Set([...volumesShown, ...volumes.map((volume) => volume.id), 'default']);
    for (const id of ids) if (id !== null) holds.push(...(await session.status('', id, true)).holds);
    return { volumes, holds, waits: await session.waits() };
  } finally {
    await session.close();
  }
}
