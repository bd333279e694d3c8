import { unlinkSync } from 'node:fs';
import type { Command } from 'commander';
import { systemClock } from '../../base/clock.ts';
import { processInfo } from '../../base/process.ts';
import type { StateFiles } from '../../base/state.ts';
import { stateOf } from '../../vm/machine.ts';
import { CliError, type Context, usage } from '../context.ts';
import { absolute, resolved, stateInUse } from '../locate.ts';
import { isInside } from '../mounts.ts';
import { steps as makeSteps, print, printJson, type Steps } from '../output.ts';
import { endProcess } from '../supervisor/child.ts';
import { awaitEnd, supervisorOf } from '../supervisor/client.ts';
import { ask, NoSupervisor } from '../supervisor/protocol.ts';
import { brokerProcess, busyNote, readBroker, removeSockets } from '../supervisor/supervisor.ts';
import { removeMadeDirs, takeDown } from '../supervisor/teardown.ts';
import { readViews, removeView, type ViewRecord, viewOf } from '../views.ts';
import { takeDownMachine } from '../vm/down.ts';
import { allMachines, type FoundMachine } from '../vm/host.ts';

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .argument(
      '[NAME]',
      'a view, by its name, root or mount point, or a virtual machine (default: the one one stands in, or the only one)',
    )
    .option('--all', 'every view and every virtual machine')
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'where everything is kept [GATE_STATE_DIR]')
    .action(async (name: string | undefined, flags: { all?: boolean; json?: boolean; stateDir?: string }) => {
      if (flags.all && name !== undefined) throw usage('name a view, or say --all; not both');
      const steps = makeSteps(context, flags.json);
      const files = await stateInUse(context, flags.stateDir);
      const machines = await machinesToEnd(context, flags, name);
      const views = files && machines.length === 0 ? chosen(context, files, name, flags.all === true) : [];
      if (flags.all && files) views.push(...readViews(files).filter((view) => !views.includes(view)));
      if (name !== undefined && views.length + machines.length === 0)
        throw new CliError(`there is no view '${name}'`, { hint: list(files) });
      for (const machine of machines) await takeDownMachine(context, flags, machine, false);
      for (const view of views) await takeDownOne(context, files!, view, steps);
      if (files) await leaveNothing(context, files, steps);
      const names = [...machines, ...views].map((each) => each.name);
      if (flags.json) printJson({ down: names });
      else if (names.length === 0) print('nothing is up');
      finish(0);
    });
}

/**
 * Virtual machines that are meant: by name or mount; with --all every one; without either the one in whose mount one stands, or
 * the only one that is up when there is no view.
 */
async function machinesToEnd(
  context: Context,
  flags: { all?: boolean; stateDir?: string },
  name: string | undefined,
): Promise<FoundMachine[]> {
  const machines = (await allMachines(context, flags)).filter(
    ({ record }) => stateOf(record) === 'running' || stateOf(record) === 'crashed' || record?.door,
  );
  if (flags.all) return machines;
  if (name !== undefined) {
    const path = absolute(context, name);
    return (await allMachines(context, flags))
      .filter((machine) => machine.name === name || machine.record?.door?.mount === path)
      .slice(0, 1);
  }
  const here = machines.filter(({ record }) => record?.door && isInside(context.cwd, record.door.mount));
  if (here.length > 0) return here;
  const files = await stateInUse(context, flags.stateDir);
  return machines.length === 1 && (!files || readViews(files).length === 0) ? machines : [];
}

function list(files: StateFiles | undefined): string {
  const names = files ? readViews(files).map((view) => view.name) : [];
  return names.length ? `There is: ${names.join(', ')}.` : 'Nothing is up.';
}

function chosen(context: Context, files: StateFiles, name: string | undefined, all: boolean): ViewRecord[] {
  const views = readViews(files);
  if (all) return views;
  if (name !== undefined) {
    const byName = views.find((view) => view.name === name);
    if (byName) return [byName];
    const paths = [absolute(context, name), resolved(context, name)];
    return views.filter((view) => paths.includes(view.root) || paths.includes(view.mount)).slice(0, 1);
  }
  const here = viewOf(context.cwd, views);
  if (here) return [here];
  if (views.length > 1)
    throw usage(
      `there are ${views.length} views; name one, or say --all`,
      views.map((view) => `  ${view.name}  ${view.mount}`).join('\n'),
    );
  return views;
}

async function takeDownOne(
  context: Context,
  files: StateFiles,
  view: ViewRecord,
  steps: Steps,
): Promise<void> {
  try {
    await ask(files.supervisorSocket, { do: 'down', name: view.name }, steps);
  } catch (error) {
    if (!(error instanceof NoSupervisor)) throw error;
    // The supervisor is dead: do its part here.
    await takeDown(view, {
      uid: context.uid,
      clock: systemClock,
      busy: (users) => steps.note(busyNote(view.mount, users)),
    });
    removeView(files, view.name);
    steps.done(`${view.mount} is unmounted`);
  }
}

/** When the last view is gone, nothing else stays: no supervisor, no broker, no socket. */
async function leaveNothing(context: Context, files: StateFiles, steps: Steps): Promise<void> {
  if (readViews(files).length > 0) return;
  const supervisor = supervisorOf(files);
  await awaitEnd(supervisor);
  const left = supervisorOf(files);
  if (left) await endProcess(left);
  const broker = readBroker(files);
  // A broker of `gate broker`, beside any supervisor, is somebody else's to stop.
  if (broker && (supervisor || brokerIsOrphan(broker.pid))) {
    await endProcess(brokerProcess(broker));
    steps.done('the broker is stopped');
  }
  removeSockets(files);
  for (const path of [files.supervisorSocket, files.supervisor])
    try {
      if (!supervisorOf(files)) unlinkSync(path);
    } catch {
      // It was not there.
    }
  if (context.uid !== 0) removeMadeDirs([files.mounts]);
}

/** A broker that a supervisor started was told on its command line where to say that it is ready. */
function brokerIsOrphan(pid: number): boolean {
  return (processInfo(pid)?.command ?? '').includes('--ready-fd');
}
