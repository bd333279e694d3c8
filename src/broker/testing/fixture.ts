/** What the broker's tests share: brokers in temporary directories, and a plain HTTP client over raw sockets. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { until } from '../../base/clock.ts';
import { type BrokerOptions, type RunningBroker, startBroker } from '../index.ts';

// biome-ignore lint/suspicious/noExplicitAny: answers are JSON of any shape, looked at by assertions
export type Json = any;

export const WAIT_MS = 5000;

export function tempDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'gate-broker-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** A broker in this process, on a free port, without authentication unless asked for. */
export async function broker(t: TestContext, options: Partial<BrokerOptions> = {}): Promise<RunningBroker> {
  const stateDir = options.stateDir ?? tempDir(t);
  const running = await startBroker({ port: 0, auth: 'off', ...options, stateDir });
  t.after(() => running.close());
  return running;
}

export interface BrokerProcess {
  readonly child: ChildProcess;
  readonly url: string;
  kill(): Promise<void>;
}

/** A broker in a process of its own. */
export async function brokerProcess(t: TestContext, options: BrokerOptions): Promise<BrokerProcess> {
  const entry = new URL('./run.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, [entry, JSON.stringify({ port: 0, auth: 'off', ...options })], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const kill = async () => {
    child.kill('SIGKILL');
    await gone;
  };
  t.after(kill);
  const url = await Promise.race([
    new Promise<string>((resolve) => child.stdout!.once('data', (data) => resolve(String(data).trim()))),
    gone.then(() => assert.fail('the broker did not start')),
  ]);
  return { child, url, kill };
}

export interface RawAnswer {
  readonly status: number;
  readonly json: Json;
  readonly text: string;
}

export interface RawRequest extends Promise<RawAnswer> {
  readonly socket: Socket;
}

type Where = { readonly url: string } | { readonly socketPath: string };

/**
 * HTTP/1.1 by hand: a new connection for each request, `Connection: close`, and it blocks until the answer is there, as
 * the simplest client would do it.
 */
export function raw(
  where: Where,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): RawRequest {
  const url = 'url' in where ? new URL(where.url) : undefined;
  const socket = 'url' in where ? connect(Number(url!.port), url!.hostname) : connect(where.socketPath);
  const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
  const all: Record<string, string> = {
    Host: url?.host ?? 'localhost',
    Connection: 'close',
    ...(body !== undefined && {
      'Content-Type': 'application/json',
      'Content-Length': String(Buffer.byteLength(text)),
    }),
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${text}`);
  const answer = new Promise<RawAnswer>((resolve, reject) => {
    let got = '';
    socket.setEncoding('utf8');
    socket.on('data', (data) => (got += data));
    socket.on('error', reject);
    socket.on('close', () => {
      const end = got.indexOf('\r\n\r\n');
      if (end < 0) return reject(new Error('the connection was closed without an answer'));
      const payload = got.slice(end + 4);
      const json = payload.startsWith('{') ? JSON.parse(payload) : undefined;
      resolve({ status: Number(got.split(' ', 2)[1]), json, text: got });
    });
  });
  answer.catch(() => {});
  return Object.assign(answer, { socket });
}

export async function eventually(what: string, probe: () => unknown): Promise<void> {
  assert.ok(await until(async () => Boolean(await probe()), WAIT_MS, 5), `did not come: ${what}`);
}

/** The HTTP API of one broker, as the tests use it. */
export class Api {
  readonly where: Where;
  readonly headers: Record<string, string>;

  constructor(where: Where, headers: Record<string, string> = {}) {
    this.where = where;
    this.headers = headers;
  }

  get(path: string): RawRequest {
    return raw(this.where, 'GET', path, undefined, this.headers);
  }

  post(path: string, body: unknown): RawRequest {
    return raw(this.where, 'POST', path, body, this.headers);
  }

  acquire(owner: string, mode: string, path = 'f', more: Record<string, unknown> = {}): RawRequest {
    return this.post('/v1/locks/acquire', { path, mode, owner, ...more });
  }

  /** Acquires and expects it at once; the lock. */
  async lock(owner: string, mode: string, path = 'f', more: Record<string, unknown> = {}): Promise<Json> {
    const { status, json, text } = await this.acquire(owner, mode, path, more);
    assert.equal(status, 200, text);
    assert.equal(json.status, 'granted');
    return json.lock;
  }

  async release(lock: { lock_id: string; owner: string }): Promise<void> {
    const { status, text } = await this.post('/v1/locks/release', {
      lock_id: lock.lock_id,
      owner: lock.owner,
    });
    assert.equal(status, 200, text);
  }

  async status(path = 'f'): Promise<{ locks: Json[]; queue: Json[] }> {
    return (await this.get(`/v1/locks/status?path=${encodeURIComponent(path)}`)).json;
  }

  /** Waits until so many requests wait for a path. */
  queued(count: number, path = 'f'): Promise<void> {
    return eventually(
      `${count} waiting for ${path}`,
      async () => (await this.status(path)).queue.length === count,
    );
  }
}

export function tokenHeader(tokenFile: string): Record<string, string> {
  return { Authorization: `Bearer ${readFileSync(tokenFile, 'utf8').trim()}` };
}
