/**
 * Cloud images: disks with a boot loader, provisioned by cloud-init. Ubuntu removes dated images after some months, so what is named here is the
 * current release, verified by the checksum that Ubuntu publishes beside it (SHA-256; it publishes no SHA-512); a machine keeps the image that it was
 * made over.
 */
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { sha256 } from './bundle.ts';
import { type Checksum, download, parseChecksum, publishedChecksum } from './download.ts';
import type { Effects } from './effects.ts';
import { VmError } from './errors.ts';
import type { Journal } from './events.ts';
import type { Image } from './image.ts';
import type { CacheFiles } from './names.ts';

const VENDOR = 'https://cloud-images.ubuntu.com/releases';
const BASES: Readonly<Record<string, string>> = {
  'ubuntu-22.04': `${VENDOR}/jammy/release/ubuntu-22.04-server-cloudimg-amd64.img`,
  'ubuntu-24.04': `${VENDOR}/noble/release/ubuntu-24.04-server-cloudimg-amd64.img`,
};
const QCOW2_MAGIC = 'QFI\xfb';

/** The image of a base, a file or a URL (with `#sha512:HEX`, or a list of checksums beside it). Throws a VmError. */
export async function baseImage(
  effects: Effects,
  journal: Journal,
  cache: CacheFiles,
  { base, imageFrom }: { readonly base: string; readonly imageFrom?: string },
): Promise<Image> {
  const from = imageFrom ?? BASES[base];
  if (from === undefined) throw new VmError(`there is no base '${base}'`);
  if (!/^https?:/.test(from)) return imageAt(effects, from);
  const [url = '', fragment] = from.split('#');
  return journal.step('download the image', async (goesOn) => {
    effects.makeDir(cache.downloads);
    const checksum = await checksumFor(effects, url, fragment);
    const name = url.slice(url.lastIndexOf('/') + 1).replace(/[^\w.-]/g, '_');
    const to = `${cache.downloads}/${sha256(checksum.hex).slice(0, 12)}-${name}`;
    await download(effects, url, to, checksum, goesOn);
    return { value: imageAt(effects, to), said: `image ${name}, ${checksum.algorithm} as published` };
  });
}

async function checksumFor(effects: Effects, url: string, fragment: string | undefined): Promise<Checksum> {
  if (fragment === undefined) return effects.dry ? { algorithm: 'sha256', hex: '' } : publishedChecksum(url);
  const given = parseChecksum(fragment);
  if (!given) throw new VmError(`'${fragment}' is no checksum: write #sha512:HEX or #sha256:HEX`);
  return given;
}

function imageAt(effects: Effects, path: string): Image {
  if (!effects.dry && !statSync(path, { throwIfNoEntry: false })?.isFile())
    throw new VmError(`there is no image ${path}`);
  return {
    dir: path,
    disk: path,
    format: !effects.dry && magicOf(path) === QCOW2_MAGIC ? 'qcow2' : 'raw',
    kernel: null,
    initrd: null,
    seed: 'cloud-init',
  };
}

function magicOf(path: string): string {
  const bytes = Buffer.alloc(4);
  const fd = openSync(path, 'r');
  readSync(fd, bytes, 0, 4, 0);
  closeSync(fd);
  return bytes.toString('latin1');
}
