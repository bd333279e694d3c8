/** What is known of a virtual machine: what it was asked to be, and what runs. Written whole at each change. */
import { readdirSync, readFileSync } from 'node:fs';
import { isAlive, type ProcessId } from '../base/process.ts';
import type { SshTarget } from '../ssh/index.ts';
import type { Effects } from './effects.ts';
import type { Image } from './image.ts';
import { type MachineFiles, machineFiles, machinesDir } from './names.ts';

export type Vmm = 'qemu' | 'firecracker';
export type DoorMethod = 'gate' | 'sshfs' | 'direct';

/** The door on the host; its processes stand in `<state>/doors/`. */
export interface DoorRecord {
  readonly method: DoorMethod;
  readonly mount: string;
  readonly stateDir: string;
}

export interface NetworkRecord {
  readonly tap: string;
  readonly hostAddress: string;
  readonly guestAddress: string;
  readonly prefix: number;
  readonly mac: string;
}

export interface MachineRecord {
  readonly name: string;
  readonly vmm: Vmm;
  readonly base: string;
  readonly image: Image;
  readonly cpus: number;
  readonly memoryMib: number;
  readonly diskMib: number;
  /** The host's port that leads to the guest's ssh; 22 of the guest's own address with a tap device. */
  readonly sshPort: number;
  readonly sshHost: string;
  /** The person's own key, which is let in, too. */
  readonly sshKey: string | null;
  /** The repository on the host, and where it lies in the guest. */
  readonly repo: string;
  readonly guestRepo: string;
  readonly options: Readonly<Record<string, string>>;
  readonly network?: NetworkRecord;
  readonly process?: ProcessId;
  readonly accelerator?: 'kvm' | 'tcg';
  /** The repository was copied in once. */
  readonly synced?: boolean;
  readonly door?: DoorRecord;
}

/** `running`: its VMM runs. `crashed`: it should run, and does not. `half-built`: it never ran. */
export type MachineState = 'running' | 'crashed' | 'stopped' | 'half-built';

export function stateOf(record: MachineRecord | undefined): MachineState {
  if (!record) return 'half-built';
  if (isAlive(record.process)) return 'running';
  return record.process ? 'crashed' : 'stopped';
}

/** Undefined when there is none that can be read: then the machine is half-built. */
export function readMachine(files: MachineFiles): MachineRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(files.record, 'utf8')) as MachineRecord;
    return typeof record.name === 'string' && typeof record.sshPort === 'number' ? record : undefined;
  } catch {
    return undefined;
  }
}

export function writeMachine(effects: Effects, files: MachineFiles, record: MachineRecord): void {
  effects.write(files.record, `${JSON.stringify(record, null, 2)}\n`, 0o600);
}

export interface Machine {
  readonly name: string;
  readonly files: MachineFiles;
  /** Undefined: half-built. */
  readonly record: MachineRecord | undefined;
}

/** Every machine of a folder, also half-built ones. */
export function machinesIn(vmDir: string): Machine[] {
  let names: string[];
  try {
    names = readdirSync(machinesDir(vmDir), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .sort();
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    try {
      const files = machineFiles(vmDir, name);
      return [{ name, files, record: readMachine(files) }];
    } catch {
      return [];
    }
  });
}

/** The user of a guest to whom the repository belongs. */
export const GUEST_USER = 'gate';

/** How a guest is reached: by its pinned host key, and all commands of one user over one connection. */
export function sshTarget(
  files: MachineFiles,
  record: MachineRecord,
  user: 'root' | typeof GUEST_USER,
): SshTarget {
  return {
    user,
    host: record.sshHost,
    port: record.sshPort,
    identityFile: files.clientKey,
    hostKeys: { file: files.knownHosts, alias: record.name },
    controlPath: `${files.control}-${user}`,
  };
}
