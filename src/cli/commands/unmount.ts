import type { Command } from 'commander';
import { systemClock } from '../../base/clock.ts';
import { CliError, type Context } from '../context.ts';
import { resolved, stateInUse } from '../locate.ts';
import { mountAt, mountedViews, VIEW_TYPE } from '../mounts.ts';
import { steps as makeSteps, printJson } from '../output.ts';
import { busyNote } from '../supervisor/supervisor.ts';
import { unmountView } from '../supervisor/teardown.ts';
import { readViews } from '../views.ts';

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .argument('<DIR>', 'the mount point')
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'where everything is kept [GATE_STATE_DIR]')
    .action(async (dir: string, flags: { json?: boolean; stateDir?: string }) => {
      const mount = resolved(context, dir);
      const steps = makeSteps(context, flags.json);
      const files = await stateInUse(context, flags.stateDir);
      const view = files && readViews(files).find((known) => known.mount === mount);
      if (view)
        throw new CliError(`${mount} is the view '${view.name}', which its supervisor would mount again`, {
          hint: `gate down ${view.name}`,
        });
      if (mountAt(mount)?.type !== VIEW_TYPE)
        throw new CliError(`no view is mounted on ${mount}`, {
          hint: `Mounted are: ${
            mountedViews()
              .map((one) => one.mountPoint)
              .join(', ') || 'none'
          }.`,
        });
      await unmountView(mount, {
        uid: context.uid,
        clock: systemClock,
        inPlace: true,
        busy: (users) => steps.note(busyNote(mount, users)),
      });
      steps.done(`${mount} is unmounted`);
      if (flags.json) printJson({ unmounted: mount });
      finish(0);
    });
}
