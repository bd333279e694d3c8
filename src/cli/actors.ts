/** Names of actors, and running a command as one. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { newId } from '../base/ids.ts';
import { ownsTerminal } from '../base/process.ts';
import { CliError, type Context, usage } from './context.ts';
import { mountOf, VIEW_TYPE } from './mounts.ts';

const NAME_CHARS_MAX = 64;

/** The name that was asked for, checked; else the one that this shell has already; else a new one. */
export function actorName(context: Context, asked: string | undefined, command: readonly string[]): string {
  const name = asked ?? context.env.GATE_ACTOR;
  if (name === undefined || name === '') {
    const program = (command[0] ?? 'gate').replace(/^.*\//, '').replace(/[^A-Za-z0-9._-]/g, '') || 'gate';
    return `${program.slice(0, 32)}-${newId('').slice(1, 7)}`;
  }
  if (name.length > NAME_CHARS_MAX || /[\x00-\x20\x7f/]/.test(name))
    throw usage(
      `--as: '${name}' is no name for an actor`,
      `At most ${NAME_CHARS_MAX} characters, without spaces and slashes.`,
    );
  return name;
}

/** Signals that mean the command when they are sent to us. */
const FORWARDED = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGINT', 'SIGQUIT'] as const;

export interface RunningCommand {
  readonly pid: number | undefined;
  /** The status to exit with: the command's own, or 128 + the signal that ended it. */
  readonly status: Promise<number>;
  kill(signal: NodeJS.Signals): void;
}

/** Starts `command` with `GATE_ACTOR=actor` and our own stdin, stdout and stderr. */
export function runAs(context: Context, actor: string, command: readonly string[]): RunningCommand {
  const [file, ...args] = command;
  const env: Record<string, string | undefined> = { ...context.env, GATE_ACTOR: actor };
  // A shell that stands beneath a view in place would leave its commands there: by its path the folder is the one in the view.
  const cwd = mountOf(context.cwd)?.type === VIEW_TYPE ? context.cwd : undefined;
  const child = spawn(file!, args, { stdio: 'inherit', env, cwd });
  for (const signal of FORWARDED)
    process.on(signal, () => {
      // At a terminal, Ctrl-C and Ctrl-\ reach the command without us.
      if ((signal === 'SIGINT' || signal === 'SIGQUIT') && ownsTerminal()) return;
      child.kill(signal);
    });
  const status = new Promise<number>((resolve, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      const missing = error.code === 'ENOENT';
      reject(
        new CliError(
          missing ? `there is no command '${file}'` : `'${file}' cannot be run: ${error.message}`,
          {
            exit: missing ? 127 : 126,
          },
        ),
      );
    });
    child.once('exit', (code, signal) => resolve(signal ? 128 + constants.signals[signal] : (code ?? 1)));
  });
  return { pid: child.pid, status, kill: (signal) => void child.kill(signal) };
}
