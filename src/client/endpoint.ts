/** Where a broker is: its Unix socket, or its address and token. */
import { readFileSync } from 'node:fs';
import { GateError } from '../base/errors.ts';
import { stateFiles } from '../base/state.ts';
import { type BrokerInfo, SESSION_PATH } from '../broker/wire.ts';

export interface Endpoint {
  /** Path of the Unix socket; it needs no token. */
  readonly socket?: string;
  /** `http://host:port`. */
  readonly url?: string;
  readonly token?: string;
}

/** What the last broker of a state directory wrote about itself; whether it lives is another question. */
export function readInfo(stateDir: string): BrokerInfo | undefined {
  try {
    const info = JSON.parse(readFileSync(stateFiles(stateDir).broker, 'utf8')) as Partial<BrokerInfo> | null;
    if (typeof info?.socket === 'string' && typeof info.url === 'string' && typeof info.pid === 'number')
      return info as BrokerInfo;
  } catch {
    // No broker has been there, or it is just writing.
  }
  return undefined;
}

export function readToken(stateDir: string): string | undefined {
  try {
    return readFileSync(stateFiles(stateDir).token, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** The endpoint that options name. Looked up anew for each connection: a restarted broker may have another port. */
export function endpointOf(options: Endpoint & { readonly stateDir?: string }): Endpoint {
  if (options.socket !== undefined) return { socket: options.socket };
  if (options.url !== undefined)
    return { url: options.url, token: options.token ?? (options.stateDir && readToken(options.stateDir)) };
  if (options.stateDir === undefined)
    throw new GateError('invalid_request', 'Name the broker: its socket, its url, or its state directory.');
  return { socket: readInfo(options.stateDir)?.socket ?? stateFiles(options.stateDir).brokerSocket };
}

/** The WebSocket address; over a Unix socket the host is only a name. */
export function sessionUrl({ url }: Endpoint): string {
  return `${(url ?? 'http://localhost').replace(/^http/, 'ws').replace(/\/$/, '')}${SESSION_PATH}`;
}

export function shownEndpoint({ socket, url }: Endpoint): string {
  return socket ?? url ?? '?';
}
