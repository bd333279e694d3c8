import { projectDir } from '../../base/version.ts';
import { showTarget } from '../../ssh/index.ts';
import type { DoorOptions, DoorPlan, There } from './index.ts';

/** Our own front end, over the view's own protocol through ssh. */
export function gate(
  options: DoorOptions & { readonly there: There; readonly more: readonly string[] },
): Pick<DoorPlan, 'files' | 'processes'> {
  const { target, mountPoint, there, more } = options;
  const { identityFile, hostKeys } = target;
  const keys = [
    ...(identityFile === null ? [] : ['--ssh-key', identityFile]),
    ...(hostKeys === null ? [] : ['--known-hosts', hostKeys.file, '--host-key-alias', hostKeys.alias]),
  ];
  return {
    files: [],
    processes: [
      {
        label: 'the mount',
        argv: [
          process.execPath,
          '--disable-warning=ExperimentalWarning',
          `${projectDir}/src/cli/main.ts`,
          'mount',
          ...['--remote', `ssh://${showTarget(target)}`, '--remote-socket', there.viewSocket],
          ...['--mount', mountPoint, ...keys, ...more],
          '--ready-fd',
          '3',
        ],
        ready: { when: 'said' },
      },
    ],
  };
}
