/**
 * Every option of the broker and the mount, once. The table drives the flag, the environment variable, the key
 * in `<state>/config.json` and the help text, in this order of precedence. The variable of `--lease-ms` is
 * GATE_LEASE_MS (those of `--host` and `--port` are GATE_BROKER_HOST and GATE_BROKER_PORT); its key in config.json is the
 * table's: `leaseMs`.
 */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { LOG_LEVELS, type LogLevel } from '../base/log.ts';
import { CliError, type Context, EXIT, usage } from './context.ts';

interface Spec<T> {
  readonly flag: string;
  /** Name of the value in the help text; none for a switch. */
  readonly value?: string;
  readonly help: string;
  /** Throws an Error whose message completes "--flag: ". */
  readonly parse: (text: string) => T;
  readonly fallback: T;
  /** An empty environment variable is a value, not an absence. */
  readonly emptyMeans?: 'value';
  /** Name of the variable, when it is not made from the flag. */
  readonly env?: string;
}

function spec<T>(of: Spec<T>): Spec<T> {
  return of;
}

function integer(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < low || value > high)
      throw new Error(`'${text}' is not a whole number from ${low} to ${high}`);
    return value;
  };
}

const milliseconds = integer(0, 2 ** 31 - 1);
const text = (value: string): string => value;
const list = (value: string): string[] =>
  value
    .split(',')
    .map((item) => item.trim())
    .filter(Boolean);

function orNone(parse: (text: string) => number): (text: string) => number | null {
  return (value) => (value === 'none' ? null : parse(value));
}

function oneOf<T extends string>(...choices: T[]): (text: string) => T {
  return (value) => {
    if (!choices.includes(value as T)) throw new Error(`'${value}' is none of ${choices.join(', ')}`);
    return value as T;
  };
}

function onOff(value: string): boolean {
  if (['1', 'true', 'on', 'yes'].includes(value)) return true;
  if (['0', 'false', 'off', 'no', ''].includes(value)) return false;
  throw new Error(`'${value}' is neither on nor off`);
}

/** Programs that `--scanners pass` means. */
export const KNOWN_SCANNERS = [
  'rg',
  'ag',
  'ack',
  'fd',
  'fdfind',
  'ctags',
  'clangd',
  'gopls',
  'rust-analyzer',
  'pyright',
  'pylsp',
  'tsserver',
  'typescript-language-server',
  'watchman',
];

function scanners(value: string): string[] {
  if (value === 'wait') return [];
  return list(value).flatMap((name) => (name === 'pass' ? KNOWN_SCANNERS : [name]));
}

const logLevel = spec<LogLevel>({
  flag: 'log-level',
  value: 'LEVEL',
  help: `least serious lines that are logged: ${LOG_LEVELS.join(', ')}`,
  parse: oneOf(...LOG_LEVELS),
  fallback: 'info',
});

const acquireTimeoutMs = spec<number | null>({
  flag: 'acquire-timeout-ms',
  value: 'MS',
  help: "how long an open waits before it fails with EAGAIN; 'none': without limit",
  parse: orNone(milliseconds),
  fallback: null,
});

export const BROKER_OPTIONS = {
  host: spec({
    flag: 'host',
    env: 'GATE_BROKER_HOST',
    value: 'ADDRESS',
    help: 'address of the TCP port',
    parse: text,
    fallback: '127.0.0.1',
  }),
  port: spec<number | undefined>({
    flag: 'port',
    env: 'GATE_BROKER_PORT',
    value: 'PORT',
    help: 'TCP port; without this option 8787, or a free one when that is taken; 0: a free one',
    parse: integer(0, 65535),
    fallback: undefined,
  }),
  socket: spec<string | undefined>({
    flag: 'socket',
    value: 'FILE',
    help: "the broker's Unix socket (default: <state>/broker.sock)",
    parse: text,
    fallback: undefined,
  }),
  socketGroup: spec<string | undefined>({
    flag: 'socket-group',
    value: 'GROUP',
    help: 'group that may use the socket, by name or number (under sudo: the group of the caller)',
    parse: text,
    fallback: undefined,
  }),
  auth: spec<'token' | 'off'>({
    flag: 'auth',
    value: 'MODE',
    help: "'token': the TCP port wants the bearer token in <state>/token; 'off': it does not",
    parse: oneOf('token', 'off'),
    fallback: 'token',
  }),
  leaseMs: spec({
    flag: 'lease-ms',
    value: 'MS',
    help: 'lease of a lock taken over HTTP that names none',
    parse: milliseconds,
    fallback: 30_000,
  }),
  maxHoldMs: spec<number | null>({
    flag: 'max-hold-ms',
    value: 'MS',
    help: "age from which a lock for writing is broken when somebody waits for it; 'none': never",
    parse: orNone(milliseconds),
    fallback: 3_600_000,
  }),
  maxReadHoldMs: spec<number | null>({
    flag: 'max-read-hold-ms',
    value: 'MS',
    help: "the same of a lock for reading; 'none': never",
    parse: orNone(milliseconds),
    fallback: 60_000,
  }),
  sessionTtlMs: spec({
    flag: 'session-ttl-ms',
    value: 'MS',
    help: 'how long a session lives without renewal',
    parse: integer(100, 3_600_000),
    fallback: 15_000,
  }),
  durability: spec<'process' | 'power'>({
    flag: 'durability',
    value: 'LEVEL',
    help: "what acknowledged locks survive: any death of the broker's 'process', or loss of 'power' too",
    parse: oneOf('process', 'power'),
    fallback: 'process',
  }),
  acquireTimeoutMs,
  logLevel,
};

export const MOUNT_OPTIONS = {
  owner: spec<string | undefined>({
    flag: 'owner',
    value: 'NAME',
    help: 'one owner for everybody in this view, instead of an actor for each process',
    parse: text,
    fallback: undefined,
  }),
  acquireTimeoutMs,
  lockIgnored: spec({
    flag: 'lock-ignored',
    help: 'lock files that git ignores, too',
    parse: onOff,
    fallback: false,
  }),
  scanners: spec<string[]>({
    flag: 'scanners',
    value: 'NAMES',
    help: "programs that wait at most 200 ms to read and then pass without a lock: 'wait' (none), 'pass' (the known ones), or names with commas",
    parse: scanners,
    fallback: [],
    emptyMeans: 'value',
  }),
  agents: spec<string[] | undefined>({
    flag: 'agents',
    value: 'NAMES',
    help: 'programs that are one actor with all their descendants, with commas; empty: none (default: the known agent CLIs)',
    parse: list,
    fallback: undefined,
    emptyMeans: 'value',
  }),
  passthrough: spec<'auto' | 'off'>({
    flag: 'passthrough',
    value: 'MODE',
    help: "'auto': the kernel reads and writes the files below itself where it can; 'off': all data goes through the view",
    parse: oneOf('auto', 'off'),
    fallback: 'auto',
  }),
  delegation: spec<'auto' | 'off'>({
    flag: 'delegation',
    value: 'MODE',
    help: "'auto': the view decides locks itself while nobody else wants them; 'off': it asks the broker for each",
    parse: oneOf('auto', 'off'),
    fallback: 'auto',
  }),
  staleWrites: spec<'auto' | 'deny' | 'warn' | 'off'>({
    flag: 'stale-writes',
    value: 'MODE',
    help: "a write over a change that the writer has not seen: 'auto': agents are refused (ESTALE), for others it is an event; 'deny', 'warn', 'off'",
    parse: oneOf('auto', 'deny', 'warn', 'off'),
    fallback: 'auto',
  }),
  keepMib: spec({
    flag: 'keep-mib',
    value: 'MIB',
    help: 'how much is kept of what would be lost (gate conflicts); what is over it goes, the oldest first, after a warning',
    parse: integer(1, 2 ** 31),
    fallback: 1024,
  }),
  keepDays: spec({
    flag: 'keep-days',
    value: 'DAYS',
    help: 'for how long it is kept',
    parse: integer(1, 36_500),
    fallback: 14,
  }),
  watch: spec<'auto' | 'on' | 'off'>({
    flag: 'watch',
    value: 'MODE',
    help: "follow what is changed beside the view: 'auto': where the disk below and the kernel allow it, but not in place; 'on': fail where they do not; 'off': never",
    parse: oneOf('auto', 'on', 'off'),
    fallback: 'auto',
  }),
  serve: spec<string | undefined>({
    flag: 'serve',
    value: 'FILE',
    help: 'a Unix socket to be made, at which `gate mount --remote` on other machines finds the view (default: none)',
    parse: text,
    fallback: undefined,
  }),
  remoteTtlMs: spec({
    flag: 'remote-ttl-ms',
    value: 'MS',
    help: 'how long a remote mount may be without a connection before its open files are given up',
    parse: integer(100, 3_600_000),
    fallback: 15_000,
  }),
  attrValidMs: spec<number | undefined>({
    flag: 'attr-valid-ms',
    value: 'MS',
    help: "how long the kernel may remember attributes and names of the view, and so miss what is changed beside it; 'auto': 1000; 600000 where --watch follows changes; in place 3600000 once nobody works in the tree below (default: auto)",
    parse: (value) => (value === 'auto' ? undefined : milliseconds(value)),
    fallback: undefined,
  }),
  logLevel,
};

type Table = Readonly<Record<string, Spec<unknown>>>;
export type Settings<T extends Table> = { -readonly [K in keyof T]: T[K] extends Spec<infer V> ? V : never };
export type BrokerSettings = Settings<typeof BROKER_OPTIONS>;
export type MountSettings = Settings<typeof MOUNT_OPTIONS>;

export function envName(of: { readonly flag: string; readonly env?: string }): string {
  return of.env ?? `GATE_${of.flag.toUpperCase().replaceAll('-', '_')}`;
}

/** Adds the table's flags to a command. A flag that two tables share is added once. */
export function addOptions(command: Command, ...tables: Table[]): Command {
  const seen = new Set<string>();
  for (const table of tables)
    for (const [key, of] of Object.entries(table)) {
      if (seen.has(key)) continue;
      seen.add(key);
      const fallback =
        of.fallback === undefined || of.fallback === false || Array.isArray(of.fallback)
          ? ''
          : ` (default: ${of.fallback === null ? 'none' : String(of.fallback)})`;
      command.option(
        `--${of.flag}${of.value ? ` <${of.value}>` : ''}`,
        `${of.help}${fallback} [${envName(of)}]`,
      );
    }
  return command;
}

/** What was asked for: flag, then environment, then config.json, as text. Keys are those of the table. */
export function givenOptions(
  table: Table,
  flags: Readonly<Record<string, unknown>>,
  env: Context['env'],
  config: Readonly<Record<string, string>>,
): Record<string, string> {
  const given: Record<string, string> = {};
  for (const [key, of] of Object.entries(table)) {
    const flag = flags[key];
    const variable = env[envName(of)];
    const [source, raw] =
      flag !== undefined
        ? [`--${of.flag}`, flag === true ? '1' : String(flag)]
        : variable !== undefined && (variable !== '' || of.emptyMeans === 'value')
          ? [envName(of), variable]
          : [`config.json: ${key}`, config[key]];
    if (raw === undefined) continue;
    try {
      of.parse(raw);
    } catch (error) {
      throw usage(`${source}: ${(error as Error).message}`);
    }
    given[key] = raw;
  }
  return given;
}

/** Values of every option of the table; `given` is what `givenOptions` found. */
export function settingsOf<T extends Table>(table: T, given: Readonly<Record<string, string>>): Settings<T> {
  const values: Record<string, unknown> = {};
  for (const [key, of] of Object.entries(table)) {
    const raw = given[key];
    values[key] = raw === undefined ? of.fallback : of.parse(raw);
  }
  return values as Settings<T>;
}

/** `given` as flags of a command line, for a child process. */
export function asFlags(table: Table, given: Readonly<Record<string, string>>): string[] {
  return Object.entries(table).flatMap(([key, of]) => {
    const raw = given[key];
    if (raw === undefined) return [];
    if (!of.value) return of.parse(raw) ? [`--${of.flag}`] : [];
    return [`--${of.flag}=${raw}`];
  });
}

/** Options of `<state>/config.json` as text; `{}` when there is none. Unknown keys are errors: they are typing mistakes. */
export function readConfig(path: string): Record<string, string> {
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) return {};
    throw new CliError(`${path} cannot be read: ${(error as Error).message}`);
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(content);
  } catch (error) {
    throw new CliError(`${path} is not JSON: ${(error as Error).message}`, { exit: EXIT.usage });
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    throw usage(`${path} must hold one JSON object`);
  const known = new Set([...Object.keys(BROKER_OPTIONS), ...Object.keys(MOUNT_OPTIONS)]);
  const config: Record<string, string> = {};
  for (const [key, value] of Object.entries(parsed)) {
    if (!known.has(key))
      throw usage(`${path}: there is no option '${key}'`, `It knows: ${[...known].sort().join(', ')}.`);
    if (value === null) config[key] = 'none';
    else if (Array.isArray(value) && value.every((item) => typeof item === 'string'))
      config[key] = value.join(',');
    else if (['string', 'number', 'boolean'].includes(typeof value)) config[key] = String(value);
    else throw usage(`${path}: '${key}' must be text, a number, true or false, or a list of texts`);
  }
  return config;
}
