/**
 * What Firecracker is told: the same facts as its configuration file and as calls of its API. Sections are kebab-case, fields
 * snake_case, after its API specification (version 1.17). It drops a misspelt section of the file without a word, so nothing leaves
 * here that these schemas do not know. From release 1.8 on it describes its devices to the guest in ACPI, which Debian's kernel needs.
 */
import { z } from 'zod';
import { VmError } from '../errors.ts';
import { KERNEL_ARGUMENTS } from '../image.ts';
import type { MachineRecord } from '../machine.ts';
import type { MachineFiles } from '../names.ts';

export const SCHEMAS = {
  'boot-source': z.strictObject({
    kernel_image_path: z.string(),
    boot_args: z.string().optional(),
    initrd_path: z.string().optional(),
  }),
  drives: z.strictObject({
    drive_id: z.string(),
    is_root_device: z.boolean(),
    is_read_only: z.boolean().optional(),
    path_on_host: z.string().optional(),
    cache_type: z.enum(['Unsafe', 'Writeback']).optional(),
    io_engine: z.enum(['Sync', 'Async']).optional(),
  }),
  'machine-config': z.strictObject({
    vcpu_count: z.number().int().min(1).max(32),
    mem_size_mib: z.number().int().positive(),
    smt: z.boolean().optional(),
    track_dirty_pages: z.boolean().optional(),
  }),
  'network-interfaces': z.strictObject({
    iface_id: z.string(),
    host_dev_name: z.string(),
    guest_mac: z
      .string()
      .regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/)
      .optional(),
  }),
  vsock: z.strictObject({ guest_cid: z.number().int().min(3), uds_path: z.string() }),
  entropy: z.strictObject({}),
  action: z.strictObject({ action_type: z.enum(['FlushMetrics', 'InstanceStart', 'SendCtrlAltDel']) }),
} as const;

/** The file of `--config-file`. */
export const CONFIG = z.strictObject({
  'boot-source': SCHEMAS['boot-source'],
  drives: z.array(SCHEMAS.drives).min(1),
  'machine-config': SCHEMAS['machine-config'],
  'network-interfaces': z.array(SCHEMAS['network-interfaces']),
  vsock: SCHEMAS.vsock,
  entropy: SCHEMAS.entropy,
});

export type Config = z.infer<typeof CONFIG>;

/** The guest's address on the vsock: any above the reserved ones; each machine has a socket of its own. */
const GUEST_CID = 3;
/** `reboot=k`: a reboot ends the machine. */
export const FIRECRACKER_KERNEL_ARGUMENTS = `${KERNEL_ARGUMENTS} reboot=k`;

/** Throws a VmError for what Firecracker would refuse. */
export function configOf(files: MachineFiles, record: MachineRecord, kernel: string): Config {
  if (record.image.initrd === null || !record.network)
    throw new VmError('Firecracker boots only images with a kernel beside them');
  if (record.cpus !== 1 && record.cpus % 2 !== 0)
    throw new VmError(`Firecracker takes one processor or an even number, not ${record.cpus}`, {
      hint: 'Say --cpus 1 or --cpus 2.',
    });
  const config: Config = {
    'boot-source': {
      kernel_image_path: kernel,
      initrd_path: record.image.initrd,
      boot_args: FIRECRACKER_KERNEL_ARGUMENTS,
    },
    drives: [
      { drive_id: 'rootfs', is_root_device: true, is_read_only: false, path_on_host: files.disk },
      { drive_id: 'seed', is_root_device: false, is_read_only: true, path_on_host: files.seed },
    ],
    'machine-config': { vcpu_count: record.cpus, mem_size_mib: record.memoryMib },
    'network-interfaces': [
      { iface_id: 'eth0', host_dev_name: record.network.tap, guest_mac: record.network.mac },
    ],
    vsock: { guest_cid: GUEST_CID, uds_path: files.vsock },
    entropy: {},
  };
  const checked = CONFIG.safeParse(config);
  if (!checked.success) throw new VmError(`Firecracker's configuration is wrong: ${checked.error.message}`);
  return checked.data;
}

export interface ApiCall {
  readonly path: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** The calls that configure and start a machine, in the order in which they must come. */
export function callsFor(config: Config): ApiCall[] {
  return [
    { path: '/machine-config', body: config['machine-config'] },
    { path: '/boot-source', body: config['boot-source'] },
    ...config.drives.map((drive) => ({ path: `/drives/${drive.drive_id}`, body: drive })),
    ...config['network-interfaces'].map((each) => ({
      path: `/network-interfaces/${each.iface_id}`,
      body: each,
    })),
    { path: '/vsock', body: config.vsock },
    { path: '/entropy', body: config.entropy },
    { path: '/actions', body: { action_type: 'InstanceStart' } },
  ];
}
