/** The launcher, in a copied clone with a stand-in for npm: what it installs, when, and what it says. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { projectDir } from '../../src/base/version.ts';

let dir: string;
let clone: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'gate-launcher-'));
  chmodSync(dir, 0o755);
});
after(() => rmSync(dir, { recursive: true, force: true }));

/** A fake npm: says how it was called, and links the real packages instead of fetching them. */
const NPM = `#!/bin/sh
echo "$(id -u) $*" >> "$CALLS"
[ -z "$NPM_FAILS" ] || { echo "npm error the registry is away"; exit 1; }
sleep 0.3
rm -rf node_modules && mkdir node_modules
for package in "$REAL"/*; do ln -s "$package" node_modules/; done
`;

beforeEach(() => {
  rmSync(join(dir, 'clone'), { recursive: true, force: true });
  rmSync(join(dir, 'calls'), { force: true });
  clone = join(dir, 'clone');
  mkdirSync(join(dir, 'bin'), { recursive: true });
  mkdirSync(clone);
  for (const name of ['gate', 'src', 'package.json', 'package-lock.json'])
    cpSync(join(projectDir, name), join(clone, name), { recursive: true });
  writeFileSync(join(dir, 'bin/npm'), NPM);
  chmodSync(join(dir, 'bin/npm'), 0o755);
});

function launch(
  file: string,
  env: NodeJS.ProcessEnv = {},
  cwd = dir,
): Promise<{ status: number; stdout: string; stderr: string }> {
  const base: NodeJS.ProcessEnv = {
    PATH: `${dir}/bin:${process.env.PATH}`,
    HOME: dir,
    CALLS: join(dir, 'calls'),
    REAL: join(projectDir, 'node_modules'),
    NODE_COMPILE_CACHE: join(dir, 'cache'),
  };
  return new Promise((resolve) => {
    execFile(file, ['version'], { cwd, env: { ...base, ...env } }, (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }),
    );
  });
}

const calls = () =>
  existsSync(join(dir, 'calls')) ? readFileSync(join(dir, 'calls'), 'utf8').trim().split('\n') : [];

test('the first start installs, and says so; the second does not', async () => {
  const first = await launch(join(clone, 'gate'));
  assert.equal(first.status, 0, first.stderr);
  assert.match(first.stderr, /installing its packages/);
  assert.match(first.stdout, /^gate \d/);
  assert.match(calls()[0]!, /ci --omit=dev --ignore-scripts/);
  const second = await launch(join(clone, 'gate'));
  assert.equal(second.stderr, '');
  assert.equal(calls().length, 1);
});

test('another lock file means another install', async () => {
  await launch(join(clone, 'gate'));
  writeFileSync(
    join(clone, 'package-lock.json'),
    `${readFileSync(join(clone, 'package-lock.json'), 'utf8')}\n`,
  );
  await launch(join(clone, 'gate'));
  assert.equal(calls().length, 2);
});

test('development packages that are there stay', async () => {
  await launch(join(clone, 'gate'), { GATE_INSTALL: 'dev' });
  await launch(join(clone, 'gate'));
  assert.equal(calls().length, 1);
  assert.doesNotMatch(calls()[0]!, /--omit=dev/);
  writeFileSync(
    join(clone, 'package-lock.json'),
    `${readFileSync(join(clone, 'package-lock.json'), 'utf8')}\n`,
  );
  await launch(join(clone, 'gate'));
  assert.doesNotMatch(calls()[1]!, /--omit=dev/);
});

test('two at once install once', async () => {
  const both = await Promise.all([launch(join(clone, 'gate')), launch(join(clone, 'gate'))]);
  assert.deepEqual(
    both.map((one) => one.status),
    [0, 0],
  );
  assert.equal(calls().length, 1);
});

test('through a symlink, from anywhere', async () => {
  symlinkSync(join(clone, 'gate'), join(dir, 'bin/gate-link'));
  const outcome = await launch(join(dir, 'bin/gate-link'), {}, '/');
  rmSync(join(dir, 'bin/gate-link'));
  assert.equal(outcome.status, 0, outcome.stderr);
});

test('an install that fails: the end of what npm said, and no stamp', async () => {
  const outcome = await launch(join(clone, 'gate'), { NPM_FAILS: '1', TMPDIR: dir });
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /installing failed[\s\S]*the registry is away/);
  assert.ok(!existsSync(join(clone, 'node_modules/.gate-stamp')));
});

test('without npm it says how to get it', async () => {
  const bin = join(dir, 'plain');
  mkdirSync(bin, { recursive: true });
  for (const tool of ['sh', 'readlink', 'sha256sum', 'flock', 'id', 'stat', 'uname']) {
    const at = ['/usr/bin', '/bin'].map((top) => join(top, tool)).find((path) => existsSync(path));
    if (at && !existsSync(join(bin, tool))) symlinkSync(at, join(bin, tool));
  }
  const outcome = await launch(join(clone, 'gate'), { PATH: bin });
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /npm is missing[\s\S]*apt-get install nodejs npm/);
});

test('as root in the clone of a user it installs as that user', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root');
  await new Promise<void>((resolve, reject) =>
    execFile('chown', ['-R', '12345:12345', clone], (error) => (error ? reject(error) : resolve())),
  );
  writeFileSync(join(dir, 'calls'), '');
  chmodSync(join(dir, 'calls'), 0o666);
  const outcome = await launch(join(clone, 'gate'));
  assert.equal(outcome.status, 0, outcome.stderr);
  assert.match(calls().at(-1)!, /^12345 ci/);
});

test('an ordinary start is quick', async () => {
  await launch(join(clone, 'gate'));
  await launch(join(clone, 'gate'));
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    await launch(join(clone, 'gate'));
    times.push(performance.now() - start);
  }
  assert.ok(Math.min(...times) < 400, `the quickest of five took ${Math.round(Math.min(...times))} ms`);
});
