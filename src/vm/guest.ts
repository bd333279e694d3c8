/** What is done in a guest that runs, over ssh: Gate upgraded, its units configured and started, the repository brought in. */
import { createReadStream, readFileSync } from 'node:fs';
import { type SshTarget, shellWord, sshArguments, sshOptions } from '../ssh/index.ts';
import { type Bundle, difference, GUEST_COMMAND, GUEST_DIR } from './bundle.ts';
import type { Effects, Ran } from './effects.ts';
import { VmError } from './errors.ts';
import { GUEST_USER } from './machine.ts';
import type { MachineFiles } from './names.ts';

/** In a guest under TCG everything takes its time: Node alone starts in 2.4 s. */
const GUEST_MS = 180_000;
/** Three programs start there for the first time. */
const UNITS_MS = 420_000;

/** Runs a shell's line in the guest. Throws a VmError with what it said. */
export async function inGuest(
  effects: Effects,
  target: SshTarget,
  what: string,
  command: string,
  more: {
    readonly input?: string | NodeJS.ReadableStream;
    readonly anyStatus?: boolean;
    readonly limitMs?: number;
  } = {},
): Promise<Ran> {
  const ran = await effects.run('ssh', sshArguments(target, command), {
    what,
    limitMs: more.limitMs ?? GUEST_MS,
    anyStatus: true,
    input: more.input as never,
  });
  if (ran.status === 255) throw unreachable(what, ran.stderr);
  if (ran.status !== 0 && !more.anyStatus)
    throw new VmError(`cannot ${what} in the guest: status ${ran.status}`, {
      detail: `${ran.stdout}\n${ran.stderr}`.split('\n').filter(Boolean).slice(-15),
    });
  return ran;
}

/** ssh's own failures, told apart. */
export function unreachable(what: string, said: string): VmError {
  const detail = said.split('\n').filter(Boolean).slice(-8);
  if (/host key verification failed|identification has changed/i.test(said))
    return new VmError(`cannot ${what}: the guest shows another host key than the one that was pinned`, {
      detail,
      hint: 'Somebody else answers on this port, or the pinned key was changed. `gate vm delete NAME` and `gate up --vm` make both anew.',
    });
  if (/permission denied|too many authentication/i.test(said))
    return new VmError(`cannot ${what}: the guest does not let our key in`, {
      detail,
      hint: "The machine was made with another key. `gate vm stop NAME`, then `gate up --vm`: a start gives the guest the machine's keys.",
    });
  return new VmError(`cannot ${what}: ssh does not reach the guest`, {
    detail,
    hint: '`gate vm list` shows whether it runs, `gate logs --component vm` what it said.',
  });
}

/** A configuration for `ssh -F`, rsync and people: the host is the machine's name. */
export function writeSshConfig(effects: Effects, files: MachineFiles, name: string, target: SshTarget): void {
  const options = sshOptions(target).filter((word) => word !== '-o');
  const lines = [`Hostname=${target.host}`, ...options].map((line) => `  ${line.replace('=', ' ')}`);
  effects.write(files.sshConfig, `Host ${name}\n${lines.join('\n')}\n`, 0o600);
}

/** Brings the guest's Gate to this host's version; only files that differ travel. True when it was changed. */
export async function upgrade(
  effects: Effects,
  files: MachineFiles,
  root: SshTarget,
  bundle: Bundle,
): Promise<{ changed: boolean; from: string; files: number }> {
  const { stdout } = await inGuest(
    effects,
    root,
    "ask for Gate's version",
    `cat ${GUEST_DIR}/VERSION 2>/dev/null || echo none`,
  );
  const from = stdout.trim();
  if (from === bundle.version) return { changed: false, from, files: 0 };
  const theirs = await inGuest(
    effects,
    root,
    "ask for Gate's files",
    `cat ${GUEST_DIR}/MANIFEST 2>/dev/null || true`,
  );
  const ours = effects.dry ? '' : readFileSync(`${bundle.dir}/MANIFEST`, 'utf8');
  const { send, drop } = difference(ours, theirs.stdout);
  const list = `${files.dir}/upgrade.list`;
  const archive = `${files.dir}/upgrade.tar.gz`;
  const dropped = `${files.dir}/DROP`;
  effects.write(list, ['VERSION', 'MANIFEST', ...send].map((name) => `${name}\0`).join(''));
  effects.write(dropped, drop.map((name) => `${name}\0`).join(''));
  await effects.run(
    'tar',
    [
      ...['--format=ustar', '--owner=0', '--group=0', '--numeric-owner', '-czf', archive],
      ...['-C', files.dir, 'DROP', '-C', bundle.dir, '--null', '-T', list],
    ],
    { what: 'pack what is new in Gate' },
  );
  const script = [
    'set -e',
    `rm -rf ${GUEST_DIR}.new ${GUEST_DIR}.old`,
    `if [ -d ${GUEST_DIR} ]; then cp -al ${GUEST_DIR} ${GUEST_DIR}.new; else mkdir ${GUEST_DIR}.new; fi`,
    `cd ${GUEST_DIR}.new`,
    // Old files are hard links to those in use: they are replaced, never written.
    'tar -xz --unlink-first --no-same-owner -f -',
    'xargs -0 -r rm -f -- <DROP',
    'rm -f DROP',
    'cd /',
    `if [ -d ${GUEST_DIR} ]; then mv ${GUEST_DIR} ${GUEST_DIR}.old; fi`,
    `mv ${GUEST_DIR}.new ${GUEST_DIR}`,
    `rm -rf ${GUEST_DIR}.old`,
    `ln -sf ${GUEST_DIR}/gate ${GUEST_COMMAND}`,
  ].join('\n');
  try {
    await inGuest(effects, root, 'upgrade Gate', script, {
      input: effects.dry ? undefined : createReadStream(archive),
    });
  } finally {
    for (const path of [list, archive, dropped]) effects.remove(path);
  }
  return { changed: true, from, files: send.length };
}

/** Copies the repository into the guest, whole, and deletes nothing there. */
export async function syncIn(
  effects: Effects,
  files: MachineFiles,
  name: string,
  repo: string,
  guestRepo: string,
  line: (line: string) => void,
): Promise<void> {
  const args = [
    // No owners: all of it belongs to the guest's user.
    ...['-rlptDH', '--stats', '--info=progress2', '--no-inc-recursive', '--mkpath'],
    ...['-e', `ssh -F '${files.sshConfig}'`],
    ...['--', `${repo}/`, `${name}:${guestRepo}/`],
  ];
  await effects.run('rsync', args, { what: 'copy the repository in', limitMs: 3_600_000, line });
}

export interface GuestSettings {
  readonly repo: string;
  readonly mount: string;
  readonly options: Readonly<Record<string, string>>;
}

export const GUEST_ENV = '/etc/gate/gate.env';
export const GUEST_MOUNT = '/mnt/gate';
export const GUEST_STATE = '/var/lib/gate';
/** Those of systems/gate_vm/units/. */
const UNITS = ['gate-broker.service', 'gate-mount.service', 'gate-sftp.service'] as const;

/** /etc/gate/gate.env: what systemd's units take for Gate's options. */
export function guestEnv(settings: GuestSettings): string {
  const values: Record<string, string> = {
    GATE_STATE_DIR: GUEST_STATE,
    GATE_REPO: settings.repo,
    GATE_MOUNT: settings.mount,
    GATE_SERVE: `${GUEST_STATE}/view.sock`,
    // The host has root's key anyway: it may use the view's own protocol as its ordinary user.
    GATE_VIEW_USER: GUEST_USER,
    GATE_SFTP_USER: GUEST_USER,
    GATE_SOCKET_GROUP: GUEST_USER,
    ...settings.options,
  };
  return Object.entries(values)
    .map(([key, value]) => `${key}="${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"\n`)
    .join('');
}

/**
 * Writes the units' settings, and starts what does not run; what runs is started again when `restart`, or when the settings
 * differ. Waits until the view is mounted. Throws a VmError with the units' last words.
 */
export async function startUnits(
  effects: Effects,
  root: SshTarget,
  settings: GuestSettings,
  restart: boolean,
): Promise<void> {
  const mount = shellWord(settings.mount);
  const script = [
    'set -e',
    `mkdir -p ${GUEST_ENV.slice(0, GUEST_ENV.lastIndexOf('/'))}`,
    `cat >${GUEST_ENV}.new`,
    `changed=${restart ? 1 : 0}`,
    `cmp -s ${GUEST_ENV}.new ${GUEST_ENV} || changed=1`,
    `mv ${GUEST_ENV}.new ${GUEST_ENV}`,
    `cp ${UNITS.map((unit) => `${GUEST_DIR}/systems/gate_vm/units/${unit}`).join(' ')} /etc/systemd/system/`,
    `mkdir -p ${GUEST_STATE} ${mount}`,
    'systemctl daemon-reload',
    `systemctl enable -q ${UNITS.join(' ')}`,
    'verb=start; [ $changed = 0 ] || verb=restart',
    // Each of them says when it answers: when this comes back, the view is mounted.
    `systemctl $verb ${UNITS.join(' ')} && exit 0`,
    'systemctl --no-pager -n 0 status gate-broker gate-mount gate-sftp | grep -E "●|Active:" >&2',
    'journalctl -q --no-pager -o cat -n 12 -u gate-broker -u gate-mount -u gate-sftp >&2',
    'exit 1',
  ].join('\n');
  await inGuest(effects, root, 'start the broker and the view', script, {
    input: guestEnv(settings),
    limitMs: UNITS_MS,
  });
}
