/**
 * A machine with Firecracker: the same image as with QEMU, its file system as a raw disk, its kernel as an ELF. NOT YET booted by Firecracker
 * itself, which needs KVM: docs/vm.md says what was tested instead.
 */
import { existsSync } from 'node:fs';
import { delay, until } from '../../base/clock.ts';
import { isAlive, type ProcessId, signalProcess } from '../../base/process.ts';
import { tailOfFile } from '../effects.ts';
import { VmError } from '../errors.ts';
import { probeKvm } from '../kvm.ts';
import { guarded, type Host, imageFor, type MachineOptions, reach } from '../lifecycle.ts';
import { type MachineRecord, readMachine, writeMachine } from '../machine.ts';
import { cacheFiles, type MachineFiles } from '../names.ts';
import { awaitReady } from '../qemu.ts';
import { makeKeys, makeSeed } from '../seed.ts';
import { put } from './api.ts';
import { callsFor, configOf } from './config.ts';
import { extractKernel } from './kernel.ts';
import { planNetwork, setUpNetwork, takeDownNetwork } from './network.ts';

const FIRECRACKER = 'firecracker';
/** From here on the guest learns of virtio-mmio devices through ACPI. */
const RELEASE_LEAST = [1, 8] as const;
const START_MS = 10_000;
const POWER_DOWN_MS = 20_000;
const POLL_MS = 100;

export async function startFirecracker(
  host: Host,
  files: MachineFiles,
  options: MachineOptions,
): Promise<MachineRecord> {
  const { effects, journal } = host;
  if (options.base !== 'debian-12')
    throw new VmError(`Firecracker boots debian-12, not ${options.base}: it needs a kernel of its own kind`);
  if (host.uid !== 0 && !effects.dry)
    throw new VmError('Firecracker needs a network device, which only root makes', {
      hint: 'Run the same command with sudo, or use --vm qemu.',
    });
  if (options.sshPort !== 0)
    throw new VmError('--ssh-port does not go with Firecracker: the guest has an address of its own');
  await checkRelease(host);
  const before = readMachine(files);
  const image = await imageFor(host, options);
  const kvm = await probeKvm(effects, cacheFiles(host.cacheDir), image);
  if (!kvm.usable && !effects.dry)
    throw new VmError(`Firecracker needs KVM: ${kvm.why}`, { hint: '--vm qemu works without.' });
  const kernel = `${image.dir}/vmlinux`;
  const network = before?.network ?? planNetwork(files.dir);
  const record: MachineRecord = {
    ...{ name: options.name, vmm: 'firecracker', base: options.base, image, network },
    ...{ cpus: options.cpus, memoryMib: options.memoryMib, diskMib: options.diskMib },
    ...{ sshHost: network.guestAddress, sshPort: 22, sshKey: options.sshKey, accelerator: 'kvm' },
    ...{ repo: before?.repo ?? '', guestRepo: before?.guestRepo ?? '', options: before?.options ?? {} },
    synced: before?.synced === true && existsSync(files.disk) && !options.rebuild,
  };
  await makeKeys(effects, files, record.name);
  await journal.step('make disk and kernel', async () => {
    await extractKernel(effects, image.kernel!, kernel);
    if (!existsSync(files.disk) || options.rebuild) await copyDisk(host, files, record);
    await makeSeed(effects, files, record);
    effects.write(files.vmmConfig, `${JSON.stringify(configOf(files, record, kernel), null, 2)}\n`);
    writeMachine(effects, files, record);
    return { value: undefined, said: null };
  });
  const running = await journal.step('start the virtual machine', async () => {
    await setUpNetwork(effects, network);
    try {
      const process = await launch(host, files, record, kernel);
      const value = { ...record, process };
      writeMachine(effects, files, value);
      return {
        value,
        said: `Firecracker runs (pid ${process.pid}, ${network.guestAddress} on ${network.tap})`,
      };
    } catch (error) {
      await takeDownNetwork(effects, network);
      throw error;
    }
  });
  return guarded(host, files, running, options, async () => {
    await journal.step('boot', async () => {
      await awaitReady(effects, files, running.name, running.process!, 'kvm', false);
      return { value: undefined, said: 'the guest is ready' };
    });
    await reach(host, files, running);
    return running;
  });
}

async function checkRelease({ effects }: Host): Promise<void> {
  const ran = await effects.run(FIRECRACKER, ['--version'], { what: 'ask for the release of Firecracker' });
  if (effects.dry) return;
  const found = /v(\d+)\.(\d+)/.exec(ran.stdout);
  const [major, minor] = [Number(found?.[1] ?? 0), Number(found?.[2] ?? 0)];
  if (major < RELEASE_LEAST[0] || (major === RELEASE_LEAST[0] && minor < RELEASE_LEAST[1]))
    throw new VmError(`this Firecracker is too old: ${ran.stdout.trim().split('\n')[0]}`, {
      hint: `Debian's kernel finds its disk from release ${RELEASE_LEAST.join('.')} on.`,
    });
}

async function copyDisk({ effects }: Host, files: MachineFiles, record: MachineRecord): Promise<void> {
  const temporary = `${files.disk}.new`;
  const copy = ['--sparse=always', '--reflink=auto', '--', record.image.disk, temporary];
  await effects.run('cp', copy, { what: 'make the disk', limitMs: 600_000 });
  await effects.run('truncate', ['-s', `>${record.diskMib}M`, temporary], { what: 'make the disk' });
  effects.rename(temporary, files.disk);
}

/** Starts Firecracker, and tells it over its API what to boot. Its output is the guest's console. */
async function launch(
  { effects }: Host,
  files: MachineFiles,
  record: MachineRecord,
  kernel: string,
): Promise<ProcessId> {
  for (const path of [files.api, files.vsock]) effects.remove(path);
  effects.write(files.serial, '', 0o600);
  const started = effects.start(FIRECRACKER, ['--api-sock', files.api, '--id', record.name], files.serial);
  if (!started) return { pid: 0, startTicks: 0, bootId: '' };
  const { process, exited } = started;
  let ended: string | undefined;
  void exited.then((how) => (ended = how));
  try {
    await until(() => ended !== undefined || existsSync(files.api), START_MS, POLL_MS / 5);
    for (const call of callsFor(configOf(files, record, kernel))) await put(files.api, call);
    return process;
  } catch (error) {
    signalProcess(process, 'SIGKILL');
    throw new VmError(ended === undefined ? (error as Error).message : `Firecracker ${ended}`, {
      detail: tailOfFile(files.serial),
    });
  }
}

export async function stopFirecracker(
  { effects }: Host,
  files: MachineFiles,
  record: MachineRecord,
): Promise<string> {
  let how = 'was off';
  const running = record.process;
  if (isAlive(running)) {
    how = 'powered off';
    await put(files.api, { path: '/actions', body: { action_type: 'SendCtrlAltDel' } }).catch(
      () => undefined,
    );
    if (!(await until(() => !isAlive(running), POWER_DOWN_MS, POLL_MS))) {
      how = 'killed';
      signalProcess(running, 'SIGKILL');
      for (let n = 0; isAlive(running) && n < 100; n++) await delay(POLL_MS);
      if (isAlive(running)) throw new VmError(`Firecracker (pid ${running.pid}) cannot be ended`);
    }
  }
  if (record.network) await takeDownNetwork(effects, record.network);
  for (const path of [files.api, files.vsock]) effects.remove(path);
  return how;
}
