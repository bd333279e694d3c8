import { execFileSync } from 'node:child_process';
import type { Command } from 'commander';
import { createLogger } from '../../base/log.ts';
import { defaultStateDir } from '../../base/state.ts';
import { PARK_MS, PARK_MS_MAX, startSftp } from '../../sftp/index.ts';
import { CliError, type Context, usage } from '../context.ts';
import { resolved, stateInUse } from '../locate.ts';
import { mountOf, VIEW_TYPE } from '../mounts.ts';
import { addOptions, givenOptions, MOUNT_OPTIONS, settingsOf } from '../options.ts';
import { type BrokerFlags, brokerFor, checkDir } from '../reach.ts';
import { onSignals, tellReady } from '../service.ts';

interface Flags extends Record<string, unknown>, BrokerFlags {
  readonly root?: string;
  readonly listen?: string;
  readonly connect?: string;
  readonly parkMs: string;
  readonly user?: string;
  readonly readyFd?: string;
}

const { lockIgnored, keepMib, keepDays, logLevel } = MOUNT_OPTIONS;
const OPTIONS = { lockIgnored, keepMib, keepDays, logLevel };

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .option('--root <DIR>', 'the folder that the view shows')
    .option('--listen <FILE>', 'the Unix socket to serve (default: <state>/sftp.sock)')
    .option(
      '--connect <FILE>',
      'serve nothing; join standard input and output with the server on this socket',
    )
    .option(
      '--park-ms <MS>',
      `how long an open waits for its lock before it fails, at most ${PARK_MS_MAX}`,
      `${PARK_MS}`,
    )
    .option(
      '--user <NAME>',
      'run as this user, who alone may connect (only root may name one) [GATE_SFTP_USER]',
    )
    .option('--socket <FILE>', "the broker's Unix socket (default: the one of the state directory)")
    .option('--broker-host <ADDRESS>', 'reach the broker over TCP instead [GATE_BROKER_HOST]')
    .option('--broker-port <PORT>', 'its port (default: 8787) [GATE_BROKER_PORT]')
    .option('--token-file <FILE>', 'file with the bearer token for TCP (default: <state>/token)')
    .option('--state-dir <DIR>', 'whose broker to use [GATE_STATE_DIR]')
    .option('--foreground', 'the only way it runs')
    .option('--ready-fd <FD>', 'write one line of JSON there when it listens');
  addOptions(command, OPTIONS).action(async (flags: Flags) => {
    if (flags.connect !== undefined) return relay(context, flags.connect);
    if (flags.root === undefined)
      throw usage('--root names the folder to show, --connect a server that runs');
    const parkMs = Number(flags.parkMs);
    if (!/^\d+$/.test(flags.parkMs) || parkMs > PARK_MS_MAX)
      throw usage(`--park-ms: '${flags.parkMs}' is not a whole number from 0 to ${PARK_MS_MAX}`);
    const root = checkDir(context, flags.root, 'root');
    const covering = mountOf(root);
    if (covering?.type === VIEW_TYPE)
      throw new CliError(`${root} lies inside the view mounted on ${covering.mountPoint}`, {
        hint: 'Name the folder that this view shows.',
      });
    const name = flags.user ?? (context.env.GATE_SFTP_USER || undefined);
    const user = name === undefined ? undefined : userNamed(context, name);
    const broker = await brokerFor(context, flags, user !== undefined && flags.socket === undefined);
    const settings = settingsOf(OPTIONS, givenOptions(OPTIONS, flags, context.env, broker.config));
    const log = createLogger('sftp', settings.logLevel, context.stderrIsTerminal);
    const listen = resolved(context, flags.listen ?? `${await stateOf(context, flags)}/sftp.sock`);
    const running = await startSftp({
      root,
      listen,
      ...broker.address,
      parkMs,
      lockIgnored: settings.lockIgnored,
      bounds: { bytes: settings.keepMib * 2 ** 20, days: settings.keepDays },
      logLevel: settings.logLevel,
      ...(user && { user }),
    });
    onSignals((signal) => {
      log.info(`${signal}: closing`);
      void running.close().finally(() => process.exit(0));
    });
    log.info(`${root} is served on ${listen}`, { volume: running.volume });
    tellReady(flags.readyFd, { listen, volume: running.volume });
    await new Promise(() => {});
    finish(0);
  });
}

async function stateOf(context: Context, flags: Flags): Promise<string> {
  return (await stateInUse(context, flags.stateDir))?.dir ?? defaultStateDir(context.env, context.home);
}

/** The launcher starts the relay without us; this is for those who have no launcher. */
async function relay(context: Context, path: string): Promise<void> {
  process.argv[2] = resolved(context, path);
  await import('../../sftp/relay.ts');
  await new Promise(() => {});
}

function userNamed(context: Context, name: string): { name: string; uid: number; gid: number } {
  let line: string;
  try {
    line = execFileSync('getent', ['passwd', name], { encoding: 'utf8' });
  } catch {
    throw new CliError(`there is no user '${name}'`);
  }
  const fields = line.trim().split(':');
  const uid = Number(fields[2]);
  if (context.uid !== 0 && uid !== context.uid) throw new CliError('only root may name another user');
  return { name: fields[0]!, uid, gid: Number(fields[3]) };
}
