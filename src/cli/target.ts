/** Flags of the commands that reach another machine over ssh. */
import type { Command } from 'commander';
import type { SshTarget } from '../ssh/index.ts';
import { type Context, usage } from './context.ts';
import { resolved } from './locate.ts';

export interface TargetFlags {
  readonly vmUser?: string;
  readonly vmHost?: string;
  readonly sshPort?: string;
  readonly sshKey?: string;
  readonly knownHosts?: string;
  readonly hostKeyAlias?: string;
}

export function addTargetOptions(command: Command): Command {
  return command
    .option('--vm-host <HOST>', 'the machine, as ssh knows it')
    .option('--vm-user <USER>', "who to be there (default: as ssh's configuration says)")
    .option('--ssh-port <PORT>', "its port (default: as ssh's configuration says)")
    .option('--ssh-key <FILE>', "the private key, and no other (default: as ssh's configuration says)")
    .option('--known-hosts <FILE>', "the machine's pinned host keys; with --host-key-alias")
    .option('--host-key-alias <NAME>', 'the name they stand under');
}

/** Who is meant. Throws a usage error. */
export function targetOf(context: Context, flags: TargetFlags): SshTarget {
  const { vmHost, vmUser, sshPort, sshKey, knownHosts, hostKeyAlias } = flags;
  if (vmHost === undefined) throw usage('--vm-host names the machine');
  if (vmHost === '' || vmHost.startsWith('-') || vmUser?.startsWith('-'))
    throw usage('neither --vm-host nor --vm-user may begin with a dash');
  const port = sshPort === undefined ? null : Number(sshPort);
  if (port !== null && !(Number.isInteger(port) && port > 0 && port < 65_536))
    throw usage(`--ssh-port: '${sshPort}' is not a port`);
  if ((knownHosts === undefined) !== (hostKeyAlias === undefined))
    throw usage('--known-hosts FILE and --host-key-alias NAME belong together');
  return {
    user: vmUser ?? null,
    host: vmHost,
    port,
    identityFile: sshKey === undefined ? null : resolved(context, sshKey),
    hostKeys: knownHosts === undefined ? null : { file: resolved(context, knownHosts), alias: hostKeyAlias! },
    controlPath: null,
  };
}
