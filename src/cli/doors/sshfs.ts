import { sshOptions } from '../../ssh/index.ts';
import type { DoorOptions, DoorPlan, There } from './index.ts';
import { doorFile } from './launch.ts';

/**
 * `dir_cache=no` is needed: with sshfs's own cache of attributes a reader that was let in after a writer saw the file as it was before.
 * The kernel's caches are off for the same reason. `reconnect`: files that were open when the connection broke answer EIO, new
 * ones work again.
 */
const MOUNT_OPTIONS = [
  'dir_cache=no',
  'direct_io',
  'attr_timeout=0',
  'entry_timeout=0',
  'negative_timeout=0',
  'no_readahead',
  'idmap=user',
  'reconnect',
];

/** sshfs, with the asynchronous SFTP server of `gate sftp` at the other end. */
export function sshfs(
  options: DoorOptions & { readonly there: There; readonly more: readonly string[] },
): Pick<DoorPlan, 'files' | 'processes'> {
  const { target, mountPoint, stateDir, there, more } = options;
  const config = doorFile(stateDir, mountPoint, 'ssh_config');
  const host = target.host.includes(':') ? `[${target.host}]` : target.host;
  const server = `${there.gate} sftp --connect ${there.sftpSocket}`;
  const all = [...MOUNT_OPTIONS, `sftp_server=${escaped(server)}`];
  if (process.geteuid?.() === 0) all.push('allow_other');
  return {
    files: [{ path: config, text: configOf(target) }],
    processes: [
      {
        label: 'sshfs',
        argv: ['sshfs', '-f', '-F', config, '-o', all.join(','), ...more, `${host}:/`, mountPoint],
        ready: { when: 'mounted' },
        proof: { path: '.gate/about', holds: /"door":"sftp"/ },
      },
    ],
  };
}

/**
 * sshfs takes only some of ssh's options, and splits them at commas: so they come in a file. It stands in for the user's configuration,
 * which it therefore includes; of two values ssh takes the first.
 */
function configOf(target: DoorOptions['target']): string {
  const lines = sshOptions(target).filter((word) => word !== '-o');
  // Its own connection: sshfs ends it to unmount.
  const own = lines.filter((line) => !line.startsWith('Control'));
  return [...own, 'ControlPath=none', 'Include ~/.ssh/config', 'Include /etc/ssh/ssh_config', ''].join('\n');
}

/** In `-o` a comma ends a value (fuse_opt.h). */
function escaped(value: string): string {
  return value.replace(/[\\,]/g, (char) => `\\${char}`);
}
