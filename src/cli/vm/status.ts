/** What `gate status`, `gate vm list` and programs see of the machines. */
import { type MachineState, stateOf } from '../../vm/machine.ts';
import { mountAt } from '../mounts.ts';
import { table } from '../output.ts';
import { doorIsOpen } from './door.ts';
import type { FoundMachine } from './host.ts';

export interface MachineStatus {
  readonly name: string;
  readonly state: MachineState;
  readonly vmm: string;
  readonly base: string;
  readonly accelerator: string | null;
  readonly pid: number | null;
  /** `127.0.0.1:2222`. */
  readonly ssh: string | null;
  readonly repo: string | null;
  readonly mount: string | null;
  readonly method: string | null;
  /** `open`: it answers. `broken`: it is there, and does not. `closed`: it should be there, and is not. */
  readonly door: 'open' | 'broken' | 'closed' | null;
  readonly dir: string;
}

export function describeMachines(machines: readonly FoundMachine[]): Promise<MachineStatus[]> {
  return Promise.all(machines.map(describe));
}

async function describe({ name, files, record }: FoundMachine): Promise<MachineStatus> {
  const state = stateOf(record);
  const running = state === 'running';
  const door = record?.door;
  return {
    name,
    state,
    vmm: record?.vmm ?? 'qemu',
    base: record?.base ?? '-',
    accelerator: (running && record?.accelerator) || null,
    pid: running ? (record?.process?.pid ?? null) : null,
    ssh: running && record ? `${record.sshHost}:${record.sshPort}` : null,
    repo: record?.repo || null,
    mount: door?.mount ?? null,
    method: door?.method ?? null,
    door: door === undefined ? null : await stateOfDoor(running, door),
    dir: files.dir,
  };
}

async function stateOfDoor(
  running: boolean,
  door: Parameters<typeof doorIsOpen>[0],
): Promise<MachineStatus['door']> {
  if (!mountAt(door.mount)) return 'closed';
  return running && (await doorIsOpen(door)) ? 'open' : 'broken';
}

/** The machines for a person; nothing when there is none. */
export function machineLines(machines: readonly MachineStatus[]): string[] {
  return machines.length === 0 ? [] : ['', machinesTable(machines)];
}

export function machinesTable(machines: readonly MachineStatus[]): string {
  return table([
    ['MACHINE', 'STATE', 'VMM', 'BASE', 'SSH', 'VIEW', 'MOUNT'],
    ...machines.map((machine) => [
      machine.name,
      machine.state,
      machine.accelerator === null ? machine.vmm : `${machine.vmm} (${machine.accelerator})`,
      machine.base,
      machine.ssh ?? '-',
      machine.door ?? '-',
      machine.mount ?? '-',
    ]),
  ]);
}

/** Something should be up, and is not. */
export function isBroken(machine: MachineStatus): boolean {
  return machine.state === 'crashed' || (machine.door !== null && machine.door !== 'open');
}
