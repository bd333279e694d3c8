/** The machine's view on the host: which of the doors, and whether it answers. */
import { spawn } from 'node:child_process';
import { isAlive } from '../../base/process.ts';
import type { SshTarget } from '../../ssh/index.ts';
import { shown } from '../../vm/effects.ts';
import { GUEST_STATE } from '../../vm/guest.ts';
import type { DoorRecord } from '../../vm/machine.ts';
import type { Context } from '../context.ts';
import { type DoorOptions, doorRecords, mountDoor, planDoor, unmountDoor } from '../doors/index.ts';
import { mountAt } from '../mounts.ts';

/** A first look through a new door, in a guest that is emulated. */
const OPEN_MS = 120_000;
/** A door that takes longer for its root's attributes is a broken one. */
const ANSWER_MS = 10_000;

function optionsOf(context: Context, door: DoorRecord, target: SshTarget, repo: string): DoorOptions {
  return {
    method: door.method,
    // A door's connection lives as long as the door: not through the one of our own commands.
    target: { ...target, controlPath: null },
    mountPoint: door.mount,
    stateDir: door.stateDir,
    there: { brokerSocket: `${GUEST_STATE}/broker.sock` },
    root: repo,
    env: context.env,
    limitMs: OPEN_MS,
  };
}

/** What would be run, for a dry run. */
export function planned(context: Context, door: DoorRecord, target: SshTarget, repo: string): string[] {
  const plan = planDoor(optionsOf(context, door, target, repo));
  return [
    ...plan.files.map(({ path, text }) => `write  ${path} (${Buffer.byteLength(text)} bytes, mode 600)`),
    `mkdir  ${door.mount}`,
    ...plan.processes.map(({ argv }) => `start  ${shown(argv[0]!, argv.slice(1))}`),
  ];
}

/** Takes the former door away, and opens this one. Throws a CliError with the end of its log. */
export async function openDoor(
  context: Context,
  door: DoorRecord,
  former: DoorRecord | undefined,
  target: SshTarget,
  repo: string,
): Promise<void> {
  if (former) await closeDoor(former);
  await mountDoor(optionsOf(context, door, target, repo));
}

export async function closeDoor(door: DoorRecord): Promise<void> {
  await unmountDoor(door.stateDir, door.mount);
}

/** Its processes live, it is mounted, and its root's attributes come in time: asked by another process, which may hang. */
export async function doorIsOpen(door: DoorRecord): Promise<boolean> {
  const record = doorRecords(door.stateDir).find(({ mount }) => mount === door.mount);
  if (!record || record.pids.some((id) => !isAlive(id)) || !mountAt(door.mount)) return false;
  return new Promise((resolve) => {
    const child = spawn('stat', ['-f', '--', door.mount], {
      cwd: '/',
      stdio: 'ignore',
      timeout: ANSWER_MS,
      killSignal: 'SIGKILL',
    });
    child.once('error', () => resolve(false));
    child.once('exit', (code) => resolve(code === 0));
    child.unref();
  });
}
