/** `gate up --vm`: the repository in a virtual machine, its view mounted here. */
import type { StateFiles } from '../../base/state.ts';
import { alone, type Host, serveRepo, startMachine } from '../../vm/lifecycle.ts';
import {
  GUEST_USER,
  type MachineRecord,
  readMachine,
  sshTarget,
  stateOf,
  writeMachine,
} from '../../vm/machine.ts';
import { machineFiles } from '../../vm/names.ts';
import { type Context, usage } from '../context.ts';
import { resolved } from '../locate.ts';
import { BROKER_OPTIONS, envName, givenOptions, MOUNT_OPTIONS, readConfig } from '../options.ts';
import { print, printJson } from '../output.ts';
import { doorIsOpen, openDoor, planned } from './door.ts';
import { makeHost, told } from './host.ts';
import { GUEST_REPO, machineOptions, methodOf, type VmFlags } from './options.ts';

/** Options that say where this host's broker is. */
const NOT_THE_GUESTS = new Set(['host', 'port', 'socket', 'socketGroup', 'serve']);

export async function vmUp(
  context: Context,
  files: StateFiles,
  repo: string,
  flags: VmFlags & { json?: boolean; stateDir?: string },
): Promise<void> {
  const options = machineOptions(context, flags);
  // A word that is none is refused before anything is made.
  methodOf(flags, undefined);
  const host = makeHost(context, flags, files.dir);
  await told(async () => {
    const machine = machineFiles(host.vmDir, options.name);
    await alone(host, machine, async () => {
      const before = readMachine(machine);
      const method = methodOf(flags, before?.door?.method);
      const guestRepo = flags.vmRepoPath ?? (before?.guestRepo || GUEST_REPO);
      if (!guestRepo.startsWith('/')) throw usage(`--vm-repo-path: '${guestRepo}' is no absolute path`);
      const asked = {
        repo,
        guestRepo,
        options: guestOptions(context, files, flags),
        sync: flags.sync === true,
      };
      // What ran before goes on running, whatever fails.
      const ranBefore = stateOf(before) === 'running';
      const started = await startMachine(host, options);
      const record = await serveRepo(host, started, asked, { keepOnError: options.keepOnError || ranBefore });
      const mount = mountPointFor(context, files, record, flags);
      await openTheDoor(context, host, files, record, method, mount);
      tell(host, record, method, mount, flags.json === true);
    });
  });
}

function mountPointFor(context: Context, files: StateFiles, record: MachineRecord, flags: VmFlags): string {
  if (flags.hostMount !== undefined) return resolved(context, flags.hostMount);
  if (record.door) return record.door.mount;
  return context.uid === 0 ? `/mnt/gate_host_${record.name}` : `${files.mounts}/${record.name}`;
}

/** What was asked for, as the variables of the guest's units. */
function guestOptions(context: Context, files: StateFiles, flags: VmFlags): Record<string, string> {
  const config = readConfig(files.config);
  const values: Record<string, string> = {};
  for (const table of [BROKER_OPTIONS, MOUNT_OPTIONS]) {
    const given = givenOptions(table, flags, context.env, config);
    for (const [key, value] of Object.entries(given))
      if (!NOT_THE_GUESTS.has(key))
        values[envName(table[key as keyof typeof table] as { flag: string })] = value;
  }
  return values;
}

async function openTheDoor(
  context: Context,
  host: Host,
  files: StateFiles,
  record: MachineRecord,
  method: NonNullable<MachineRecord['door']>['method'],
  mount: string,
): Promise<void> {
  const { effects, journal } = host;
  const machine = machineFiles(host.vmDir, record.name);
  // Only its own user may use the view's socket; that is root.
  const target = sshTarget(machine, record, method === 'gate' ? 'root' : GUEST_USER);
  const door = { method, mount, stateDir: files.dir };
  if (effects.dry) {
    for (const line of planned(context, door, target, record.repo)) print(line);
    return;
  }
  if (record.door?.method === method && record.door.mount === mount && (await doorIsOpen(record.door))) {
    journal.note(`${mount} is mounted already`);
    return;
  }
  await journal.step('mount the view here', async () => {
    // Known before it is there: whatever happens, `gate down` finds it.
    writeMachine(effects, machine, { ...record, door });
    await openDoor(context, door, record.door, target, record.repo);
    return { value: undefined, said: `the view is mounted here (${method})` };
  });
}

function tell(host: Host, record: MachineRecord, method: string, mount: string, json: boolean): void {
  if (host.effects.dry) return;
  if (!json) {
    print(mount);
    return;
  }
  printJson({
    name: record.name,
    mount,
    method,
    repo: record.repo,
    vm: { vmm: record.vmm, pid: record.process?.pid ?? null, accelerator: record.accelerator ?? null },
    ssh: {
      host: record.sshHost,
      port: record.sshPort,
      config: machineFiles(host.vmDir, record.name).sshConfig,
    },
  });
}
