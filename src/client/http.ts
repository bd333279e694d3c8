/** Questions to a broker without a session: plain HTTP over its socket or port, one connection a request. */
import { type IncomingMessage, request } from 'node:http';
import { GateError, isErrorCode } from '../base/errors.ts';
import type { BrokerInfo, GateEvent, VolumeInfo } from '../broker/wire.ts';
import { type Endpoint, endpointOf, shownEndpoint } from './endpoint.ts';

type Json = Record<string, unknown>;

export interface HttpInfo extends BrokerInfo {
  readonly sessions: readonly {
    readonly id: string;
    readonly client: { readonly kind: string; readonly pid?: number };
    readonly connected: boolean;
  }[];
  readonly holds: number;
  readonly waiters: number;
}

export class BrokerHttp {
  readonly #endpoint: Endpoint;

  constructor(options: Endpoint & { readonly stateDir?: string }) {
    this.#endpoint = endpointOf(options);
  }

  info(): Promise<HttpInfo> {
    return this.#ask('GET', '/v1/info') as Promise<unknown> as Promise<HttpInfo>;
  }

  /** `{locks, queue}`, in the shapes of the HTTP API. */
  status(path: string, volume?: string, scope?: 'file' | 'tree'): Promise<Json> {
    return this.#ask('GET', `/v1/locks/status?${query({ path, volume, scope })}`);
  }

  async waits(): Promise<Json[]> {
    return (await this.#ask('GET', '/v1/locks/waits')).waits as Json[];
  }

  async volumes(): Promise<VolumeInfo[]> {
    return (await this.#ask('GET', '/v1/volumes')).volumes as VolumeInfo[];
  }

  /** Newest first. */
  async history(options: { path?: string; volume?: string; limit?: number } = {}): Promise<GateEvent[]> {
    return (await this.#ask('GET', `/v1/history?${query(options)}`)).events as GateEvent[];
  }

  async break(lockId: string): Promise<void> {
    await this.#ask('POST', '/v1/locks/break', { lock_id: lockId });
  }

  /** Any request of the API; the JSON of its answer. Throws the GateError that the broker answered. */
  post(path: string, body: Json, signal?: AbortSignal): Promise<Json> {
    return this.#ask('POST', path, body, signal);
  }

  /** Events from now on, until `signal` or the broker ends it. A gap is `{type: 'gap', missed}`. */
  async *events(
    options: { volume?: string; signal?: AbortSignal } = {},
  ): AsyncGenerator<GateEvent | { type: 'gap'; missed: number }> {
    const response = await this.#open(
      'GET',
      `/v1/events?${query({ volume: options.volume })}`,
      undefined,
      options.signal,
    );
    if (response.statusCode !== 200) throw await refusal(response);
    response.setEncoding('utf8');
    let text = '';
    try {
      for await (const piece of response as AsyncIterable<string>) {
        text += piece;
        for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
          const event = parseEvent(text.slice(0, end));
          text = text.slice(end + 2);
          if (event) yield event;
        }
      }
    } catch (error) {
      if (!options.signal?.aborted)
        throw new GateError('unavailable', `The broker went away: ${(error as Error).message}`);
    }
  }

  async #ask(method: string, path: string, body?: Json, signal?: AbortSignal): Promise<Json> {
    const response = await this.#open(method, path, body, signal);
    if (response.statusCode !== 200) throw await refusal(response);
    return (await readJson(response)) as Json;
  }

  #open(method: string, path: string, body?: Json, signal?: AbortSignal): Promise<IncomingMessage> {
    const { socket, url, token } = this.#endpoint;
    const text = body === undefined ? undefined : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const sent = request(
        `${url ?? 'http://localhost'}${path}`,
        {
          method,
          ...(socket !== undefined && { socketPath: socket }),
          signal,
          agent: false,
          headers: {
            ...(token !== undefined && { authorization: `Bearer ${token}` }),
            ...(text !== undefined && {
              'content-type': 'application/json',
              'content-length': Buffer.byteLength(text),
            }),
          },
        },
        resolve,
      );
      sent.on('error', (error) => {
        const why = signal?.aborted ? new GateError('cancelled', 'Given up.') : undefined;
        reject(
          why ??
            new GateError(
              'unavailable',
              `No broker answers at ${shownEndpoint(this.#endpoint)}: ${error.message}`,
            ),
        );
      });
      sent.end(text);
    });
  }
}

function query(values: Record<string, string | number | undefined>): string {
  const given = Object.entries(values).flatMap(([key, value]): [string, string][] =>
    value === undefined ? [] : [[key, String(value)]],
  );
  return new URLSearchParams(given).toString();
}

async function readJson(response: IncomingMessage): Promise<unknown> {
  response.setEncoding('utf8');
  let text = '';
  for await (const piece of response) text += piece;
  try {
    return JSON.parse(text);
  } catch {
    throw new GateError('unavailable', 'What answers there is not a broker of Gate.');
  }
}

async function refusal(response: IncomingMessage): Promise<GateError> {
  const { code, message, status, ...details } = ((await readJson(response)) ?? {}) as Json;
  if (status === 'timeout') return new GateError('timeout', String(message ?? 'The wait limit passed.'));
  return new GateError(
    isErrorCode(code) ? code : 'internal',
    String(message ?? `The broker answered ${response.statusCode}.`),
    details,
  );
}

function parseEvent(block: string): GateEvent | { type: 'gap'; missed: number } | undefined {
  const lines = block.split('\n');
  const data = lines.find((line) => line.startsWith('data: '))?.slice('data: '.length);
  if (data === undefined) return undefined;
  if (lines.includes('event: gap'))
    return { type: 'gap', missed: (JSON.parse(data) as { missed: number }).missed };
  return JSON.parse(data) as GateEvent;
}
