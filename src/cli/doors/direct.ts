import { projectDir } from '../../base/version.ts';
import { CONTROL_PATH_BYTES_MAX, shellWord, sshArguments } from '../../ssh/index.ts';
import { CliError, usage } from '../context.ts';
import type { DoorOptions, DoorPlan, There } from './index.ts';
import { doorFile } from './launch.ts';

/** Between two tries to get the tunnel back, in seconds: a session of the broker lives for fifteen without renewal. */
const AGAIN_S = 1;

/** Repository and view are here, the broker is there: its Unix socket comes here through ssh. */
export function direct(
  options: DoorOptions & { readonly there: There; readonly more: readonly string[] },
): Pick<DoorPlan, 'files' | 'processes'> {
  const { target, mountPoint, stateDir, there, more, root } = options;
  if (root === undefined)
    throw usage("the door 'direct' shows a folder of this machine: name it with --root");
  const socket = doorFile(stateDir, mountPoint, 'sock');
  if (Buffer.byteLength(socket) > CONTROL_PATH_BYTES_MAX)
    throw new CliError(`${socket} is too long for a Unix socket; use a shorter state directory`);
  const tunnel = [
    'ssh',
    ...sshArguments({ ...target, controlPath: null }, undefined, [
      '-N',
      '-o',
      'ControlPath=none',
      '-o',
      'ExitOnForwardFailure=yes',
      '-o',
      'StreamLocalBindUnlink=yes',
      '-L',
      `${expanded(socket)}:${expanded(there.brokerSocket)}`,
    ]),
  ];
  // The shell stays, and brings the tunnel back whenever it breaks; the view's session goes on where it was.
  const loop = `while :; do ${tunnel.map(shellWord).join(' ')}; sleep ${AGAIN_S}; done`;
  return {
    files: [],
    processes: [
      { label: 'the tunnel', argv: ['/bin/sh', '-c', loop], ready: { when: 'exists', path: socket } },
      {
        label: 'the mount',
        argv: [
          process.execPath,
          '--disable-warning=ExperimentalWarning',
          `${projectDir}/src/cli/main.ts`,
          'mount',
          ...['--root', root, '--mount', mountPoint, '--socket', socket, ...more],
          '--ready-fd',
          '3',
        ],
        ready: { when: 'said' },
      },
    ],
  };
}

/** ssh reads tokens like %h in the paths of a forward (ssh_config(5), TOKENS). */
function expanded(path: string): string {
  return path.replaceAll('%', '%%');
}
