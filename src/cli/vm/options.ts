/** The options of `gate up --vm`, of `gate vm` and of `gate clean`. */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import type { Command } from 'commander';
import type { MachineOptions } from '../../vm/lifecycle.ts';
import type { DoorMethod, Vmm } from '../../vm/machine.ts';
import { type Context, usage } from '../context.ts';
import { resolved } from '../locate.ts';

export interface VmFlags extends Record<string, unknown> {
  vm?: string;
  base?: string;
  image?: string;
  vmName?: string;
  vmDir?: string;
  cpus?: string;
  memory?: string;
  diskSize?: string;
  sshPort?: string;
  sshKey?: string;
  vmRepoPath?: string;
  hostMount?: string;
  hostMountMethod?: string;
  sync?: boolean;
  rebuild?: boolean;
  dryRun?: boolean;
  keepVmOnError?: boolean;
  verbose?: boolean;
}

const BASES = ['debian-12', 'ubuntu-22.04', 'ubuntu-24.04'];
const VMMS = ['qemu', 'firecracker'];
export const METHODS = ['gate', 'sshfs', 'direct'];
const NAMES: Readonly<Record<Vmm, string>> = { qemu: 'gate-vm', firecracker: 'gate-fc' };
export const VM_DIR_HELP = 'where the machines are kept (default: <state>/vm) [GATE_VM_DIR]';

export const GUEST_REPO = '/srv/repo';

/** What a machine is. */
export function addMachineOptions(command: Command): Command {
  return command
    .option('--base <NAME>', `what is in it: ${BASES.join(', ')} (default: ${BASES[0]})`)
    .option('--image <FILE|URL>', 'a cloud image instead, with cloud-init')
    .option('--vm-dir <DIR>', VM_DIR_HELP)
    .option('--cpus <N>', 'processors of the guest (default: 2, or as many as there are)')
    .option('--memory <MIB>', 'memory of the guest (default: 1024)')
    .option('--disk-size <GIB>', 'largest size of its disk (default: 8)')
    .option('--ssh-port <PORT>', "the host's port that leads to its ssh (default: a free one)")
    .option('--ssh-key <FILE>', 'a private key that is let in, too; its public half lies beside')
    .option('--rebuild', 'build image and disk anew; what is only in the guest is lost')
    .option('--dry-run', 'print every command and file, and do nothing')
    .option('--keep-vm-on-error', 'leave the machine running when a step fails')
    .option('--verbose', 'print every command and file as it is done');
}

/** What `gate up` takes besides. */
export function addUpOptions(command: Command): Command {
  command
    .option('--vm <VMM>', `in a virtual machine: ${VMMS.join(' or ')}; the rest are options of it`)
    .option('--vm-name <NAME>', `the machine's name (default: ${Object.values(NAMES).join(', ')})`)
    .option('--vm-repo-path <DIR>', `where the repository lies in the guest (default: ${GUEST_REPO})`)
    .option('--host-mount <DIR>', 'where its view is mounted here (default: /mnt/gate_host_NAME as root)')
    .option('--host-mount-method <METHOD>', `${METHODS.join(', ')} (default: gate)`)
    .option('--sync', 'copy the repository in again; nothing is deleted there');
  return addMachineOptions(command);
}

/** Options of `gate up` that mean something with --vm only. */
export function vmOnly(flags: VmFlags): string[] {
  const names = [
    ...['base', 'image', 'vmName', 'vmDir', 'cpus', 'memory', 'diskSize', 'sshPort', 'sshKey', 'vmRepoPath'],
    ...['hostMount', 'hostMountMethod', 'sync', 'rebuild', 'dryRun', 'keepVmOnError', 'verbose'],
  ];
  return names.filter((name) => flags[name] !== undefined).map(dashed);
}

function dashed(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function whole(flag: string, text: string | undefined, fallback: number, low: number, high: number): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < low || value > high)
    throw usage(`--${flag}: '${text}' is not a whole number from ${low} to ${high}`);
  return value;
}

function oneOf<T extends string>(flag: string, text: string, choices: readonly string[]): T {
  if (!choices.includes(text)) throw usage(`--${flag}: '${text}' is none of ${choices.join(', ')}`);
  return text as T;
}

export function vmmOf(flags: VmFlags): Vmm {
  return oneOf<Vmm>('vm', flags.vm ?? 'qemu', VMMS);
}

/** The door that is asked for, else the one that there was. */
export function methodOf(flags: VmFlags, before: DoorMethod | undefined): DoorMethod {
  return oneOf<DoorMethod>('host-mount-method', flags.hostMountMethod ?? before ?? 'gate', METHODS);
}

export function defaultName(vmm: Vmm): string {
  return NAMES[vmm];
}

export function machineOptions(context: Context, flags: VmFlags, name?: string): MachineOptions {
  const vmm = vmmOf(flags);
  const { image } = flags;
  if (image !== undefined && flags.base !== undefined) throw usage('say --base or --image, not both');
  const sshKey = flags.sshKey === undefined ? null : resolved(context, flags.sshKey.replace(/\.pub$/, ''));
  if (sshKey !== null && !existsSync(`${sshKey}.pub`))
    throw usage(`--ssh-key: ${sshKey}.pub is not there; the public half is what the guest needs`);
  const isUrl = image !== undefined && /^https?:\/\//.test(image);
  return {
    name: name ?? flags.vmName ?? defaultName(vmm),
    vmm,
    base: image === undefined ? oneOf('base', flags.base ?? BASES[0]!, BASES) : basename(image),
    imageFrom: image === undefined || isUrl ? image : resolved(context, image),
    cpus: whole('cpus', flags.cpus, Math.min(2, availableParallelism()), 1, 64),
    memoryMib: whole('memory', flags.memory, 1024, 256, 1_048_576),
    diskMib: 1024 * whole('disk-size', flags.diskSize, 8, 2, 16_384),
    sshPort: whole('ssh-port', flags.sshPort, 0, 1, 65_535),
    sshKey,
    rebuild: flags.rebuild === true,
    keepOnError: flags.keepVmOnError === true,
  };
}
