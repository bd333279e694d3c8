/**
 * ssh as Gate uses it: who to reach and by which keys, as one value, and the command lines of OpenSSH's own client for it.
 * Gate never speaks ssh itself; the user's keys, agent and configuration stay with the program that knows them.
 */
import { GateError } from '../base/errors.ts';

export interface SshTarget {
  /** Null: as OpenSSH's configuration says. */
  readonly user: string | null;
  readonly host: string;
  /** Null: as OpenSSH's configuration says. */
  readonly port: number | null;
  /** The private key's file, and no other key; null: OpenSSH's own choice. */
  readonly identityFile: string | null;
  /** Host keys that were pinned beforehand, and the name they stand under. Null: the user's own known hosts. */
  readonly hostKeys: { readonly file: string; readonly alias: string } | null;
  /** Where the connection's control socket lies; every later command goes through the same connection. Null: each connects anew. */
  readonly controlPath: string | null;
}

/** Seconds without an answer after which a connection counts as broken: three probes of five seconds. */
const ALIVE_INTERVAL_S = 5;
const ALIVE_COUNT = 3;
const CONNECT_TIMEOUT_S = 30;
/** Longest path of a Unix socket (unix(7): 108 bytes with the zero), less what ssh appends while it makes one. */
export const CONTROL_PATH_BYTES_MAX = 107 - 17;

/** What is in `ssh://USER@HOST:PORT`. Throws `invalid_request`. */
export function parseSshUrl(url: string): SshTarget {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw new GateError('invalid_request', `not a URL: ${url}; write ssh://USER@HOST:PORT`);
  }
  const host = decodeURIComponent(parsed.hostname).replace(/^\[(.*)\]$/, '$1');
  const user = decodeURIComponent(parsed.username);
  if (parsed.protocol !== 'ssh:' || host === '' || parsed.password !== '')
    throw new GateError('invalid_request', `not an address for ssh: ${url}; write ssh://USER@HOST:PORT`);
  // ssh would take it for an option.
  if (host.startsWith('-') || user.startsWith('-'))
    throw new GateError('invalid_request', `neither user nor host may begin with a dash: ${url}`);
  return {
    user: user === '' ? null : user,
    host,
    port: parsed.port === '' ? null : Number(parsed.port),
    identityFile: null,
    hostKeys: null,
    controlPath: null,
  };
}

/** As people write it: `user@host:port`. */
export function showTarget({ user, host, port }: SshTarget): string {
  return `${user === null ? '' : `${user}@`}${host.includes(':') ? `[${host}]` : host}${port === null ? '' : `:${port}`}`;
}

/** Options (`-o KEY=VALUE` …) for ssh, scp, sftp and sshfs alike; no user, no host. Source: ssh_config(5). */
export function sshOptions(target: SshTarget): string[] {
  const options: Record<string, string> = {
    BatchMode: 'yes',
    ConnectTimeout: `${CONNECT_TIMEOUT_S}`,
    ServerAliveInterval: `${ALIVE_INTERVAL_S}`,
    ServerAliveCountMax: `${ALIVE_COUNT}`,
  };
  if (target.user !== null) options.User = target.user;
  if (target.port !== null) options.Port = `${target.port}`;
  if (target.identityFile !== null) {
    options.IdentityFile = quoted(target.identityFile);
    options.IdentitiesOnly = 'yes';
  }
  if (target.hostKeys !== null) {
    options.StrictHostKeyChecking = 'yes';
    options.UserKnownHostsFile = quoted(target.hostKeys.file);
    options.GlobalKnownHostsFile = '/dev/null';
    options.HostKeyAlias = target.hostKeys.alias;
    options.UpdateHostKeys = 'no';
  }
  if (target.controlPath !== null) {
    options.ControlMaster = 'auto';
    options.ControlPath = quoted(target.controlPath);
    options.ControlPersist = '60';
  }
  return Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
}

/** The arguments of `ssh` that run `command`, a shell's line on the other side; without one they end with the host. */
export function sshArguments(target: SshTarget, command?: string, more: readonly string[] = []): string[] {
  return [...sshOptions(target), ...more, '--', target.host, ...(command === undefined ? [] : [command])];
}

/** One word for the other side's shell. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A value of ssh_config(5) in which `%` and spaces mean themselves. */
function quoted(path: string): string {
  return `"${path.replaceAll('%', '%%')}"`;
}
