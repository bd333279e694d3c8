import type { Command } from 'commander';
import { delay } from '../../base/clock.ts';
import { GateError } from '../../base/errors.ts';
import type { Hold, Mode, Target } from '../../broker/wire.ts';
import { actorName, type RunningCommand, runAs } from '../actors.ts';
import { CliError, type Context, EXIT, usage } from '../context.ts';
import { openSession, placeOf } from '../locate.ts';
import { duration, printJson, say, visible } from '../output.ts';

interface Flags {
  read?: boolean;
  tree?: boolean;
  wait?: string;
  maxHoldMs?: string;
  as?: string;
  keepGoing?: boolean;
  json?: boolean;
  stateDir?: string;
}

/** How long a command has, after SIGTERM, when the locks it ran under are lost. */
const TERM_MS = 5_000;

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .usage('PATH… [--read] [--tree] [--wait MS] [--as NAME] [-- CMD [ARG…]]')
    .argument('<PATH...>', 'what to lock: all of it at once; then -- and the command, if there is one')
    .option('--read', 'share it with other readers (default: alone)')
    .option('--tree', 'with everything below it')
    .option('--wait <MS>', 'give up after so many milliseconds (default: wait without limit)')
    .option(
      '--max-hold-ms <MS>',
      "age from which it is broken when somebody waits for it, --read too; 'none': never",
      '3600000',
    )
    .option('--as <NAME>', 'the name of the actor that holds; the command is the same actor')
    .option('--keep-going', 'let the command run on when the locks are lost (default: it gets SIGTERM)')
    .option('--json', 'one line of JSON on stdout when the locks are granted')
    .option('--state-dir <DIR>', 'whose broker to use [GATE_STATE_DIR]')
    .action(async (_paths: string[], flags: Flags) => {
      const { paths, argv } = split(command.args, process.argv);
      finish(await hold(context, paths, argv, flags));
    });
}

/** Commander drops the `--`: how many arguments stood behind it says where the command begins. */
function split(args: readonly string[], raw: readonly string[]): { paths: string[]; argv: string[] } {
  const dashes = raw.indexOf('--');
  const behind = dashes < 0 ? 0 : raw.length - dashes - 1;
  const at = args.length - behind;
  return { paths: args.slice(0, at), argv: args.slice(at) };
}

async function hold(context: Context, paths: string[], argv: string[], flags: Flags): Promise<number> {
  if (paths.length === 0) throw usage('hold wants at least one PATH before --');
  const waitMs = flags.wait === undefined ? null : Number(flags.wait);
  if (waitMs !== null && !(Number.isInteger(waitMs) && waitMs >= 0))
    throw usage(`--wait: '${flags.wait}' is not a number of milliseconds`);
  const holdCapMs = flags.maxHoldMs === 'none' ? null : Number(flags.maxHoldMs);
  if (holdCapMs !== null && !(Number.isInteger(holdCapMs) && holdCapMs > 0))
    throw usage(`--max-hold-ms: '${flags.maxHoldMs}' is neither a number of milliseconds nor 'none'`);
  const actor = actorName(context, flags.as, argv);
  const { session } = await openSession(context, 'hold', flags.stateDir, paths[0]);
  const gaveUp = new AbortController();
  let interrupted: NodeJS.Signals | undefined;
  const interrupt = (signal: NodeJS.Signals) => {
    interrupted ??= signal;
    gaveUp.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  try {
    const places = [];
    for (const path of paths) places.push(await placeOf(context, session, path));
    const volume = places[0]!.volume;
    if (places.some((place) => place.volume !== volume))
      throw usage('the paths lie in different views', 'Locks that are taken at once must be of one view.');
    const mode: Mode = flags.read ? 'read' : 'write';
    const targets: Target[] = places.map(({ path }) => ({ path, mode, scope: flags.tree ? 'tree' : 'file' }));
    const lost = new Promise<string>((resolve) => {
      session.onLost = resolve;
      session.onHoldLost = (_lockId, reason) => resolve(`the lock ended: ${reason}`);
    });
    const command = argv.length ? argv.join(' ') : 'gate hold';
    const got = await session.acquire(
      {
        owner: `${context.uid}/${actor}`,
        volume,
        targets,
        waitMs,
        holdCapMs,
        who: { pid: process.pid, uid: context.uid, command: command.slice(0, 1024) },
      },
      { signal: gaveUp.signal, onQueued: (queued) => sayQueue(paths, queued.blockers) },
    );
    granted(got, actor, paths, argv, flags, mode);
    const ended = new Promise<string>((resolve) =>
      gaveUp.signal.addEventListener('abort', () => resolve('')),
    );
    if (argv.length === 0) return await holdUntil(lost, ended, interrupted);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, interrupt);
    const running = runAs(context, actor, argv);
    let over: string | undefined;
    const underLock = new Promise<number>((resolve, reject) => {
      running.status.then((status) => over === undefined && resolve(status), reject);
      void lost.then((why) => {
        over = why;
        lostUnder(running, why, flags).then(resolve, reject);
      });
    });
    return await underLock;
  } catch (error) {
    return refused(error, paths, waitMs, interrupted);
  } finally {
    await session.close().catch(() => {});
  }
}

function granted(got: Hold, actor: string, paths: string[], argv: string[], flags: Flags, mode: Mode): void {
  if (flags.json) printJson({ lock_id: got.lockId, fencing_token: got.token, owner: got.owner, paths, mode });
  if (argv.length > 0) return;
  say(
    `holding ${visible(paths.join(', '))} (${mode}${flags.tree ? ', tree' : ''}) as ${actor}; Ctrl-C gives it back`,
  );
}

async function holdUntil(
  lost: Promise<string>,
  ended: Promise<string>,
  was: NodeJS.Signals | undefined,
): Promise<number> {
  if (was) return EXIT.done;
  const why = await Promise.race([lost, ended]);
  if (why === '') return EXIT.done;
  throw new CliError(`the locks are lost: ${why}`);
}

/** The command ran under a lock that is gone: what it writes now may meet somebody else's writes. */
async function lostUnder(running: RunningCommand, why: string, flags: Flags): Promise<number> {
  say(`gate: the locks are lost: ${why}`);
  if (flags.keepGoing) {
    say('The command runs on (--keep-going): from now on nothing protects what it writes.');
    return running.status;
  }
  say(`The command gets SIGTERM. With --keep-going it would run on, unprotected.`);
  running.kill('SIGTERM');
  const status = await Promise.race([running.status, delay(TERM_MS).then(() => undefined)]);
  if (status === undefined) running.kill('SIGKILL');
  await running.status;
  return EXIT.failed;
}

function sayQueue(paths: readonly string[], owners: readonly string[]): void {
  const [first, ...more] = new Set(owners);
  const who = first
    ? `${first}${more.length ? ` and ${more.length} more come` : ' comes'} first`
    : 'somebody comes first';
  say(visible(`waiting for ${paths.join(', ')}: ${who}. Ctrl-C gives up; gate who ${paths[0]}`));
}

function refused(
  error: unknown,
  paths: readonly string[],
  waitMs: number | null,
  signal?: NodeJS.Signals,
): number {
  if (!(error instanceof GateError)) throw error;
  if (signal) return 128 + (signal === 'SIGINT' ? 2 : signal === 'SIGTERM' ? 15 : 1);
  if (error.code === 'timeout' && waitMs !== null)
    throw new CliError(`gave up waiting for ${paths.join(', ')} after ${duration(waitMs)}`, {
      exit: EXIT.gaveUp,
      hint: `gate who ${paths[0]} says who holds it.`,
    });
  throw new CliError(error.message, { hint: error.hint });
}
