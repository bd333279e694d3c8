/** How the commands that run a view in the foreground find the broker and the folder. */
import { readFileSync, statSync } from 'node:fs';
import { CliError, type Context, usage } from './context.ts';
import { findBroker, resolved, stateInUse } from './locate.ts';
import { readConfig } from './options.ts';

/** Flags of such a command that say where its broker is. */
export interface BrokerFlags {
  readonly socket?: string;
  readonly brokerHost?: string;
  readonly brokerPort?: string;
  readonly tokenFile?: string;
  readonly stateDir?: string;
}

/** A directory by its whole path; `what` it is, for the error. */
export function checkDir(context: Context, path: string, what: string): string {
  const dir = resolved(context, path);
  const state = statSync(dir, { throwIfNoEntry: false });
  if (!state) throw new CliError(`the ${what} ${dir} does not exist`);
  if (!state.isDirectory()) throw new CliError(`the ${what} ${dir} is not a directory`);
  return dir;
}

export interface BrokerFor {
  readonly address: { brokerSocket: string } | { brokerUrl: string; token: string | undefined };
  readonly config: Record<string, string>;
}

/**
 * Where the broker is: a socket, an address, or the state directory's. `byToken`: by its address and token, for a process that will not
 * be allowed to use the socket any more.
 */
export async function brokerFor(context: Context, flags: BrokerFlags, byToken = false): Promise<BrokerFor> {
  if (flags.socket) return { address: { brokerSocket: resolved(context, flags.socket) }, config: {} };
  const host = flags.brokerHost ?? (context.env.GATE_BROKER_HOST || undefined);
  const asked = flags.brokerPort ?? (context.env.GATE_BROKER_PORT || undefined);
  // 0 lets a broker take a free port: the state directory knows which.
  const port = asked === '0' ? undefined : asked;
  if (host === undefined && port === undefined) {
    const { files, info } = await findBroker(context, flags.stateDir);
    const config = readConfig(files.config);
    if (!byToken) return { address: { brokerSocket: info.socket }, config };
    return { address: { brokerUrl: info.url, token: await readToken(context, flags) }, config };
  }
  if (port !== undefined && !(/^\d+$/.test(port) && Number(port) < 65_536))
    throw usage(`--broker-port: '${port}' is not a port`);
  const name = host ?? '127.0.0.1';
  const brokerUrl = `http://${name.includes(':') ? `[${name}]` : name}:${port ?? 8787}`;
  return { address: { brokerUrl, token: await readToken(context, flags) }, config: {} };
}

/** The token that was named, else the one of the state directory, when there is one. */
async function readToken(context: Context, flags: BrokerFlags): Promise<string | undefined> {
  try {
    const path = flags.tokenFile ?? (await stateInUse(context, flags.stateDir))?.token;
    return path === undefined ? undefined : readFileSync(path, 'utf8').trim();
  } catch (error) {
    if (flags.tokenFile === undefined) return undefined;
    throw new CliError(`the token file cannot be read: ${(error as Error).message}`);
  }
}
