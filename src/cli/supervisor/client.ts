/** Reaching the supervisor of a state directory, and starting it. */
import { readFileSync } from 'node:fs';
import { systemClock, until } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { isAlive, type ProcessId } from '../../base/process.ts';
import type { StateFiles } from '../../base/state.ts';
import type { Context } from '../context.ts';
import type { Steps } from '../output.ts';
import { childEnv, ManagedChild } from './child.ts';
import { ask, NoSupervisor, type Request } from './protocol.ts';

/** The supervisor that runs there; undefined when none does. */
export function supervisorOf(files: StateFiles): ProcessId | undefined {
  try {
    const recorded = JSON.parse(readFileSync(files.supervisor, 'utf8')) as ProcessId;
    return isAlive(recorded) ? recorded : undefined;
  } catch {
    return undefined;
  }
}

/** Starts one, detached, and waits until it answers. */
async function startSupervisor(context: Context, files: StateFiles): Promise<void> {
  const child = new ManagedChild(
    {
      label: 'the supervisor',
      args: () => ['supervise', `--state-dir=${files.dir}`],
      logFile: `${files.logs}/supervisor.log`,
    },
    systemClock,
    silentLog,
    childEnv(context.env),
  );
  await child.start();
  child.letGo();
}

/** Asks the supervisor; starts it first when none runs. */
export async function askOrStart(
  context: Context,
  files: StateFiles,
  request: Request,
  steps: Steps,
): Promise<unknown> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await ask(files.supervisorSocket, request, steps);
    } catch (error) {
      // One that just ends closes the connection; the next one takes its place.
      if (!(error instanceof NoSupervisor) || attempt >= 3) throw error;
      const running = supervisorOf(files);
      if (running) await until(() => !isAlive(running), 2000);
      if (!supervisorOf(files)) await startSupervisor(context, files);
    }
  }
}

/** Waits until a supervisor that has nothing left to do is gone. */
export async function awaitEnd(which: ProcessId | undefined, limitMs = 10_000): Promise<void> {
  if (which) await until(() => !isAlive(which), limitMs);
}
