/** `gate mount --remote`: a view of another machine. */
import { statSync } from 'node:fs';
import type { Command } from 'commander';
import { delay, systemClock } from '../base/clock.ts';
import { createLogger } from '../base/log.ts';
import { makeDirs } from '../base/state.ts';
import {
  type IdMap,
  SocketTransport,
  SshTransport,
  startRemoteMount,
  type Transport,
} from '../remote/index.ts';
import { parseSshUrl } from '../ssh/index.ts';
import { CliError, type Context, usage } from './context.ts';
import { resolved } from './locate.ts';
import { mountAt, VIEW_TYPE } from './mounts.ts';
import { givenOptions, MOUNT_OPTIONS, settingsOf } from './options.ts';
import { onSignals, tellReady } from './service.ts';
import { busyNote } from './supervisor/supervisor.ts';
import { unmountView } from './supervisor/teardown.ts';

/** Where a view in a machine of `gate up --vm` serves. */
export const REMOTE_SOCKET = '/var/lib/gate/view.sock';
const END_MS = 2_000;

export interface RemoteFlags extends Record<string, unknown> {
  mount: string;
  root?: string;
  remote?: string;
  remoteSocket?: string;
  remoteCommand?: string;
  sshKey?: string;
  knownHosts?: string;
  hostKeyAlias?: string;
  idmap?: string;
  readyFd?: string;
}

export function addRemoteOptions(command: Command): Command {
  return command
    .option('--remote <ADDRESS>', 'mount a view of another machine: ssh://USER@HOST:PORT, or unix:FILE')
    .option(
      '--remote-socket <FILE>',
      `where the view serves over there (gate mount --serve; default: ${REMOTE_SOCKET})`,
    )
    .option(
      '--remote-command <COMMAND>',
      "reach it by this command's input and output over there, like `gate serve`",
    )
    .option('--ssh-key <FILE>', "the private key, and no other (default: as ssh's configuration says)")
    .option('--known-hosts <FILE>', "the machine's pinned host keys; with --host-key-alias")
    .option('--host-key-alias <NAME>', 'the name they stand under')
    .option(
      '--idmap <MODE>',
      "'user': who mounts and who owns the view's root are each other; 'none' (default: user)",
    );
}

export async function mountRemote(
  context: Context,
  flags: RemoteFlags,
  finish: (status: number) => void,
): Promise<void> {
  if (flags.root !== undefined || flags.inPlace) throw usage("--remote: the root is the other machine's");
  const settings = settingsOf(MOUNT_OPTIONS, givenOptions(MOUNT_OPTIONS, flags, context.env, {}));
  const log = createLogger('mount', settings.logLevel, context.stderrIsTerminal);
  const mountPoint = resolved(context, flags.mount);
  if (flags.mount === '/mnt/gate') makeDirs(mountPoint);
  if (mountAt(mountPoint)?.type === VIEW_TYPE) throw new CliError(`${mountPoint} is a view already`);
  if (!statSync(mountPoint, { throwIfNoEntry: false })?.isDirectory())
    throw new CliError(`the mount point ${mountPoint} is not a directory`);
  const { agents, owner, logLevel } = settings;
  const running = await startRemoteMount({
    transport: transportOf(context, flags),
    mountPoint,
    idMap: idMapOf(flags.idmap),
    agents,
    owner,
    logLevel,
  });
  onSignals((signal) => {
    log.info(`${signal}: unmounting`);
    const busy = (users: string[]) => log.warn(busyNote(mountPoint, users));
    unmountView(mountPoint, { uid: context.uid, clock: systemClock, busy, inPlace: false })
      .catch((error: Error) => log.error(error.message))
      .then(() => Promise.race([running.unmounted, delay(END_MS)]))
      .finally(() => process.exit(mountAt(mountPoint)?.type === VIEW_TYPE ? 1 : 0));
  });
  log.info(`${flags.remote} is mounted on ${mountPoint}`, { volume: running.volume });
  tellReady(flags.readyFd, { mount: mountPoint, volume: running.volume });
  await running.unmounted;
  log.info(`${mountPoint} is unmounted`);
  finish(0);
  process.exit(0);
}

function transportOf(context: Context, flags: RemoteFlags): Transport {
  const { remote = '', remoteSocket = REMOTE_SOCKET, remoteCommand } = flags;
  if (remote.startsWith('unix:')) return new SocketTransport(resolved(context, remote.slice('unix:'.length)));
  const { sshKey, knownHosts, hostKeyAlias } = flags;
  if ((knownHosts === undefined) !== (hostKeyAlias === undefined))
    throw usage('--known-hosts FILE and --host-key-alias NAME belong together');
  const hostKeys =
    knownHosts === undefined ? null : { file: resolved(context, knownHosts), alias: hostKeyAlias! };
  const identityFile = sshKey === undefined ? null : resolved(context, sshKey);
  return new SshTransport(
    { ...parseSshUrl(remote), identityFile, hostKeys },
    remoteSocket,
    remoteCommand ?? null,
  );
}

function idMapOf(given: string | undefined): IdMap {
  if (given === undefined || given === 'user' || given === 'none') return given ?? 'user';
  throw usage(`--idmap: 'user' or 'none', not '${given}'`);
}
