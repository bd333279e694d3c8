import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { baseImage } from './bases.ts';
import { checksumIn, download, parseChecksum, publishedChecksum } from './download.ts';
import { Effects } from './effects.ts';
import { VmError } from './errors.ts';
import { Journal } from './events.ts';
import { cacheFiles } from './names.ts';
import { userData } from './nocloud.ts';

const dir = mkdtempSync('/var/tmp/gate-download-');
const effects = new Effects({ clock: systemClock });
const journal = new Journal(effects, () => {});
/** An image as a vendor's: a qcow2 by its first bytes. */
const image = Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), Buffer.alloc(300_000, 7)]);
const sha512 = createHash('sha512').update(image).digest('hex');
const requests: IncomingMessage['headers'][] = [];
/** After how many bytes the server drops the connection; the tag of its file. */
let dropAfter = Number.POSITIVE_INFINITY;
let tag = '"one"';
let base = '';

const server = createServer((request, response) => {
  const path = request.url ?? '';
  if (path === '/good/SHA512SUMS')
    return response.end(`${'0'.repeat(128)} *other.img\n${sha512} *disk.img\n`);
  if (path === '/old/SHA256SUMS')
    return response.end(`${createHash('sha256').update(image).digest('hex')}  disk.img\n`);
  if (path === '/bad/SHA512SUMS') return response.end(`${'0'.repeat(128)}  disk.img\n`);
  if (!path.endsWith('/disk.img')) return response.writeHead(404).end();
  requests.push(request.headers);
  const range = /bytes=(\d+)-/.exec(request.headers.range ?? '');
  const start = range && request.headers['if-range'] === tag ? Number(range[1]) : 0;
  const body = image.subarray(start);
  response.writeHead(start > 0 ? 206 : 200, {
    ETag: tag,
    'Content-Length': body.length,
    ...(start > 0 && { 'Content-Range': `bytes ${start}-${image.length - 1}/${image.length}` }),
  });
  if (dropAfter >= body.length) return response.end(body);
  response.write(body.subarray(0, dropAfter), () => setTimeout(() => response.destroy(), 50));
});

before(async () => {
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => {
  server.close();
  rmSync(dir, { recursive: true, force: true });
});

const good = { algorithm: 'sha512', hex: sha512 } as const;

test('a download that broke off goes on where it stopped, and is verified whole', async () => {
  const to = join(dir, 'resumed');
  dropAfter = 100_000;
  await assert.rejects(
    download(effects, `${base}/good/disk.img`, to, good, () => {}),
    /broke off after \d+/,
  );
  assert.ok(existsSync(`${to}.part`) && !existsSync(to));
  dropAfter = Number.POSITIVE_INFINITY;
  requests.length = 0;
  await download(effects, `${base}/good/disk.img`, to, good, () => {});
  assert.match(requests[0]?.range ?? '', /^bytes=[1-9]\d*-$/);
  assert.ok(readFileSync(to).equals(image));
  assert.ok(!existsSync(`${to}.part`) && !existsSync(`${to}.part.tag`));
  // Once there, nobody is asked again.
  requests.length = 0;
  await download(effects, `${base}/good/disk.img`, to, good, () => {});
  assert.equal(requests.length, 0);
});

test('when the file changed meanwhile, it is fetched from its start', async () => {
  const to = join(dir, 'changed');
  dropAfter = 50_000;
  await assert.rejects(
    download(effects, `${base}/good/disk.img`, to, good, () => {}),
    /broke off/,
  );
  dropAfter = Number.POSITIVE_INFINITY;
  tag = '"two"';
  await download(effects, `${base}/good/disk.img`, to, good, () => {});
  assert.ok(readFileSync(to).equals(image));
});

test('a wrong checksum is told, and nothing of the file stays', async () => {
  const to = join(dir, 'wrong');
  const wrong = { algorithm: 'sha512', hex: '0'.repeat(128) } as const;
  await assert.rejects(
    download(effects, `${base}/good/disk.img`, to, wrong, () => {}),
    (error) => error instanceof VmError && /wrong checksum: it was removed/.test(error.message),
  );
  assert.deepEqual(
    readdirSync(dir).filter((name) => name.startsWith('wrong')),
    [],
  );
});

test("a vendor's list of checksums is used, whichever there is; none, and a wrong one, are refused", async () => {
  assert.equal((await publishedChecksum(`${base}/good/disk.img`)).hex, sha512);
  assert.equal((await publishedChecksum(`${base}/old/disk.img`)).algorithm, 'sha256');
  const cache = cacheFiles(join(dir, 'cache'));
  const from = (imageFrom: string) => baseImage(effects, journal, cache, { base: 'disk.img', imageFrom });
  const got = await from(`${base}/good/disk.img`);
  assert.deepEqual([got.format, got.kernel, got.seed], ['qcow2', null, 'cloud-init']);
  await assert.rejects(from(`${base}/bad/disk.img`), /wrong checksum/);
  await assert.rejects(from(`${base}/none/disk.img`), /there is no checksum/);
  assert.equal((await from(`${base}/none/disk.img#sha512:${sha512}`)).disk, got.disk);
  await assert.rejects(from(`${base}/none/disk.img#md5:abc`), /is no checksum/);
  const file = join(dir, 'own.img');
  writeFileSync(file, 'raw');
  assert.equal((await from(file)).format, 'raw');
  await assert.rejects(from(join(dir, 'missing.img')), /there is no image/);
});

test('checksums in words', () => {
  assert.deepEqual(parseChecksum(`sha512:${'A'.repeat(128)}`), { algorithm: 'sha512', hex: 'a'.repeat(128) });
  assert.equal(parseChecksum(`sha256:${'a'.repeat(128)}`), undefined);
  assert.equal(parseChecksum('abc'), undefined);
  assert.equal(checksumIn(`${'a'.repeat(64)}  some.img\n`, 'other.img'), undefined);
});

test("cloud-init's data is YAML that holds the pinned host key and the keys that are let in", () => {
  const text = userData('gate-vm', ['ssh-ed25519 AAAA'], {
    secret: 'SECRET\nLINE\n',
    open: 'ssh-ed25519 BBBB',
  });
  assert.ok(text.startsWith('#cloud-config\n'));
  const data = JSON.parse(text.slice(text.indexOf('\n'))) as {
    ssh_keys: Record<string, string>;
    users: { name: string; ssh_authorized_keys: string[] }[];
  };
  assert.equal(data.ssh_keys.ed25519_private, 'SECRET\nLINE\n');
  assert.deepEqual(
    data.users.map(({ name, ssh_authorized_keys: keys }) => [name, keys]),
    [
      ['root', ['ssh-ed25519 AAAA']],
      ['gate', ['ssh-ed25519 AAAA']],
    ],
  );
});
