/**
 * Fetching an image: what broke off goes on where it stopped, and only what has the right checksum gets its name. A file that was once
 * verified is not fetched again.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Effects } from './effects.ts';
import { VmError } from './errors.ts';

export interface Checksum {
  readonly algorithm: 'sha256' | 'sha512';
  readonly hex: string;
}

const SUMS_BYTES_MAX = 1024 * 1024;
const SUMS_FILES = ['SHA512SUMS', 'SHA256SUMS'];
/** No byte for so long: the connection is dead. */
const STALL_MS = 60_000;

/** A checksum in words: `sha512:HEX`. Undefined when it is none. */
export function parseChecksum(text: string): Checksum | undefined {
  const found = /^(?:(sha256|sha512)[:=])?([0-9a-f]+)$/i.exec(text.trim());
  const hex = found?.[2]?.toLowerCase() ?? '';
  const algorithm = hex.length === 64 ? 'sha256' : hex.length === 128 ? 'sha512' : undefined;
  if (!algorithm || (found?.[1] && found[1].toLowerCase() !== algorithm)) return undefined;
  return { algorithm, hex };
}

/** The line of a file in a vendor's list of checksums (`HEX *NAME`). */
export function checksumIn(list: string, name: string): Checksum | undefined {
  for (const line of list.split('\n')) {
    const [hex, file] = line.trim().split(/\s+\*?/);
    if (file === name && hex) return parseChecksum(hex);
  }
  return undefined;
}

/** The checksum that the vendor publishes beside the image. Throws a VmError when there is none. */
export async function publishedChecksum(url: string): Promise<Checksum> {
  const at = new URL(url);
  const name = decodeURIComponent(at.pathname.slice(at.pathname.lastIndexOf('/') + 1));
  for (const sums of SUMS_FILES) {
    const response = await answer(new URL(sums, at).href, {}).catch(() => undefined);
    if (!response?.ok || Number(response.headers.get('content-length') ?? 0) > SUMS_BYTES_MAX) continue;
    const found = checksumIn((await response.text()).slice(0, SUMS_BYTES_MAX), name);
    if (found) return found;
  }
  throw new VmError(`there is no checksum for ${url}`, {
    hint: `Beside it lies neither ${SUMS_FILES.join(' nor ')} with its name. Append one to the URL: #sha512:HEX`,
  });
}

async function answer(url: string, headers: Record<string, string>): Promise<Response> {
  try {
    return await fetch(url, { headers, redirect: 'follow' });
  } catch (error) {
    const cause = (error as Error).cause as Error | undefined;
    throw new VmError(`${url} cannot be fetched: ${cause?.message ?? (error as Error).message}`);
  }
}

/** Fetches `url` to `to`, unless it is there. Throws a VmError; what came so far stays for the next time, unless it is wrong. */
export async function download(
  effects: Effects,
  url: string,
  to: string,
  checksum: Checksum,
  progress: (text: string) => void,
): Promise<void> {
  if (existsSync(to)) return;
  if (effects.dry) {
    effects.write(to, '');
    return;
  }
  const part = `${to}.part`;
  const whole = await fetchRest(effects, url, part, progress);
  const size = statSync(part).size;
  if (whole !== undefined && size < whole)
    throw new VmError(`the download of ${url} broke off after ${size} of ${whole} bytes`, {
      hint: 'Run the same command again: it goes on from there.',
    });
  progress('looking at its checksum');
  const hash = createHash(checksum.algorithm);
  await pipeline(createReadStream(part), hash);
  const got = hash.digest('hex');
  if (got !== checksum.hex) {
    rmSync(part, { force: true });
    rmSync(`${part}.tag`, { force: true });
    throw new VmError(`${url} has the wrong checksum: it was removed`, {
      detail: [`${checksum.algorithm} expected ${checksum.hex}`, `${checksum.algorithm} got      ${got}`],
      hint: 'It changed on its way, or the vendor published another image meanwhile.',
    });
  }
  rmSync(`${part}.tag`, { force: true });
  effects.rename(part, to);
}

/** Fetches what is missing of `part`. Gives the size of the whole, when the server tells it. */
async function fetchRest(
  effects: Effects,
  url: string,
  part: string,
  progress: (text: string) => void,
): Promise<number | undefined> {
  const have = statSync(part, { throwIfNoEntry: false })?.size ?? 0;
  const tag = have > 0 ? tagOf(part) : undefined;
  // Without the tag of the former answer nobody knows whether the file is still the same.
  const headers = have > 0 && tag ? { Range: `bytes=${have}-`, 'If-Range': tag } : undefined;
  const response = await answer(url, { 'Accept-Encoding': 'identity', ...headers });
  if (response.status === 416) return have;
  if (!response.ok || !response.body) throw new VmError(`${url}: the server answers ${response.status}`);
  const goesOn = response.status === 206;
  const left = Number(response.headers.get('content-length') ?? Number.NaN);
  const start = goesOn ? have : 0;
  const whole = Number.isNaN(left) ? undefined : start + left;
  const newTag = response.headers.get('etag') ?? response.headers.get('last-modified');
  if (newTag && !newTag.startsWith('W/')) effects.write(`${part}.tag`, newTag);
  let got = start;
  let told = -1;
  const body = Readable.fromWeb(response.body as never);
  let stalled = effects.clock.after(STALL_MS, () => body.destroy(new Error('no byte came for a minute')));
  body.on('data', (chunk: Buffer) => {
    got += chunk.length;
    stalled.cancel();
    stalled = effects.clock.after(STALL_MS, () => body.destroy(new Error('no byte came for a minute')));
    const percent = whole ? Math.floor((100 * got) / whole) : Math.floor(got / 2 ** 20);
    if (percent !== told) progress(`${(told = percent)} ${whole ? '%' : 'MiB'}`);
  });
  try {
    await pipeline(body, createWriteStream(part, { flags: goesOn ? 'a' : 'w' }));
  } catch (error) {
    const size = statSync(part, { throwIfNoEntry: false })?.size ?? 0;
    throw new VmError(`the download of ${url} broke off after ${size} bytes: ${(error as Error).message}`, {
      hint: 'Run the same command again: it goes on from there.',
    });
  } finally {
    stalled.cancel();
  }
  return whole;
}

function tagOf(part: string): string | undefined {
  try {
    return readFileSync(`${part}.tag`, 'utf8').trim() || undefined;
  } catch {
    return undefined;
  }
}
