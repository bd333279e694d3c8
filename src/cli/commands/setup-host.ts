import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { Command } from 'commander';
import { shellWord, showTarget } from '../../ssh/index.ts';
import { CliError, type Context, usage } from '../context.ts';
import {
  DOOR_METHODS,
  type DoorMethod,
  type DoorOptions,
  doorRecords,
  mountDoor,
  planDoor,
  unmountDoor,
} from '../doors/index.ts';
import { resolved, stateToUse } from '../locate.ts';
import { print, printJson, say, steps } from '../output.ts';
import { checkDir } from '../reach.ts';
import { sync } from '../sync/index.ts';
import { runAt } from '../sync/list.ts';
import { addTargetOptions, type TargetFlags, targetOf } from '../target.ts';
import { tellSync } from './sync.ts';

interface Flags extends TargetFlags {
  readonly mountMethod: string;
  readonly hostMount?: string | true;
  readonly unmount?: boolean;
  readonly installSshfs?: boolean;
  readonly sync?: boolean;
  readonly repoPath?: string;
  readonly vmRepoPath: string;
  readonly gateCommand: string;
  readonly viewSocket?: string;
  readonly sftpSocket?: string;
  readonly brokerSocket?: string;
  readonly stateDir?: string;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  addTargetOptions(command)
    .option(
      '--mount-method <METHOD>',
      `the door: ${DOOR_METHODS.join(', ')} (docs/doors.md says when which)`,
      'gate',
    )
    .option(
      '--host-mount [DIR]',
      'where to mount it here (default: /mnt/gate_host; <state>/mnt/gate_host for ordinary users)',
    )
    .option('--unmount', 'take that mount down, and do nothing else')
    .option('--install-sshfs', 'install sshfs first, if it is missing (apt-get; root)')
    .option('--sync', 'bring the repository over there before: --repo-path to --vm-repo-path (gate sync)')
    .option('--repo-path <DIR>', "the repository here; with the door 'direct' the one that is shown")
    .option('--vm-repo-path <DIR>', 'the repository over there', '/srv/repo')
    .option('--gate-command <COMMAND>', 'Gate over there', '/usr/local/bin/gate')
    .option('--view-socket <FILE>', "the view's socket over there, for the door 'gate'")
    .option('--sftp-socket <FILE>', "the socket of gate sftp over there, for the door 'sshfs'")
    .option('--broker-socket <FILE>', "the broker's socket over there, for the door 'direct'")
    .option('--state-dir <DIR>', 'where this is remembered here [GATE_STATE_DIR]')
    .option('--dry-run', 'print every command and file, and do nothing')
    .option('--json', 'one JSON document');
  command.action(async (flags: Flags) => finish(await run(context, flags)));
}

async function run(context: Context, flags: Flags): Promise<number> {
  const method = flags.mountMethod as DoorMethod;
  if (!DOOR_METHODS.includes(method))
    throw usage(`--mount-method: '${method}' is none of ${DOOR_METHODS.join(', ')}`);
  const { dir: stateDir, mounts } = stateToUse(context, flags.stateDir);
  const mountPoint =
    typeof flags.hostMount === 'string'
      ? resolved(context, flags.hostMount)
      : context.uid === 0
        ? '/mnt/gate_host'
        : join(mounts, 'gate_host');
  const step = steps(context, flags.json);
  if (flags.unmount) {
    if (!doorRecords(stateDir).some((record) => record.mount === mountPoint))
      throw new CliError(`${mountPoint} was not mounted by gate setup-host`);
    await unmountDoor(stateDir, mountPoint);
    step.done(`unmounted ${mountPoint}`);
    return 0;
  }
  const target = targetOf(context, flags);
  const { viewSocket, sftpSocket, brokerSocket, gateCommand } = flags;
  const door: DoorOptions = {
    method,
    target,
    mountPoint,
    stateDir,
    env: context.env,
    ...(method === 'direct' && { root: rootOf(context, flags) }),
    there: {
      gate: gateCommand,
      ...(viewSocket && { viewSocket }),
      ...(sftpSocket && { sftpSocket }),
      ...(brokerSocket && { brokerSocket }),
    },
  };
  if (flags.dryRun) return showPlan(door);
  if (flags.installSshfs) installSshfs();
  if (method === 'sshfs' && !has('sshfs'))
    throw new CliError('sshfs is not installed here', {
      hint: 'Add --install-sshfs, or: sudo apt-get install sshfs',
    });
  const version = await runAt(
    { target, dir: '/' },
    `reach Gate on ${showTarget(target)}`,
    `${shellWord(gateCommand)} version`,
  );
  step.done(`${showTarget(target)} has ${version.toString('utf8').trim()}`);
  if (flags.sync) {
    if (flags.repoPath === undefined) throw usage('--sync: --repo-path names the repository here');
    const here = checkDir(context, flags.repoPath, 'repository');
    const choices = { back: false, delete: false, force: false, dryRun: false, exclude: [] };
    const result = await sync({ here, target, there: flags.vmRepoPath, ...choices, stateDir });
    if (!flags.json) tellSync(result);
    if (!result.done) return 1;
    step.done(`${here} is synced with ${flags.vmRepoPath} over there`);
  }
  const opened = await mountDoor(door);
  step.done(`mounted ${mountPoint} by the door '${method}'`);
  if (flags.json)
    printJson({ mount: opened.mount, method, pids: opened.pids.map(({ pid }) => pid), log: opened.logFile });
  else print(opened.mount);
  return 0;
}

function rootOf(context: Context, { repoPath }: Flags): string {
  if (repoPath === undefined)
    throw usage("the door 'direct' shows a repository of this machine: --repo-path names it");
  return checkDir(context, repoPath, 'repository');
}

function showPlan(door: DoorOptions): number {
  const plan = planDoor(door);
  for (const { path, text } of plan.files) print(`# ${path}\n${text.trimEnd().replace(/^/gm, '    ')}`);
  for (const { argv } of plan.processes) print(argv.map(shellWord).join(' '));
  return 0;
}

function has(program: string): boolean {
  return spawnSync('sh', ['-c', 'command -v "$1"', 'sh', program], { stdio: 'ignore' }).status === 0;
}

function installSshfs(): void {
  if (has('sshfs')) return;
  say('installing sshfs with apt-get');
  const script =
    'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends sshfs';
  const ran = spawnSync('sh', ['-c', script], { encoding: 'utf8' });
  if (ran.status !== 0)
    throw new CliError('sshfs could not be installed', {
      detail: `${ran.stdout}\n${ran.stderr}`.split('\n').filter(Boolean).slice(-10),
      hint: 'apt-get needs root.',
    });
}
