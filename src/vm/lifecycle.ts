/**
 * A machine from whatever state to up, and from whatever state to gone. Each step looks at what is there and does what is missing,
 * so that the same command recovers from a crash, a kill or a reboot of the host.
 */
import { closeSync, existsSync, openSync, statSync } from 'node:fs';
import { flock } from '../sys/index.ts';
import { baseImage } from './bases.ts';
import { makeBundle } from './bundle.ts';
import type { Effects } from './effects.ts';
import { VmError } from './errors.ts';
import type { Journal } from './events.ts';
import { GUEST_MOUNT, inGuest, startUnits, syncIn, upgrade, writeSshConfig } from './guest.ts';
import { buildDebian, debianImage, type Image } from './image.ts';
import { probeKvm } from './kvm.ts';
import {
  GUEST_USER,
  type MachineRecord,
  readMachine,
  sshTarget,
  stateOf,
  type Vmm,
  writeMachine,
} from './machine.ts';
import { type CacheFiles, cacheFiles, type MachineFiles, machineFiles } from './names.ts';
import { makeNoCloud } from './nocloud.ts';
import { awaitReady, startQemu, stopQemu } from './qemu.ts';
import { makeKeys, makeSeed } from './seed.ts';

export interface MachineOptions {
  readonly name: string;
  readonly vmm: Vmm;
  /** `debian-12`, `ubuntu-22.04`, `ubuntu-24.04`; or, with `imageFrom`, a name for people. */
  readonly base: string;
  /** A file or URL of a cloud image. */
  readonly imageFrom?: string;
  readonly cpus: number;
  readonly memoryMib: number;
  readonly diskMib: number;
  /** 0: a free one. */
  readonly sshPort: number;
  readonly sshKey: string | null;
  readonly rebuild: boolean;
  readonly keepOnError: boolean;
}

export interface RepoOptions {
  readonly repo: string;
  readonly guestRepo: string;
  /** Environment of the units: GATE_… */
  readonly options: Readonly<Record<string, string>>;
  /** Copies it in although that was done before. */
  readonly sync: boolean;
}

export interface Host {
  readonly effects: Effects;
  readonly journal: Journal;
  readonly vmDir: string;
  readonly cacheDir: string;
  readonly uid: number;
}

const LOCK_EX_NB = 2 | 4;

/** Runs `work` while nobody else changes this machine. Throws a VmError when somebody does. */
export async function alone<T>(host: Host, files: MachineFiles, work: () => Promise<T>): Promise<T> {
  host.effects.makeDir(files.dir, 0o700);
  if (host.effects.dry) return work();
  host.journal.writeTo(files.events);
  const fd = openSync(files.lock, 'a', 0o600);
  try {
    if (flock(fd, LOCK_EX_NB) !== 0)
      throw new VmError('another gate is busy with this virtual machine', {
        hint: 'Wait until it is done, then run the same command again.',
      });
    return await work();
  } finally {
    closeSync(fd);
  }
}

/** The image that is asked for; built or downloaded when it is not there. */
export async function imageFor(
  host: Host,
  options: Pick<MachineOptions, 'base' | 'imageFrom' | 'rebuild'>,
): Promise<Image> {
  const { effects, journal } = host;
  const cache = cacheFiles(host.cacheDir);
  if (options.imageFrom !== undefined || options.base !== 'debian-12')
    return baseImage(effects, journal, cache, options);
  const image = debianImage(cache);
  if (existsSync(image.dir) && !options.rebuild) return image;
  effects.makeDir(cache.images);
  const bundle = await makeBundle(effects, cache);
  return buildDebian(effects, journal, cache, bundle, { uid: host.uid, rebuild: options.rebuild });
}

/** Brings a machine up until ssh answers. Gives its record. */
export async function startMachine(host: Host, options: MachineOptions): Promise<MachineRecord> {
  const { effects, journal } = host;
  const files = machineFiles(host.vmDir, options.name);
  const cache = cacheFiles(host.cacheDir);
  const before = readMachine(files);
  if (before && before.vmm !== options.vmm)
    throw new VmError(`${options.name} is a machine of ${before.vmm}, not of ${options.vmm}`, {
      hint: `Name another with --vm-name, or delete this one: gate vm delete ${options.name}`,
    });
  if (before && stateOf(before) === 'running' && !options.rebuild) {
    journal.note(`${options.name} runs already (pid ${before.process!.pid})`);
    // Somebody may just have started it, and gone away before its guest was ready.
    await awaitReady(effects, files, before.name, before.process!, before.accelerator ?? 'tcg', false);
    return before;
  }
  if (before && stateOf(before) === 'crashed')
    journal.note(`${options.name} was killed or the host went down: starting it again`);
  if (before && options.rebuild) await stopMachine(host, files, before);
  if (options.vmm === 'firecracker') {
    const { startFirecracker } = await import('./firecracker/index.ts');
    return startFirecracker(host, files, options);
  }
  const image =
    options.rebuild || !before || !imageIsThere(before.image) ? await imageFor(host, options) : before.image;
  const record: MachineRecord = {
    name: options.name,
    vmm: options.vmm,
    // The image stays what the disk was made over.
    base: before && image === before.image ? before.base : options.base,
    cpus: options.cpus,
    memoryMib: options.memoryMib,
    diskMib: options.diskMib,
    sshHost: '127.0.0.1',
    sshKey: options.sshKey,
    repo: before?.repo ?? '',
    guestRepo: before?.guestRepo ?? '',
    options: before?.options ?? {},
    synced: before !== undefined && !options.rebuild && before.synced === true && existsSync(files.disk),
    image,
    sshPort: options.sshPort || before?.sshPort || 0,
  };
  await makeKeys(effects, files, record.name);
  await journal.step('make the disk', async () => {
    const made = await makeDisk(effects, files, record, options.rebuild);
    if (made) Object.assign(record, { synced: false });
    if (image.seed === 'gate') await makeSeed(effects, files, record);
    else await makeNoCloud(effects, files, record);

    writeMachine(effects, files, record);
    return { value: undefined, said: made ? `disk of ${record.diskMib} MiB over ${record.base}` : null };
  });
  const accelerator = await accelerate(host, cache, image);
  const running = await journal.step('start the virtual machine', async () => {
    const started = await startQemu(effects, files, record, accelerator, options.sshPort !== 0);
    const value: MachineRecord = { ...record, ...started, accelerator };
    writeMachine(effects, files, value);
    return { value, said: `QEMU runs (pid ${started.process.pid}, ssh on port ${started.sshPort})` };
  });
  return guarded(host, files, running, options, () => bootUntilReady(host, files, running));
}

/** Stops what was started when `work` fails, unless it is to be kept. */
export async function guarded<T>(
  host: Host,
  files: MachineFiles,
  running: MachineRecord,
  options: Pick<MachineOptions, 'keepOnError'>,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (options.keepOnError) host.journal.note(`${running.name} goes on running`);
    else await stopMachine(host, files, running).catch((more: Error) => host.journal.note(more.message));
    throw error;
  }
}

async function bootUntilReady(
  host: Host,
  files: MachineFiles,
  running: MachineRecord,
): Promise<MachineRecord> {
  const { effects, journal } = host;
  await journal.step('boot', async (goesOn) => {
    goesOn(
      running.accelerator === 'tcg' ? 'the guest starts; without KVM that takes a while' : 'the guest starts',
    );
    const cloudInit = running.image.seed === 'cloud-init';
    await awaitReady(effects, files, running.name, running.process!, running.accelerator!, cloudInit);
    return { value: undefined, said: 'the guest is ready' };
  });
  await reach(host, files, running);
  return running;
}

/** The first connection: the host key is the pinned one, and the guest lets us in. */
export async function reach(host: Host, files: MachineFiles, running: MachineRecord): Promise<void> {
  const { effects, journal } = host;
  writeSshConfig(effects, files, running.name, sshTarget(files, running, GUEST_USER));
  await journal.step('reach the guest', async () => {
    await inGuest(effects, sshTarget(files, running, 'root'), 'reach the guest', 'true');
    return { value: undefined, said: null };
  });
}

function imageIsThere(image: Image): boolean {
  return existsSync(image.disk);
}

/** A disk of the machine's own, over the image. True when it was made now. */
async function makeDisk(
  effects: Effects,
  files: MachineFiles,
  record: MachineRecord,
  anew: boolean,
): Promise<boolean> {
  if (existsSync(files.disk) && !anew) return false;
  const { image } = record;
  const temporary = `${files.disk}.new`;
  effects.remove(temporary);
  const least = effects.dry
    ? 0
    : Math.ceil((statSync(image.disk, { throwIfNoEntry: false })?.size ?? 0) / 2 ** 20);
  await effects.run(
    'qemu-img',
    [
      ...['create', '-q', '-f', 'qcow2', '-b', image.disk, '-F', image.format, temporary],
      `${Math.max(record.diskMib, image.format === 'raw' ? least : 0)}M`,
    ],
    { what: 'make the disk' },
  );
  effects.rename(temporary, files.disk);
  return true;
}

async function accelerate(host: Host, cache: CacheFiles, image: Image): Promise<'kvm' | 'tcg'> {
  const answer = await probeKvm(host.effects, cache, image);
  if (answer.usable) return 'kvm';
  host.journal.note(`without KVM (${answer.why}) the guest is emulated, and about ten times slower`);
  return 'tcg';
}

/**
 * From a guest that ssh reaches to one that serves the repository's view: Gate upgraded, the repository copied in the first time, broker
 * and view started. Gives the new record.
 */
export async function serveRepo(
  host: Host,
  running: MachineRecord,
  asked: RepoOptions,
  keep: Pick<MachineOptions, 'keepOnError'>,
): Promise<MachineRecord> {
  const files = machineFiles(host.vmDir, running.name);
  return guarded(host, files, running, keep, () => serve(host, files, running, asked));
}

async function serve(
  host: Host,
  files: MachineFiles,
  running: MachineRecord,
  asked: RepoOptions,
): Promise<MachineRecord> {
  const { effects, journal } = host;
  const root = sshTarget(files, running, 'root');
  const upgraded = await journal.step('compare the versions of Gate', async (goesOn) => {
    const bundle = await makeBundle(effects, cacheFiles(host.cacheDir));
    goesOn(`this host has ${bundle.version}`);
    const value = await upgrade(effects, files, root, bundle);
    const said = value.changed
      ? `Gate in the guest: ${value.from} is now ${bundle.version} (${value.files} files)`
      : null;
    return { value, said };
  });
  let record: MachineRecord = { ...running, ...asked };
  if (running.synced && running.repo !== asked.repo)
    throw new VmError(`${running.name} has another repository: ${running.repo}`, {
      hint: 'Name another machine with --vm-name, or delete this one: gate vm delete.',
    });
  if (!running.synced || asked.sync)
    record = await journal.step('copy the repository in', async (goesOn) => {
      await inGuest(
        effects,
        root,
        'make the folder of the repository',
        `mkdir -p ${quoted(asked.guestRepo)} && chown ${GUEST_USER}:${GUEST_USER} ${quoted(asked.guestRepo)}`,
      );
      let last = '';
      await syncIn(effects, files, running.name, asked.repo, asked.guestRepo, (line) => {
        const percent = /\s(\d+)%\s/.exec(line)?.[1];
        if (percent !== undefined && percent !== last) goesOn(`${(last = percent)} %`);
      });
      const value = { ...record, synced: true };
      writeMachine(effects, files, value);
      return { value, said: `${asked.repo} is in the guest at ${asked.guestRepo}` };
    });
  await journal.step('start broker and view', async () => {
    const settings = { repo: asked.guestRepo, mount: GUEST_MOUNT, options: asked.options };
    await startUnits(effects, root, settings, upgraded.changed);
    return { value: undefined, said: `broker and view run in the guest (${GUEST_MOUNT})` };
  });
  writeMachine(effects, files, record);
  return record;
}

function quoted(path: string): string {
  return `'${path.replaceAll("'", `'\\''`)}'`;
}

/** Ends a machine's VMM, from whatever state; what its doors need must be gone before. */
export async function stopMachine(
  host: Host,
  files: MachineFiles,
  record: MachineRecord | undefined,
): Promise<string> {
  const { effects } = host;
  // The connections' masters would hold on to a port that another machine may get.
  for (const user of ['root', GUEST_USER] as const)
    if (record && existsSync(`${files.control}-${user}`))
      await effects
        .run('ssh', ['-o', `ControlPath=${files.control}-${user}`, '-O', 'exit', '--', record.sshHost], {
          what: 'end the connection',
          anyStatus: true,
        })
        .catch(() => undefined);
  const how =
    record?.vmm === 'firecracker'
      ? await (await import('./firecracker/index.ts')).stopFirecracker(host, files, record)
      : await stopQemu(effects, files, record?.process);
  if (record && !effects.dry) {
    const { process: _gone, ...rest } = readMachine(files) ?? record;
    writeMachine(effects, files, rest);
  }
  return how;
}

/** Nothing is left of a machine but its image. */
export async function deleteMachine(host: Host, files: MachineFiles): Promise<void> {
  await stopMachine(host, files, readMachine(files));
  host.effects.remove(files.dir);
}
