import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { difference, makeBundle, packBundle, sha256 } from './bundle.ts';
import { Effects } from './effects.ts';
import { cacheFiles } from './names.ts';

const dir = mkdtempSync('/var/tmp/gate-bundle-');
after(() => rmSync(dir, { recursive: true, force: true }));
const effects = new Effects({ clock: systemClock });
const bundle = await makeBundle(effects, cacheFiles(`${dir}/cache`));

test('a bundle runs alone, through a link, with no environment', () => {
  const command = join(dir, 'gate');
  symlinkSync(`${bundle.dir}/gate`, command);
  const run = (...args: string[]) =>
    execFileSync(command, args, { env: { PATH: '/usr/bin:/bin' }, encoding: 'utf8' });
  assert.match(run('version'), new RegExp(`gate ${bundle.version.split('+')[0]} `));
  // Each loads another part: native code, HTTP, the database.
  for (const name of ['broker', 'mount', 'up', 'doctor']) assert.match(run(name, '--help'), /Usage/);
  assert.equal(readFileSync(`${bundle.dir}/VERSION`, 'utf8').trim(), bundle.version);
});

test('it has no tests, no development packages and only this platform', () => {
  const names = readFileSync(`${bundle.dir}/MANIFEST`, 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[2] ?? '');
  const wrong = names.filter((name) =>
    /\.test\.ts$|\/typescript\/|biome|musl_|\.map$|node-linux-(?!x64\/|arm64\/)/.test(name),
  );
  assert.deepEqual(wrong, []);
  assert.ok(names.includes('systems/gate_vm/units/gate-mount.service'));
});

test('the same content is made once, and packed to the same bytes', async () => {
  assert.deepEqual(await makeBundle(effects, cacheFiles(`${dir}/cache`)), bundle);
  const small = { version: '1+aa', dir: join(dir, '1+aa') };
  mkdirSync(`${small.dir}/sub`, { recursive: true });
  for (const name of ['b', 'a', 'sub/c']) writeFileSync(`${small.dir}/${name}`, name);
  const hash = async (name: string) =>
    sha256(readFileSync(await packBundle(effects, small, join(dir, name))));
  const first = await hash('one.tar.gz');
  utimesSync(`${small.dir}/a`, 1, 1);
  assert.equal(await hash('two.tar.gz'), first);
});

test('only what differs is sent, and what is too much is dropped', () => {
  const ours = 'aa 644 a\nbb 755 b b\ncc 644 c\n';
  assert.deepEqual(difference(ours, ours), { send: [], drop: [] });
  assert.deepEqual(difference(ours, ''), { send: ['a', 'b b', 'c'], drop: [] });
  assert.deepEqual(difference(ours, 'aa 644 a\nbb 644 b b\nee 644 old\n'), {
    send: ['b b', 'c'],
    drop: ['old'],
  });
});
