import { type Command, Option } from 'commander';
import { delay, systemClock } from '../../base/clock.ts';
import { createLogger } from '../../base/log.ts';
import { makeDirs } from '../../base/state.ts';
import { type InPlace, startMount } from '../../mount/index.ts';
import { CliError, type Context, usage } from '../context.ts';
import { absolute, resolved } from '../locate.ts';
import { isInside, mountAt, mountOf, VIEW_TYPE } from '../mounts.ts';
import { addOptions, givenOptions, MOUNT_OPTIONS, settingsOf } from '../options.ts';
import { type BrokerFlags, brokerFor, checkDir } from '../reach.ts';
import { addRemoteOptions, mountRemote, type RemoteFlags } from '../remote.ts';
import { onSignals, tellReady } from '../service.ts';
import { busyNote } from '../supervisor/supervisor.ts';
import { unmountView } from '../supervisor/teardown.ts';

/** How long an unmounted view's session and threads may take to end. */
const END_MS = 2_000;

interface Flags extends RemoteFlags, BrokerFlags {
  root?: string;
  mount: string;
  inPlace?: boolean;
  replace?: boolean;
  rootFd?: string;
  rootId?: string;
  readyFd?: string;
}

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  addRemoteOptions(command)
    .option('--root <DIR>', 'the folder that the view shows')
    .option('--mount <DIR>', 'where to mount it', '/mnt/gate')
    .option('--socket <FILE>', "the broker's Unix socket (default: the one of the state directory)")
    .option('--broker-host <ADDRESS>', 'reach the broker over TCP instead [GATE_BROKER_HOST]')
    .option('--broker-port <PORT>', 'its port (default: 8787) [GATE_BROKER_PORT]')
    .option('--token-file <FILE>', 'file with the bearer token for TCP (default: <state>/token)')
    .option('--state-dir <DIR>', 'whose broker to use [GATE_STATE_DIR]')
    .option('--in-place', 'over the folder itself')
    .option('--foreground', 'the only way it runs')
    .addOption(new Option('--replace', 'take the place of a dead mount').hideHelp())
    .addOption(new Option('--root-fd <FD>', 'a descriptor of the root').hideHelp())
    .addOption(new Option('--root-id <DEV:INO>', 'what the root must be').hideHelp())
    .option('--ready-fd <FD>', 'write one line of JSON there when it is mounted');
  addOptions(command, MOUNT_OPTIONS).action(async (flags: Flags) => {
    if (flags.remote !== undefined) return mountRemote(context, flags, finish);
    if (flags.root === undefined)
      throw usage('--root DIR: the folder that the view shows; or --remote ADDRESS');
    const { root, mountPoint } = flags.inPlace ? inPlace(context, flags) : placesOf(context, flags);
    const broker = await brokerFor(context, flags);
    const given = givenOptions(MOUNT_OPTIONS, flags, context.env, broker.config);
    const settings = settingsOf(MOUNT_OPTIONS, given);
    const log = createLogger('mount', settings.logLevel, context.stderrIsTerminal);
    const running = await startMount({
      root,
      mountPoint,
      ...broker.address,
      ...settings,
      inPlace: flags.inPlace ? howInPlace(flags) : undefined,
      serve: settings.serve === undefined ? undefined : served(context, settings.serve, settings.remoteTtlMs),
      bounds: { bytes: settings.keepMib * 2 ** 20, days: settings.keepDays },
    });
    const left = Promise.withResolvers<void>();
    onSignals((signal) => {
      log.info(`${signal}: unmounting`);
      const busy = (users: string[]) => log.warn(busyNote(running.mountPoint, users));
      unmountView(running.mountPoint, { uid: context.uid, clock: systemClock, busy, inPlace: flags.inPlace })
        .catch((error: Error) => log.error(error.message))
        .then(() => Promise.race([running.unmounted, delay(END_MS)]))
        .finally(() => process.exit(mountAt(running.mountPoint)?.type === VIEW_TYPE ? 1 : 0));
    });
    log.info(`${root} is mounted on ${running.mountPoint}`, { volume: running.volume });
    const { fd, dev, ino } = running.root;
    tellReady(flags.readyFd, {
      mount: running.mountPoint,
      volume: running.volume,
      rootFd: fd,
      rootId: `${dev}:${ino}`,
    });
    await Promise.race([running.unmounted, left.promise]);
    log.info(`${running.mountPoint} is unmounted`);
    finish(0);
    // Whatever handle the reactor left must not keep an unmounted view's process.
    process.exit(0);
  });
}

function placesOf(context: Context, flags: Flags): { root: string; mountPoint: string } {
  const root = checkDir(context, flags.root ?? '', 'root');
  const mountPoint = resolved(context, flags.mount);
  const covering = mountOf(root);
  if (covering?.type === VIEW_TYPE)
    throw new CliError(`${root} lies inside the view mounted on ${covering.mountPoint}`);
  if (isInside(mountPoint, root))
    throw new CliError(`the mount point ${mountPoint} lies inside ${root} itself`, {
      hint: 'Name one outside, or mount it over the folder itself with --in-place.',
    });
  if (flags.mount === '/mnt/gate') makeDirs(mountPoint);
  return { root, mountPoint };
}

function served(context: Context, file: string, ttlMs: number): { socket: string; ttlMs: number } {
  return { socket: absolute(context, file), ttlMs };
}

/** Over the root itself. Whoever says --replace has made sure that what is mounted there is dead: then nothing is asked of it. */
function inPlace(context: Context, flags: Flags): { root: string; mountPoint: string } {
  const root = flags.replace ? (flags.root ?? '') : checkDir(context, flags.root ?? '', 'root');
  const covering = mountOf(root);
  if (covering?.type === VIEW_TYPE && !(flags.replace && covering.mountPoint === root))
    throw new CliError(`${root} lies inside the view mounted on ${covering.mountPoint}`);
  // Nothing of this process may stand in the tree below.
  process.chdir('/');
  return { root, mountPoint: root };
}

function howInPlace(flags: Flags): InPlace {
  const { replace = false, rootFd, rootId } = flags;
  return { replace, rootFd: rootFd === undefined ? undefined : Number(rootFd), rootId };
}
