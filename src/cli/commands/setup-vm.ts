import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync, symlinkSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { projectDir } from '../../base/version.ts';
import { CliError, type Context } from '../context.ts';
import { resolved } from '../locate.ts';
import { steps } from '../output.ts';
import { installUnits, UNITS, type UnitSettings } from '../units.ts';

interface Flags {
  readonly repoPath: string;
  readonly mount: string;
  readonly user?: string;
  readonly stateDir: string;
  readonly prefix: string;
  readonly start?: boolean;
}

const COMMAND = '/usr/local/bin/gate';

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .requiredOption('--repo-path <DIR>', 'the repository in this machine')
    .option('--mount <DIR>', 'where its view is mounted here', '/mnt/gate')
    .option(
      '--user <NAME>',
      'who logs in from the host: may use the view and the broker, and is who sshfs, sftp and scp act as',
    )
    .option('--state-dir <DIR>', 'where the broker keeps its state', '/var/lib/gate')
    .option('--start', 'start the services, or start them again, and wait until the view is mounted')
    .option('--prefix <DIR>', 'put everything below this folder instead, and start nothing', '/');
  command.action((flags: Flags) => {
    const prefixed = flags.prefix !== '/';
    const prefix = resolved(context, flags.prefix);
    if (!prefixed && context.uid !== 0)
      throw new CliError('only root can install services', {
        hint: 'Run it with sudo, or with --prefix DIR to look at it.',
      });
    const repo = resolved(context, flags.repoPath);
    if (!prefixed && !statSync(repo, { throwIfNoEntry: false })?.isDirectory())
      throw new CliError(`the repository ${repo} is not a directory`);
    const step = steps(context);
    linkCommand(join(prefix, COMMAND));
    step.done(`${COMMAND} is ${projectDir}/gate`);
    for (const file of installUnits(prefix, settingsOf(context, flags, repo))) step.done(`wrote ${file}`);
    mkdirSync(join(prefix, flags.stateDir), { recursive: true, mode: 0o755 });
    if (!prefixed && hasSystemd()) {
      systemctl('daemon-reload');
      systemctl('enable', ...UNITS);
      step.done(`enabled ${UNITS.join(', ')}`);
    } else if (!prefixed && flags.start) {
      throw new CliError(
        'this machine is not run by systemd, so the services were installed and not started',
        {
          hint: `'gate up ${repo}' runs broker and view without it.`,
        },
      );
    }
    if (flags.start && !prefixed) {
      // Each of them says when it answers.
      systemctl('restart', ...UNITS);
      step.done(`the view of ${repo} is mounted on ${flags.mount}`);
    }
    finish(0);
  });
}

function settingsOf(context: Context, flags: Flags, repo: string): UnitSettings {
  return {
    GATE_STATE_DIR: flags.stateDir,
    GATE_REPO: repo,
    GATE_MOUNT: resolved(context, flags.mount),
    ...(flags.user !== undefined && {
      GATE_SFTP_USER: flags.user,
      GATE_VIEW_USER: flags.user,
      GATE_SOCKET_GROUP: groupOf(flags.user),
    }),
  };
}

function groupOf(user: string): string {
  const ran = spawnSync('id', ['-gn', user], { encoding: 'utf8' });
  if (ran.status !== 0) throw new CliError(`there is no user '${user}'`);
  return ran.stdout.trim();
}

/** Where Gate is stays where it is: the command is a link, so that an upgrade there is one here. */
function linkCommand(path: string): void {
  mkdirSync(join(path, '..'), { recursive: true });
  const target = `${projectDir}/gate`;
  try {
    symlinkSync(target, path);
  } catch {
    unlinkSync(path);
    symlinkSync(target, path);
  }
}

function hasSystemd(): boolean {
  return existsSync('/run/systemd/system');
}

function systemctl(...args: string[]): void {
  const ran = spawnSync('systemctl', args, { encoding: 'utf8' });
  if (ran.status === 0) return;
  const units = args.filter((arg) => arg.endsWith('.service'));
  const log = units.length === 0 ? '' : lastWords(units);
  throw new CliError(`systemctl ${args.join(' ')} failed`, {
    detail: `${ran.stderr}\n${log}`.split('\n').filter(Boolean).slice(-20),
  });
}

function lastWords(units: readonly string[]): string {
  const of = units.flatMap((unit) => ['-u', unit]);
  return (
    spawnSync('journalctl', ['-q', '--no-pager', '-o', 'cat', '-n', '15', ...of], { encoding: 'utf8' })
      .stdout ?? ''
  );
}
