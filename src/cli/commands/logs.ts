import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import type { Command } from 'commander';
import { delay } from '../../base/clock.ts';
import { formatLogLine } from '../../base/log.ts';
import type { StateFiles } from '../../base/state.ts';
import { CliError, type Context, usage } from '../context.ts';
import { doorRecords } from '../doors/index.ts';
import { stateInUse } from '../locate.ts';
import { print, visible } from '../output.ts';
import { allMachines } from '../vm/host.ts';

const POLL_MS = 200;
const COMPONENTS = ['broker', 'supervisor', 'mount', 'vm', 'vmm', 'events', 'door'];

interface Flags {
  component?: string;
  follow?: boolean;
  lines: string;
  json?: boolean;
  stateDir?: string;
}

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .argument('[NAME]', "a view: its mount's log (default: everything)")
    .option(
      '--component <NAME>',
      'broker, supervisor, mount; of a virtual machine: vm (its console), vmm, events, door',
    )
    .option('-f, --follow', 'go on as lines are written')
    .option('-n, --lines <N>', 'how many old lines', '100')
    .option('--json', 'one line of JSON each')
    .option('--state-dir <DIR>', 'where everything is kept [GATE_STATE_DIR]')
    .action(async (name: string | undefined, flags: Flags) => {
      const lines = Number(flags.lines);
      if (!Number.isInteger(lines) || lines < 0) throw usage(`--lines: '${flags.lines}' is not a number`);
      const files = await stateInUse(context, flags.stateDir);
      const paths = [
        ...(files ? logFiles(files, name, flags.component) : []),
        ...(await machineLogs(context, flags.stateDir, name, flags.component)),
      ];
      if (paths.length === 0)
        throw new CliError(name ? `there are no logs of '${name}'` : 'there are no logs', {
          hint: files ? `Looked in ${files.logs}.` : "Nothing was started yet; 'gate up' starts.",
        });
      for (const line of lastLines(paths, lines)) show(line, flags.json === true);
      finish(0);
      if (flags.follow) await follow(paths, flags.json === true);
    });
}

function logFiles(files: StateFiles, name: string | undefined, component: string | undefined): string[] {
  const found: { path: string; component: string; view?: string }[] = [
    { path: `${files.logs}/supervisor.log`, component: 'supervisor' },
    { path: `${files.logs}/broker.log`, component: 'broker' },
  ];
  if (existsSync(files.logs))
    for (const entry of readdirSync(files.logs, { withFileTypes: true }))
      if (entry.isDirectory())
        found.push({ path: `${files.logs}/${entry.name}/mount.log`, component: 'mount', view: entry.name });
  if (component && !COMPONENTS.includes(component))
    throw usage(`--component: '${component}' is none of ${COMPONENTS.join(', ')}`);
  return found
    .filter((log) => name === undefined || log.view === name)
    .filter((log) => component === undefined || log.component === component)
    .map((log) => log.path)
    .filter((path) => existsSync(path));
}

/** Of a machine: named, or with a component of theirs. The guest's own services are in its journal: `gate vm ssh`. */
async function machineLogs(
  context: Context,
  stateDir: string | undefined,
  name: string | undefined,
  component: string | undefined,
): Promise<string[]> {
  const machines = (await allMachines(context, { stateDir })).filter(
    (machine) => name === machine.name || (name === undefined && component !== undefined),
  );
  return machines
    .flatMap(({ files, record }) => [
      { path: files.serial, of: 'vm' },
      { path: files.vmmLog, of: 'vmm' },
      { path: files.events, of: 'events' },
      ...(record?.door
        ? doorRecords(record.door.stateDir)
            .filter((door) => door.mount === record.door?.mount)
            .map((door) => ({ path: door.logFile, of: 'door' }))
        : []),
    ])
    .filter(({ path, of }) => (component === undefined || component === of) && existsSync(path))
    .map(({ path }) => path);
}

/** The last lines of all files together, in order of their times. Lines without one stay behind their predecessor. */
function lastLines(paths: readonly string[], count: number): string[] {
  const all = paths.flatMap((path) => {
    let time = '';
    return readFileSync(path, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => {
        time = /"time":"([^"]+)"/.exec(line)?.[1] ?? time;
        return { time, line };
      });
  });
  return all
    .sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0))
    .slice(count === 0 ? all.length : -count)
    .map(({ line }) => line);
}

function show(line: string, json: boolean): void {
  if (!json) print(visible(formatLogLine(line)));
  else print(line.startsWith('{') ? line : JSON.stringify({ msg: line }));
}

async function follow(paths: readonly string[], json: boolean): Promise<never> {
  const at = new Map(paths.map((path) => [path, statSync(path).size]));
  const rest = new Map<string, string>();
  for (;;) {
    for (const path of paths) {
      const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
      let from = at.get(path) ?? 0;
      // It was rotated.
      if (size < from) from = 0;
      if (size === from) continue;
      const bytes = Buffer.alloc(size - from);
      const fd = openSync(path, 'r');
      const got = readSync(fd, bytes, 0, bytes.length, from);
      closeSync(fd);
      at.set(path, from + got);
      const lines = ((rest.get(path) ?? '') + bytes.toString('utf8', 0, got)).split('\n');
      rest.set(path, lines.pop() ?? '');
      for (const line of lines) show(line, json);
    }
    await delay(POLL_MS);
  }
}
