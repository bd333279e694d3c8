/** Every name that the virtual machines have on disk, in one place. */
import { VmError } from './errors.ts';

/** Longest path of a Unix socket, less its NUL: sockaddr_un, unix(7). */
const SOCKET_PATH_BYTES_MAX = 107;
/** What ssh appends to the path of its control socket while it makes one. */
const SSH_SUFFIX_BYTES = 17;
const NAME = /^[A-Za-z0-9][A-Za-z0-9-]{0,39}$/;

export interface CacheFiles {
  readonly dir: string;
  /** One folder for each image, named by the hash of its recipe. */
  readonly images: string;
  /** One folder for each bundle, named by its version. */
  readonly bundles: string;
  readonly downloads: string;
  /** Whether a guest ran under KVM, since which boot. */
  readonly kvm: string;
}

export interface MachineFiles {
  readonly dir: string;
  /** What was asked for, and what runs: `MachineRecord`. */
  readonly record: string;
  /** What happened, a line of JSON each. */
  readonly events: string;
  readonly disk: string;
  /** A tar file that the guest unpacks over its root at boot: keys, name, addresses. */
  readonly seed: string;
  readonly seedTree: string;
  /** Everything that the guest says on its serial console. */
  readonly serial: string;
  /** What the VMM itself says. */
  readonly vmmLog: string;
  readonly qmp: string;
  /** Firecracker's API. */
  readonly api: string;
  readonly vmmConfig: string;
  readonly vsock: string;
  /** The key that reaches the guest, and the host key that the guest shows. */
  readonly clientKey: string;
  readonly hostKey: string;
  readonly knownHosts: string;
  readonly sshConfig: string;
  /** Control sockets of ssh: as the guest's root, and as its user. */
  readonly control: string;
  readonly lock: string;
}

export function cacheFiles(dir: string): CacheFiles {
  return {
    dir,
    images: `${dir}/images`,
    bundles: `${dir}/bundles`,
    downloads: `${dir}/downloads`,
    kvm: `${dir}/kvm.json`,
  };
}

export function machinesDir(vmDir: string): string {
  return `${vmDir}/machines`;
}

/** Throws a VmError when `name` is none, or its sockets would not fit. */
export function machineFiles(vmDir: string, name: string): MachineFiles {
  if (!NAME.test(name))
    throw new VmError(`'${name}' is no name for a virtual machine`, {
      hint: 'It has 1 to 40 letters, digits and dashes, and does not start with a dash.',
    });
  const dir = `${machinesDir(vmDir)}/${name}`;
  const files: MachineFiles = {
    dir,
    record: `${dir}/machine.json`,
    events: `${dir}/events.jsonl`,
    disk: `${dir}/disk`,
    seed: `${dir}/seed`,
    seedTree: `${dir}/seed.d`,
    serial: `${dir}/serial.log`,
    vmmLog: `${dir}/vmm.log`,
    qmp: `${dir}/qmp`,
    api: `${dir}/api`,
    vmmConfig: `${dir}/vmm.json`,
    vsock: `${dir}/vsock`,
    clientKey: `${dir}/client_key`,
    hostKey: `${dir}/host_key`,
    knownHosts: `${dir}/known_hosts`,
    sshConfig: `${dir}/ssh_config`,
    control: `${dir}/ssh`,
    lock: `${dir}/lock`,
  };
  const longest = Math.max(
    ...[files.qmp, files.api, files.vsock].map((path) => Buffer.byteLength(path)),
    Buffer.byteLength(`${files.control}-root`) + SSH_SUFFIX_BYTES,
  );
  if (longest > SOCKET_PATH_BYTES_MAX)
    throw new VmError(`the paths of this machine's sockets are too long: ${dir}`, {
      hint: 'Name a shorter folder with --vm-dir DIR.',
    });
  return files;
}
