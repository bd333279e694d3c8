/** Starting a machine with QEMU, waiting until its guest is ready, and ending it, from whatever state. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { delay, until } from '../base/clock.ts';
import { isAlive, type ProcessId, signalProcess } from '../base/process.ts';
import { type Effects, hintFor, tailOfFile } from './effects.ts';
import { VmError } from './errors.ts';
import { KERNEL_ARGUMENTS, READY_MARK } from './image.ts';
import type { MachineRecord } from './machine.ts';
import type { MachineFiles } from './names.ts';
import { freePort, isFree } from './ports.ts';
import { Qmp } from './qmp.ts';

const QEMU = 'qemu-system-x86_64';
/** How often another port is tried when somebody took ours. */
const PORT_TRIES = 10;
/** How long QEMU may take until its control socket answers. */
const START_MS = 20_000;
/** How long a guest may take until ssh answers. With TCG on a busy machine a minute is not rare. */
const READY_MS = { kvm: 90_000, tcg: 300_000 } as const;
const POWER_DOWN_MS = 30_000;
const POLL_MS = 100;

/** The whole command line. Facts behind the flags: docs/vm.md. */
export function qemuArguments(
  files: MachineFiles,
  record: MachineRecord,
  accelerator: 'kvm' | 'tcg',
): string[] {
  const { image } = record;
  const direct = image.kernel !== null && image.initrd !== null;
  return [
    ...['-name', record.name],
    ...['-machine', 'q35'],
    ...['-accel', accelerator === 'kvm' ? 'kvm' : 'tcg,thread=multi,tb-size=256'],
    ...['-cpu', accelerator === 'kvm' ? 'host' : 'max'],
    ...['-smp', `${record.cpus}`],
    ...['-m', `${record.memoryMib}`],
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...(direct ? ['-kernel', image.kernel!, '-initrd', image.initrd!, '-append', KERNEL_ARGUMENTS] : []),
    ...['-drive', `file=${commas(files.disk)},if=none,id=disk,format=qcow2,discard=unmap`],
    ...['-device', `virtio-blk-pci,drive=disk${direct ? '' : ',bootindex=0'}`],
    ...['-drive', `file=${commas(files.seed)},if=none,id=seed,format=raw,readonly=on`],
    ...['-device', 'virtio-blk-pci,drive=seed'],
    ...['-device', 'virtio-rng-pci'],
    ...['-netdev', `user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:${record.sshPort}-:22`],
    ...['-device', 'virtio-net-pci,netdev=net,romfile='],
    ...['-chardev', `file,id=serial,path=${commas(files.serial)}`, '-serial', 'chardev:serial'],
    ...['-chardev', `socket,id=qmp,path=${commas(files.qmp)},server=on,wait=off`],
    ...['-mon', 'chardev=qmp,mode=control'],
  ];
}

/** A path as a value among commas: a comma is written twice. */
function commas(path: string): string {
  return path.replaceAll(',', ',,');
}

export interface Started {
  readonly process: ProcessId;
  readonly sshPort: number;
}

/**
 * Starts QEMU; it goes on when this process ends. When somebody takes the port between our look and QEMU's, another one is
 * tried, unless it was `fixed`. Throws a VmError with QEMU's words.
 */
export async function startQemu(
  effects: Effects,
  files: MachineFiles,
  record: MachineRecord,
  accelerator: 'kvm' | 'tcg',
  fixed: boolean,
): Promise<Started> {
  let { sshPort } = record;
  if (!fixed && (sshPort === 0 || !(await isFree(sshPort)))) sshPort = await freePort();
  for (let tried = 1; ; tried++) {
    effects.remove(files.qmp);
    effects.remove(files.vmmLog);
    effects.write(files.serial, '', 0o600);
    const started = effects.start(
      QEMU,
      qemuArguments(files, { ...record, sshPort }, accelerator),
      files.vmmLog,
    );
    if (!started) return { process: { pid: 0, startTicks: 0, bootId: '' }, sshPort };
    const { process, exited } = started;
    let ended: string | undefined;
    void exited.then((how) => (ended = how));
    const qmp = await until(
      async () => ended !== undefined || (await Qmp.connect(files.qmp, effects.clock).catch(() => undefined)),
      START_MS,
      POLL_MS / 2,
    );
    if (qmp instanceof Qmp) {
      qmp.close();
      return { process, sshPort };
    }
    const said = tailOfFile(files.vmmLog);
    if (ended === undefined) signalProcess(process, 'SIGKILL');
    if (!said.some((line) => /Could not set up host forwarding/i.test(line)))
      throw new VmError(`QEMU ${ended ?? `did not answer within ${START_MS / 1000} s`}`, {
        detail: said,
        hint: ended === 'is missing' ? hintFor(QEMU) : `All of its words: ${files.vmmLog}`,
      });
    if (fixed)
      throw new VmError(`port ${sshPort} of this host is taken`, {
        hint: 'Name another with --ssh-port, or none: then a free one is found.',
      });
    if (tried >= PORT_TRIES)
      throw new VmError(`QEMU found none of ${PORT_TRIES} ports free`, { detail: said });
    sshPort = await freePort();
  }
}

/**
 * Waits until the guest says on its console that ssh answers. When the VMM dies meanwhile, throws at once, with the end of the
 * console.
 */
export async function awaitReady(
  effects: Effects,
  files: MachineFiles,
  name: string,
  process: ProcessId,
  accelerator: 'kvm' | 'tcg',
  cloudInit: boolean,
): Promise<void> {
  if (effects.dry) return;
  const limitMs = READY_MS[accelerator] * (cloudInit ? 3 : 1);
  const mark = `${READY_MARK} ${name}`;
  const got = await until(
    () => {
      if (readConsole(files).includes(mark)) return 'ready';
      return isAlive(process) ? undefined : 'dead';
    },
    limitMs,
    POLL_MS,
  );
  if (got === 'ready') return;
  const detail = [...tailOfFile(files.vmmLog, 5), ...tailOfFile(files.serial)];
  if (got === 'dead')
    throw new VmError('the virtual machine ended while its guest was starting', {
      detail: detail.length ? detail : ['(its console is empty)'],
      hint: `All of its console: ${files.serial}`,
    });
  throw new VmError(`the guest was not ready after ${limitMs / 1000} s`, {
    detail,
    hint: `All of its console: ${files.serial}. --keep-vm-on-error leaves it running.`,
  });
}

function readConsole(files: MachineFiles): string {
  try {
    return readFileSync(files.serial, 'latin1');
  } catch {
    return '';
  }
}

/**
 * Ends the machine: by its power button, then by force. Does nothing when it does not run. Looks again afterwards.
 * Gives how it ended; throws a VmError when it cannot be ended.
 */
export async function stopQemu(
  effects: Effects,
  files: MachineFiles,
  running: ProcessId | undefined,
): Promise<'was off' | 'powered off' | 'killed'> {
  if (effects.dry) {
    effects.append(files.events, '');
    return 'was off';
  }
  let how: 'was off' | 'powered off' | 'killed' = 'was off';
  if (isAlive(running)) {
    how = (await powerDown(effects, files, running)) ? 'powered off' : 'killed';
    for (let waitedMs = 0; isAlive(running); waitedMs += POLL_MS) {
      if (waitedMs % 1000 === 0) signalProcess(running, 'SIGKILL');
      if (waitedMs > 10_000)
        throw new VmError(`QEMU (pid ${running.pid}) cannot be ended`, {
          hint: 'It hangs in the kernel; look at dmesg.',
        });
      await delay(POLL_MS);
    }
  }
  if (existsSync(files.qmp)) rmSync(files.qmp, { force: true });
  return how;
}

async function powerDown(effects: Effects, files: MachineFiles, running: ProcessId): Promise<boolean> {
  try {
    const qmp = await Qmp.connect(files.qmp, effects.clock);
    try {
      await qmp.execute('system_powerdown');
    } finally {
      qmp.close();
    }
  } catch {
    return false;
  }
  return (await until(() => !isAlive(running), POWER_DOWN_MS, POLL_MS)) === true;
}
