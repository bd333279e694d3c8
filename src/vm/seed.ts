/**
 * What a guest learns from its host at each start. Our own images unpack a tar file that is their second disk; cloud images
 * read a NoCloud disk with cloud-init. Keys are made once for each machine, before it first starts, so that its host key is known
 * before anybody connects.
 */
import { existsSync, readFileSync } from 'node:fs';
import type { Effects } from './effects.ts';
import { VmError } from './errors.ts';
import type { MachineRecord } from './machine.ts';
import type { MachineFiles } from './names.ts';

/** Owner-only files in the seed; everything else is readable. */
const SECRET = 0o600;

/** Makes the machine's keys unless they are there, and pins the host's. */
export async function makeKeys(effects: Effects, files: MachineFiles, name: string): Promise<void> {
  for (const key of [files.clientKey, files.hostKey]) {
    if (existsSync(key) && existsSync(`${key}.pub`)) continue;
    effects.remove(key);
    await effects.run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', `gate-${name}`, '-f', key], {
      what: "make the machine's keys",
    });
  }
  const key = effects.dry ? 'ssh-ed25519 KEY' : publicPart(files.hostKey);
  effects.write(files.knownHosts, `${name} ${key}\n`, SECRET);
}

/** `TYPE KEY` of a key pair, without its comment. Throws a VmError when there is no public half. */
export function publicPart(key: string): string {
  try {
    return readFileSync(`${key}.pub`, 'utf8').trim().split(/\s+/).slice(0, 2).join(' ');
  } catch (error) {
    throw new VmError(`the public half of the key ${key} cannot be read: ${(error as Error).message}`, {
      hint: `ssh-keygen -y -f ${key} >${key}.pub makes it.`,
    });
  }
}

/** Public keys that are let in. */
function authorized(effects: Effects, files: MachineFiles, record: MachineRecord): string {
  if (effects.dry) return 'KEYS\n';
  const keys = [files.clientKey, ...(record.sshKey === null ? [] : [record.sshKey])];
  return keys.map((key) => `${publicPart(key)}\n`).join('');
}

/** Writes the seed of one of our own images. */
export async function makeSeed(effects: Effects, files: MachineFiles, record: MachineRecord): Promise<void> {
  const keys = authorized(effects, files, record);
  const content: [path: string, text: string, mode?: number][] = [
    ['etc/hostname', `${record.name}\n`],
    ['etc/ssh/gate_host_key', effects.dry ? 'KEY' : readFileSync(files.hostKey, 'utf8'), SECRET],
    ['etc/ssh/authorized_keys/root', keys],
    ['etc/ssh/authorized_keys/gate', keys],
  ];
  const { network } = record;
  if (network)
    content.push([
      'etc/systemd/network/40-gate.network',
      `[Match]\nName=e*\n\n[Network]\nAddress=${network.guestAddress}/${network.prefix}\nGateway=${network.hostAddress}\nLinkLocalAddressing=no\n`,
    ]);
  effects.remove(files.seedTree);
  effects.makeDir(files.seedTree, 0o700);
  for (const [path, text, mode] of content) {
    effects.makeDir(`${files.seedTree}/${path.slice(0, path.lastIndexOf('/'))}`);
    effects.write(`${files.seedTree}/${path}`, text, mode);
  }
  await effects.run(
    'tar',
    [
      '--format=ustar',
      '--owner=0',
      '--group=0',
      '--numeric-owner',
      '-cf',
      files.seed,
      '-C',
      files.seedTree,
      'etc',
    ],
    { what: 'write the seed' },
  );
  await effects.run('chmod', ['600', files.seed], { what: 'write the seed' });
  effects.remove(files.seedTree);
}
