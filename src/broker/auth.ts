/**
 * Who gets in. The Unix socket's permissions decide for themselves. The TCP port wants the token from `<state>/token`
 * (`Authorization: Bearer`), and refuses what a browser could be tricked into sending: a foreign `Origin`, and a `Host`
 * that is not ours (DNS rebinding).
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { chmodSync, readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { GateError } from '../base/errors.ts';
import { newSecret } from '../base/ids.ts';
import { writeFileAtomic } from '../base/state.ts';

export type Door = 'tcp' | 'unix';

const TOKEN_CHARS_MIN = 32;

/** Reads the token, or makes it on the first start. */
export function loadToken(path: string): string {
  try {
    const token = readFileSync(path, 'utf8').trim();
    if (token.length >= TOKEN_CHARS_MIN) {
      chmodSync(path, 0o600);
      return token;
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      throw new GateError('internal', `The token file ${path} cannot be read: ${(error as Error).message}`);
  }
  const token = newSecret();
  writeFileAtomic(path, `${token}\n`, 0o600);
  return token;
}

/** Compares in constant time, whatever the lengths. */
function same(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

export class Gatekeeper {
  readonly #token: string | undefined;
  #hosts: ReadonlySet<string> = new Set();

  /** `token` undefined: authentication is off. */
  constructor(token: string | undefined) {
    this.#token = token;
  }

  /** Names under which the TCP port may be addressed. */
  listensOn(host: string, port: number): void {
    const shown = host.includes(':') ? `[${host}]` : host;
    const names = new Set(['localhost', '127.0.0.1', '[::1]', shown]);
    this.#hosts = new Set(
      [...names].flatMap((name) => (port === 80 ? [name, `${name}:80`] : [`${name}:${port}`])),
    );
  }

  /** Throws `forbidden` or `unauthorized`. */
  admit(request: IncomingMessage, door: Door): void {
    const { origin, host, authorization } = request.headers;
    if (origin !== undefined && !this.#ownOrigin(origin))
      throw new GateError('forbidden', `The Origin ${origin} is not this broker.`, { field: 'Origin' });
    if (door === 'unix') return;
    if (!this.#hosts.has((host ?? '').toLowerCase()))
      throw new GateError('forbidden', `The Host ${host ?? '(none)'} is not this broker.`, { field: 'Host' });
    if (this.#token === undefined) return;
    const given = /^Bearer +(\S+) *$/i.exec(authorization ?? '')?.[1];
    if (given === undefined)
      throw new GateError('unauthorized', 'The TCP port wants the header "Authorization: Bearer TOKEN".');
    if (!same(given, this.#token))
      throw new GateError('unauthorized', 'The bearer token is not the one of this broker.');
  }

  #ownOrigin(origin: string): boolean {
    return origin.startsWith('http://') && this.#hosts.has(origin.slice('http://'.length).toLowerCase());
  }
}
