/**
 * The doors: how a tree that lives in another machine is mounted here. One interface for all three, so that `gate up --vm` and
 * `gate setup-host` choose by a word:
 *
 * - `gate`: our own front end over the view's own protocol (src/remote/),
 * - `sshfs`: sshfs, with `gate sftp` behind the other machine's sshd,
 * - `direct`: the repository and its view are here, only the broker is there, through a tunnel.
 *
 * A door's processes run on by themselves. What they are is written to `<state>/doors/`, so that any later process can take
 * the door down, whatever state it is in.
 */
import type { SshTarget } from '../../ssh/index.ts';
import { direct } from './direct.ts';
import { gate } from './gate.ts';
import { type DoorProcess, launch, type MountedDoor } from './launch.ts';
import { sshfs } from './sshfs.ts';

export { doorRecords, type MountedDoor, unmountDoor } from './launch.ts';

export const DOOR_METHODS = ['gate', 'sshfs', 'direct'] as const;
export type DoorMethod = (typeof DOOR_METHODS)[number];

export interface DoorOptions {
  readonly method: DoorMethod;
  readonly target: SshTarget;
  /** Where it is mounted here: a directory, made if it is missing. */
  readonly mountPoint: string;
  /** This machine's state directory: records, logs and sockets of the door go below `doors/` in it. */
  readonly stateDir: string;
  /** The other machine's paths. */
  readonly there?: Partial<There>;
  /** `direct`: the folder here that the view shows. */
  readonly root?: string;
  /** More arguments of `gate mount`, or of `sshfs`. */
  readonly more?: readonly string[];
  /** The environment of its processes; variables of Gate are left out. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** How long it may take until the mount works, in milliseconds. Default: a minute. */
  readonly limitMs?: number;
}

export interface There {
  /** The command of Gate. */
  readonly gate: string;
  /** Where the view serves (`gate mount --serve`). */
  readonly viewSocket: string;
  readonly sftpSocket: string;
  readonly brokerSocket: string;
}

const THERE: There = {
  gate: '/usr/local/bin/gate',
  viewSocket: '/var/lib/gate/view.sock',
  sftpSocket: '/run/gate/sftp.sock',
  brokerSocket: '/var/lib/gate/broker.sock',
};

/** What a door consists of, before anything is started: for `--dry-run`, too. */
export interface DoorPlan {
  readonly method: DoorMethod;
  readonly mountPoint: string;
  readonly stateDir: string;
  readonly limitMs: number;
  readonly env: DoorOptions['env'];
  /** Small files that the commands read. */
  readonly files: readonly { readonly path: string; readonly text: string }[];
  /** In the order in which they are started; each must be ready before the next. */
  readonly processes: readonly DoorProcess[];
}

const LIMIT_MS = 60_000;
const METHODS = { gate, sshfs, direct } as const;

/** Throws CliError for options that do not go together. */
export function planDoor(options: DoorOptions): DoorPlan {
  const full = { ...options, there: { ...THERE, ...options.there }, more: options.more ?? [] };
  const { mountPoint, stateDir, method, env, limitMs = LIMIT_MS } = options;
  const parts = METHODS[method](full);
  return { method, mountPoint, stateDir, limitMs, env, ...parts };
}

/**
 * Mounts, and looks that what is mounted is the other machine's view. Throws CliError, with the end of the log; nothing is mounted and
 * nothing runs then.
 */
export function mountDoor(options: DoorOptions): Promise<MountedDoor> {
  return launch(planDoor(options));
}
