/**
 * The seed of a cloud image: a disk named CIDATA that cloud-init's NoCloud source reads. It brings the machine's host key and who may
 * log in, makes Gate's user, and has the guest say on its console when ssh answers. Nothing is installed: the guest reaches no network, and Ubuntu's
 * images have fuse3 and rsync.
 */
import { readFileSync } from 'node:fs';
import type { Effects } from './effects.ts';
import { VmError } from './errors.ts';
import { READY_MARK } from './image.ts';
import { GUEST_USER, type MachineRecord } from './machine.ts';
import type { MachineFiles } from './names.ts';
import { publicPart } from './seed.ts';

/** Programs that make an ISO 9660 file system with long names, and their arguments. */
const MAKERS: readonly (readonly [string, ...string[]])[] = [
  ['genisoimage'],
  ['mkisofs'],
  ['xorriso', '-as', 'genisoimage'],
];

/** JSON is YAML, so nothing needs quoting of another kind. */
export function userData(
  name: string,
  keys: readonly string[],
  hostKey: { secret: string; open: string },
): string {
  const unit = [
    '[Unit]',
    'Description=Gate: tell the host that this machine can be reached',
    'After=ssh.service',
    '[Service]',
    'Type=oneshot',
    `ExecStart=/bin/sh -c 'echo "${READY_MARK} ${name}" >/dev/console'`,
    '[Install]',
    'WantedBy=multi-user.target',
    '',
  ].join('\n');
  const data = {
    hostname: name,
    ssh_deletekeys: true,
    ssh_keys: { ed25519_private: hostKey.secret, ed25519_public: hostKey.open },
    disable_root: false,
    ssh_pwauth: false,
    users: [
      { name: 'root', ssh_authorized_keys: keys },
      { name: GUEST_USER, shell: '/bin/bash', lock_passwd: true, ssh_authorized_keys: keys },
    ],
    growpart: { mode: 'auto' },
    package_update: false,
    write_files: [{ path: '/etc/systemd/system/gate-ready.service', content: unit }],
    runcmd: [
      ['mkdir', '-p', '/srv', '/var/lib/gate'],
      ['systemctl', 'daemon-reload'],
      ['systemctl', 'enable', '--now', 'gate-ready.service'],
    ],
  };
  return `#cloud-config\n${JSON.stringify(data, null, 1)}\n`;
}

export async function makeNoCloud(
  effects: Effects,
  files: MachineFiles,
  record: MachineRecord,
): Promise<void> {
  const keys = [files.clientKey, ...(record.sshKey === null ? [] : [record.sshKey])];
  const data = effects.dry
    ? ''
    : userData(record.name, keys.map(publicPart), {
        secret: readFileSync(files.hostKey, 'utf8'),
        open: publicPart(files.hostKey),
      });
  effects.remove(files.seedTree);
  effects.makeDir(files.seedTree, 0o700);
  effects.write(`${files.seedTree}/user-data`, data, 0o600);
  effects.write(
    `${files.seedTree}/meta-data`,
    `${JSON.stringify({ 'instance-id': `gate-${record.name}`, 'local-hostname': record.name })}\n`,
  );
  const maker = await firstMaker(effects);
  const [program, ...args] = maker;
  const options = [...args, '-quiet', '-o', files.seed, '-V', 'cidata', '-J', '-r', files.seedTree];
  await effects.run(program, options, { what: "write cloud-init's seed" });
  await effects.run('chmod', ['600', files.seed], { what: "write cloud-init's seed" });
  effects.remove(files.seedTree);
}

async function firstMaker(effects: Effects): Promise<readonly [string, ...string[]]> {
  for (const maker of MAKERS) {
    const ran = await effects.run('sh', ['-c', 'command -v "$1"', 'sh', maker[0]], {
      what: 'look for a program',
      anyStatus: true,
      looks: true,
    });
    if (ran.status === 0) return maker;
  }
  if (effects.dry) return MAKERS[0]!;
  throw new VmError("no program is here that writes cloud-init's seed", {
    hint: 'On Debian or Ubuntu: apt-get install genisoimage',
  });
}
