import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { processesUsing } from '../../base/process.ts';
import { makeDirs, type StateFiles } from '../../base/state.ts';
import { projectDir } from '../../base/version.ts';
import { CliError, type Context } from '../context.ts';
import { resolved, stateToUse } from '../locate.ts';
import { isInside, mountOf, VIEW_TYPE } from '../mounts.ts';
import { addOptions, BROKER_OPTIONS, givenOptions, MOUNT_OPTIONS, readConfig } from '../options.ts';
import { steps as makeSteps, print, printJson, type Steps, say } from '../output.ts';
import { askOrStart } from '../supervisor/client.ts';
import type { UpRequest, UpResult } from '../supervisor/protocol.ts';
import { checkName, readViews } from '../views.ts';
import { supervise } from './supervise.ts';

interface Flags extends Record<string, unknown> {
  name?: string;
  mount?: string;
  foreground?: boolean;
  all?: boolean;
  atBoot?: boolean;
  json?: boolean;
  stateDir?: string;
}

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .argument('[REPO]', 'the repository (default: the git work tree one stands in, else the folder)')
    .option('--name <NAME>', "the view's name (default: the folder's, made unique)")
    .option('--mount <DIR>', 'where to mount it (default: /mnt/gate/NAME as root, else <state>/mnt/NAME)')
    .option('--foreground', 'stay in the foreground; Ctrl-C takes everything down')
    .option('--all', 'bring back every view there was, after a reboot')
    .option('--at-boot', 'write a systemd unit that does --all at every boot')
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'where everything is kept [GATE_STATE_DIR]');
  addOptions(command, BROKER_OPTIONS, MOUNT_OPTIONS).action(
    async (repo: string | undefined, flags: Flags) => {
      await up(context, repo, flags);
      finish(0);
      if (flags.foreground) process.exit(0);
    },
  );
}

async function up(context: Context, repo: string | undefined, flags: Flags): Promise<void> {
  if (flags.name !== undefined) checkName(flags.name);
  if (flags.all && (repo ?? flags.name ?? flags.mount) !== undefined)
    throw new CliError('--all takes no REPO, --name or --mount', { exit: 2 });
  const steps = makeSteps(context, flags.json);
  if (flags.atBoot && repo === undefined) {
    atBoot(context, stateToUse(context, flags.stateDir), steps);
    if (!flags.all) return;
  }
  const root = flags.all ? undefined : checkRoot(context, repo);
  const files = stateToUse(context, flags.stateDir);
  if (root !== undefined && isInside(files.dir, root))
    throw new CliError(`the state directory ${files.dir} lies inside ${root}`, {
      hint: 'Gate would lock its own files. Name one outside with --state-dir DIR or GATE_STATE_DIR.',
    });
  checkFuse(context);
  if (root !== undefined) steps.done(`${root} can be mounted (state in ${files.dir})`);
  const requests = root === undefined ? knownViews(files) : [requestFor(context, files, root, flags)];
  if (flags.foreground) {
    await inForeground(context, files, requests, flags.json === true, steps);
    return;
  }
  const results: UpResult[] = [];
  for (const request of requests)
    results.push((await askOrStart(context, files, request, steps)) as UpResult);
  if (flags.atBoot && repo !== undefined) atBoot(context, files, steps);
  told(results, flags, steps);
}

function told(results: readonly UpResult[], flags: Flags, steps: Steps): void {
  for (const result of results) for (const line of bypassers(result.root, result.mount)) steps.note(line);
  if (flags.json) printJson(flags.all ? results : results[0]);
  else for (const result of results) print(result.mount);
}

/** The repository: checked, and resolved. */
function checkRoot(context: Context, repo: string | undefined): string {
  const named = repo ?? gitTop(context.cwd) ?? context.cwd;
  const root = resolved(context, named);
  const covering = mountOf(root);
  if (covering?.type === VIEW_TYPE)
    throw new CliError(`${root} lies inside the view mounted on ${covering.mountPoint}`, {
      hint: 'Name the repository itself; `gate status` lists the views and their roots.',
    });
  let state: ReturnType<typeof statSync>;
  try {
    state = statSync(root);
  } catch (error) {
    const missing = ['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '');
    throw new CliError(
      missing
        ? `there is no such folder: ${resolve(context.cwd, named)}`
        : `${root}: ${(error as Error).message}`,
      { hint: 'gate up REPO wants the folder of a repository.' },
    );
  }
  if (!state?.isDirectory())
    throw new CliError(`${root} is not a directory`, {
      hint: 'gate up REPO wants the folder of a repository.',
    });
  try {
    accessSync(root, constants.R_OK | constants.X_OK);
  } catch {
    throw new CliError(`${root} cannot be read by this user`);
  }
  return root;
}

/** The git work tree that `dir` lies in. */
function gitTop(dir: string): string | undefined {
  for (let at = dir; ; at = resolve(at, '..')) {
    if (existsSync(`${at}/.git`)) return at;
    if (at === '/') return undefined;
  }
}

function checkFuse(context: Context): void {
  if (!existsSync('/dev/fuse'))
    throw new CliError('there is no /dev/fuse', {
      hint: "Load it with 'modprobe fuse'; a container needs --device /dev/fuse --cap-add SYS_ADMIN. `gate doctor` has more.",
    });
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch {
    throw new CliError('this user cannot open /dev/fuse', {
      hint: "As root: 'chmod 666 /dev/fuse'. The package fuse3 brings a udev rule that does so at boot.",
    });
  }
  if (
    context.uid !== 0 &&
    !['/bin', '/usr/bin', '/usr/local/bin'].some((dir) => existsSync(`${dir}/fusermount3`))
  )
    throw new CliError('fusermount3 is missing, and only root mounts without it', {
      hint: "Install it ('apt-get install fuse3'), or run gate as root.",
    });
}

function requestFor(context: Context, files: StateFiles, root: string, flags: Flags): UpRequest {
  const config = readConfig(files.config);
  const brokerOptions = givenOptions(BROKER_OPTIONS, flags, context.env, config);
  // Under sudo the caller, too, may talk to the broker.
  const group = context.uid === 0 ? context.env.SUDO_GID : undefined;
  if (brokerOptions.socketGroup === undefined && group && group !== '0') brokerOptions.socketGroup = group;
  return {
    do: 'up',
    name: flags.name,
    root,
    mount: flags.mount === undefined ? undefined : resolved(context, flags.mount),
    brokerOptions,
    mountOptions: givenOptions(MOUNT_OPTIONS, flags, context.env, config),
  };
}

function knownViews(files: StateFiles): UpRequest[] {
  return readViews(files).map(({ name, root, mount, brokerOptions, mountOptions }) => ({
    do: 'up',
    name,
    root,
    mount,
    brokerOptions,
    mountOptions,
  }));
}

async function inForeground(
  context: Context,
  files: StateFiles,
  requests: readonly UpRequest[],
  json: boolean,
  steps: Steps,
): Promise<void> {
  await supervise(context, files, async (supervisor) => {
    for (const request of requests) {
      const result = await supervisor.up(request, steps);
      if (json) printJson(result);
      else print(result.mount);
    }
    steps.note('Ctrl-C takes everything down');
  });
}

/** `code (pid 12) bypasses Gate: …`, for each process that works in the backing tree beside the view. */
export function bypassers(root: string, mount: string | undefined): string[] {
  if (mount !== undefined && isInside(mount, root)) return [];
  const parents = ancestors();
  return processesUsing(root)
    .filter((user) => !parents.has(user.pid) && !user.command.includes(`${projectDir}/src/cli/main.ts`))
    .slice(0, 10)
    .map(
      (user) =>
        `${user.comm} (pid ${user.pid}) bypasses Gate: its ${user.how === 'fd' ? 'open file' : user.how} is ${user.path}`,
    );
}

/** This process's ancestors: the shell that one stands in with `gate up` is no news. */
function ancestors(): Set<number> {
  const found = new Set<number>();
  for (let pid = process.ppid; pid > 1 && !found.has(pid); ) {
    found.add(pid);
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    pid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  }
  return found;
}

/** Writes a systemd unit that brings every view back, for the system as root, else for the user. */
function atBoot(context: Context, files: StateFiles, steps: Steps): void {
  const system = context.uid === 0;
  const dir = system
    ? '/etc/systemd/system'
    : `${context.env.XDG_CONFIG_HOME || `${context.home}/.config`}/systemd/user`;
  const quoted = (text: string) =>
    `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('%', '%%')}"`;
  makeDirs(dir);
  writeFileSync(
    `${dir}/gate.service`,
    [
      '[Unit]',
      'Description=Gate: the views of `gate up`',
      ...(system ? ['After=local-fs.target remote-fs.target'] : []),
      '',
      '[Service]',
      `ExecStart=${quoted(`${projectDir}/gate`)} up --all --foreground --state-dir ${quoted(files.dir)}`,
      'Restart=on-failure',
      'KillMode=mixed',
      '',
      '[Install]',
      `WantedBy=${system ? 'multi-user.target' : 'default.target'}`,
      '',
    ].join('\n'),
  );
  steps.done(`wrote ${dir}/gate.service`);
  const scope = system ? [] : ['--user'];
  if (existsSync('/run/systemd/system')) {
    const run = spawnSync('systemctl', [...scope, 'enable', 'gate.service'], { stdio: 'ignore' });
    if (run.status === 0) {
      steps.done('systemd starts it at boot');
      return;
    }
  }
  say(`  to start it at boot: systemctl ${[...scope, 'enable', 'gate.service'].join(' ')}`);
}
