import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, statSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { makeDirs, type StateFiles } from '../../base/state.ts';
import { projectDir } from '../../base/version.ts';
import { bypassers, inTheWayOf } from '../bypass.ts';
import { CliError, type Context, usage } from '../context.ts';
import { resolved, stateToUse } from '../locate.ts';
import { isInside, mountAt, mountedViews, mountOf, VIEW_TYPE } from '../mounts.ts';
import { addOptions, BROKER_OPTIONS, givenOptions, MOUNT_OPTIONS, readConfig } from '../options.ts';
import { steps as makeSteps, print, printJson, type Steps, say } from '../output.ts';
import { askOrStart } from '../supervisor/client.ts';
import { type UpRequest, type UpResult, upAgain } from '../supervisor/protocol.ts';
import { checkName, isInPlace, readViews } from '../views.ts';
import { addUpOptions, type VmFlags, vmOnly } from '../vm/options.ts';
import { supervise } from './supervise.ts';

interface Flags extends VmFlags {
  name?: string;
  mount?: string;
  inPlace?: boolean;
  force?: boolean;
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
    .option('--in-place', 'mount it over the repository itself: same path, no way round it')
    .option('--force', 'in place: although processes that work in the repository would go on beside the view')
    .option('--foreground', 'stay in the foreground; Ctrl-C takes everything down')
    .option('--all', 'bring back every view there was, after a reboot')
    .option('--at-boot', 'write a systemd unit that does --all at every boot')
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'where everything is kept [GATE_STATE_DIR]');
  addUpOptions(command);
  addOptions(command, BROKER_OPTIONS, MOUNT_OPTIONS).action(
    async (repo: string | undefined, flags: Flags) => {
      if (flags.vm === undefined) await up(context, repo, flags);
      else await inMachine(context, repo, flags);
      finish(0);
      if (flags.foreground) process.exit(0);
    },
  );
}

/** With --vm: nothing of ours runs beside the machine but the door to its view. */
async function inMachine(context: Context, repo: string | undefined, flags: Flags): Promise<void> {
  const alien = ['name', 'mount', 'inPlace', 'force', 'foreground', 'all', 'atBoot'] as const;
  const given = alien.find((flag) => flags[flag] !== undefined);
  if (given !== undefined)
    throw usage(
      `--vm does not go with '${given}'`,
      "The machine's name is --vm-name, the mount --host-mount.",
    );
  const { vmUp } = await import('../vm/up.ts');
  await vmUp(context, stateToUse(context, flags.stateDir), checkRoot(context, repo), flags);
}

async function up(context: Context, repo: string | undefined, flags: Flags): Promise<void> {
  const needsVm = vmOnly(flags)[0];
  if (needsVm !== undefined) throw usage(`${needsVm} means something with --vm only`);
  if (flags.name !== undefined) checkName(flags.name);
  if (flags.all && (repo ?? flags.name ?? flags.mount ?? flags.inPlace) !== undefined)
    throw usage('--all takes no REPO, --name, --mount or --in-place');
  if (flags.inPlace && flags.mount !== undefined)
    throw usage('--in-place mounts over the repository itself: it goes with no --mount');
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
  const requests =
    root === undefined ? readViews(files).map(upAgain) : [requestFor(context, files, root, flags)];
  for (const request of requests) if (request.mount === request.root) checkInPlace(request, files, flags);
  checkFuse(context);
  if (root !== undefined) steps.done(`${root} can be mounted (state in ${files.dir})`);
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
  for (const result of results) {
    tellBypass(result, steps);
    if (isInPlace(result) && !flags.inPlace && !flags.all)
      steps.note(`it is mounted in place; 'gate down ${result.name}' before another way`);
  }
  if (flags.json) printJson(flags.all ? results : results[0]);
  else for (const result of results) print(result.mount);
}

/** Who works beside the view. In place that is told whatever else is: nobody expects it there. */
function tellBypass(result: UpResult, steps: Steps): void {
  if (!isInPlace(result)) {
    for (const line of bypassers(result.root, result.mount)) steps.note(line);
    return;
  }
  const standing = inTheWayOf(result.root).ancestors;
  for (const line of bypassers(result.root, result.mount)) say(`  ${line}`);
  for (const { comm, pid } of standing.slice(0, 1))
    say(`  ${comm} (pid ${pid}), where this was started, stands beneath the view: say  cd "$PWD"  there now`);
}

/** May the view be mounted over the repository? Throws when Gate would lock itself out, or somebody would be left in the tree below. */
function checkInPlace({ root }: UpRequest, files: StateFiles, flags: Flags): void {
  for (const [what, path] of [
    ['Gate itself', projectDir],
    ['the Node that runs Gate', process.execPath],
  ] as const)
    if (isInside(path, root))
      throw new CliError(`${what} lies in ${root}: ${path}`, {
        hint: 'A view cannot serve the files that it runs from. Install Gate elsewhere, or mount without --in-place.',
      });
  const known = readViews(files).some((view) => view.root === root && isInPlace(view));
  if (mountAt(root)?.type === VIEW_TYPE) {
    if (known) return;
    throw new CliError(`${root} is a view already, which ${files.dir} knows nothing of`, {
      hint: `Name its state directory with --state-dir, or take it away: gate unmount ${root}`,
    });
  }
  const { others } = inTheWayOf(root);
  if (others.length === 0 || flags.force) return;
  throw new CliError(`${others.length} process${others.length > 1 ? 'es work' : ' works'} in ${root}`, {
    detail: others.slice(0, 20),
    hint: 'They would go on in the tree beneath the view, without locks. End them, or let them leave; with --force the view is mounted all the same.',
  });
}

/** The repository: checked, and resolved. */
function checkRoot(context: Context, repo: string | undefined): string {
  const named = repo ?? gitTop(context.cwd) ?? context.cwd;
  const root = resolved(context, named);
  const covering = mountOf(root);
  // A view in place, which may be dead: nothing is asked of it.
  if (covering?.type === VIEW_TYPE && covering.mountPoint === root && covering.source === root) return root;
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
  const views = new Set(mountedViews().map((view) => view.mountPoint));
  for (let at = dir; ; at = resolve(at, '..')) {
    // A dead view does not say what is in it.
    if (existsSync(`${at}/.git`) || views.has(at)) return at;
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
  const mount = flags.mount === undefined ? undefined : resolved(context, flags.mount);
  if (mount === root)
    throw new CliError(`the mount point ${mount} lies inside ${root} itself`, {
      hint: 'To mount the view over the repository say --in-place.',
    });
  const config = readConfig(files.config);
  const brokerOptions = givenOptions(BROKER_OPTIONS, flags, context.env, config);
  // Under sudo the caller, too, may talk to the broker.
  const group = context.uid === 0 ? context.env.SUDO_GID : undefined;
  if (brokerOptions.socketGroup === undefined && group && group !== '0') brokerOptions.socketGroup = group;
  return {
    do: 'up',
    name: flags.name,
    root,
    mount: flags.inPlace ? root : mount,
    brokerOptions,
    mountOptions: givenOptions(MOUNT_OPTIONS, flags, context.env, config),
  };
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
      tellBypass(result, steps);
      if (json) printJson(result);
      else print(result.mount);
    }
    steps.note('Ctrl-C takes everything down');
  });
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
