import { chmodSync, closeSync, existsSync, openSync, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import type { Command } from 'commander';
import { systemClock, until } from '../../base/clock.ts';
import { createLogger, type Logger } from '../../base/log.ts';
import { processId } from '../../base/process.ts';
import { type StateFiles, writeFileAtomic } from '../../base/state.ts';
import { flock } from '../../sys/index.ts';
import { CliError, type Context } from '../context.ts';
import { stateToUse } from '../locate.ts';
import type { Steps } from '../output.ts';
import { onSignals, tellReady } from '../service.ts';
import { childEnv } from '../supervisor/child.ts';
import { CONTROL_BYTES_MAX, type Reply, type Request } from '../supervisor/protocol.ts';
import { Supervisor } from '../supervisor/supervisor.ts';

const LOCK_EX_NB = 2 | 4;
/** How long to wait for a supervisor that is just ending. */
const TAKEOVER_MS = 10_000;
/** A supervisor without a view after this long was started by somebody who went away. */
const UNUSED_MS = 120_000;

/** Takes the lock of this state directory for the life of the process. */
async function lockState(files: StateFiles): Promise<number> {
  const fd = openSync(files.supervisorLock, 'a', 0o600);
  const got = await until(() => flock(fd, LOCK_EX_NB) === 0, TAKEOVER_MS);
  if (got) return fd;
  closeSync(fd);
  throw new CliError(`another supervisor runs in ${files.dir}`, {
    hint: "'gate status' shows what it does.",
  });
}

function answer(connection: Socket, supervisor: Supervisor, text: string, log: Logger): Promise<void> {
  const send = (reply: Reply) => void (connection.writable && connection.write(`${JSON.stringify(reply)}\n`));
  const steps: Steps = { done: (step) => send({ step }), note: (note) => send({ note }) };
  const work = async (): Promise<unknown> => {
    const request = JSON.parse(text) as Request;
    log.info(`asked to ${request.do}`, { request });
    if (request.do === 'up') return supervisor.up(request, steps);
    if (request.do === 'down') return supervisor.down(request.name, steps);
    if (request.do === 'list') return supervisor.list();
    if (request.do === 'stop') return supervisor.stop(steps).then(() => null);
    throw new CliError(`unknown request: ${text.slice(0, 200)}`);
  };
  return work().then(
    (done) => send({ done: done ?? null }),
    (error: Error) => {
      log.error(error.message, { detail: (error as CliError).detail });
      const { hint, detail } = error as CliError;
      send({ error: { message: error.message, hint, detail } });
    },
  );
}

function serve(supervisor: Supervisor, log: Logger, ended: (why: string) => void): Server {
  let busy = 0;
  return createServer((connection) => {
    let text = '';
    connection.setEncoding('utf8');
    connection.on('error', () => {});
    connection.on('data', (chunk: string) => {
      const before = text.indexOf('\n');
      text += chunk;
      if (text.length > CONTROL_BYTES_MAX) connection.destroy();
      const end = text.indexOf('\n');
      if (before >= 0 || end < 0) return;
      busy++;
      const onlyAsks = text.slice(0, end).includes('"do":"list"');
      void answer(connection, supervisor, text.slice(0, end), log).finally(() => {
        busy--;
        connection.end(() => {
          if (!onlyAsks && busy === 0 && supervisor.empty) ended('nothing is up any more');
        });
      });
    });
  });
}

/** Runs the supervisor of a state directory until nothing is up any more, or a signal ends it. */
export async function supervise(
  context: Context,
  files: StateFiles,
  ready: (supervisor: Supervisor) => void | Promise<void>,
): Promise<void> {
  const log = createLogger('supervisor', 'info', context.stderrIsTerminal);
  const lock = await lockState(files);
  const supervisor = new Supervisor({
    files,
    uid: context.uid,
    env: childEnv(context.env),
    clock: systemClock,
    log,
  });
  let end: (why: string) => void = () => {};
  const ended = new Promise<string>((resolve) => (end = resolve));
  const server = serve(supervisor, log, end);
  if (existsSync(files.supervisorSocket)) unlinkSync(files.supervisorSocket);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(files.supervisorSocket, resolve);
  });
  chmodSync(files.supervisorSocket, 0o600);
  writeFileAtomic(files.supervisor, `${JSON.stringify(processId(process.pid))}\n`);
  const silent: Steps = { done: (step) => log.info(step), note: (note) => log.warn(note) };
  onSignals((signal) => void supervisor.stop(silent).finally(() => end(signal)));
  log.info('supervising', { state: files.dir });
  systemClock.after(UNUSED_MS, () => supervisor.empty && end('nobody asked for anything'));
  try {
    await ready(supervisor);
    log.info(`ends: ${await ended}`);
  } catch (error) {
    await supervisor.stop(silent);
    throw error;
  } finally {
    for (const path of [files.supervisorSocket, files.supervisor]) if (existsSync(path)) unlinkSync(path);
    server.close();
    closeSync(lock);
  }
}

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .option('--state-dir <DIR>', 'where everything is kept')
    .option('--ready-fd <FD>', 'write one line of JSON there when it answers')
    .action(async (flags: { stateDir?: string; readyFd?: string }) => {
      await supervise(context, stateToUse(context, flags.stateDir), () =>
        tellReady(flags.readyFd, { ready: true }),
      );
      finish(0);
      // Nothing is left to do; children that were adopted may keep handles open.
      process.exit(0);
    });
}
