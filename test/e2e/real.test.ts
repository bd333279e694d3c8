/** Real tools at real work: in the view they end with the tree that they end with natively. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Gate, startGate } from './harness.ts';

const FILES = 1000;
const TSC = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url));

/** The same commits everywhere. */
const ENV = {
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'a',
  GIT_AUTHOR_EMAIL: 'a@example.org',
  GIT_COMMITTER_NAME: 'a',
  GIT_COMMITTER_EMAIL: 'a@example.org',
  GIT_AUTHOR_DATE: '2020-01-01T00:00:00Z',
  GIT_COMMITTER_DATE: '2020-01-01T00:00:00Z',
  npm_config_cache: '/nonexistent',
  npm_config_update_notifier: 'false',
};

/** A repository with history, branches, links, executables and odd names, and what else the work needs. */
function makeSource(dir: string): void {
  const repo = join(dir, 'repo');
  const at = (name: string | Buffer) => Buffer.concat([Buffer.from(`${repo}/`), Buffer.from(name)]);
  fs.mkdirSync(repo, { recursive: true });
  for (let i = 0; i < FILES; i++) {
    const folder = `src/part-${i % 25}/inner-${i % 4}`;
    fs.mkdirSync(at(folder), { recursive: true });
    fs.writeFileSync(
      at(`${folder}/file-${i}.ts`),
      `// needle-${i % 100}\nexport const n${i} = ${i};\n`.repeat(1 + (i % 30)),
    );
  }
  const deep = Array.from({ length: 30 }, (_, i) => `level-${i}`).join('/');
  fs.mkdirSync(at(deep), { recursive: true });
  fs.writeFileSync(at(`${deep}/deep.txt`), 'deep\n');
  const odd = [
    'with\nnewline',
    Buffer.from([0x62, 0xff, 0xfe]),
    'l'.repeat(255),
    ' spaced ',
    '-dash',
    'ü',
    'quote"\'\\',
  ];
  for (const name of odd) fs.writeFileSync(at(name), 'odd\n');
  fs.writeFileSync(at('run.sh'), '#!/bin/sh\necho ran\n', { mode: 0o755 });
  fs.writeFileSync(at('binary'), Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i) & 255)));
  fs.symlinkSync('src/part-1', at('link'));
  fs.symlinkSync('nowhere', at('dangling'));
  for (const [i, name] of fs.readdirSync(repo, { encoding: 'buffer' }).entries())
    fs.lutimesSync(at(name), 1_500_000_000.123 + i, 1_400_000_000.987 + i);
}

const HISTORY = `
cd repo; git init -q -b main .; git add -A; git commit -qm one
git checkout -qb feature; sed -i s/export/EXPORT/ src/part-1*/*/*.ts; git mv run.sh moved.sh; rm -r src/part-7; ln -sfn src/part-2 link
git add -A; git commit -qm two; git checkout -q main; echo more >> src/part-3/inner-3/file-3.ts; git commit -qam three
mkdir -p ../plain ../app; cp -a src run.sh link dangling binary ../plain/; ln ../plain/binary ../plain/hard; chmod 750 ../plain/src/part-1
cd ../app; mkdir dep; echo '{"name":"dep","version":"1.0.0","bin":{"dep":"cli.js"}}' > dep/package.json; printf '#!/usr/bin/env node\\nconsole.log("dep ran")\\n' > dep/cli.js
(cd dep; npm pack --silent >/dev/null; mv dep-1.0.0.tgz ..); rm -r dep
echo '{"name":"app","version":"1.0.0","type":"module","dependencies":{"dep":"file:dep-1.0.0.tgz"}}' > package.json
npm install --silent --offline --package-lock-only >/dev/null; rm -rf node_modules
mkdir src; for i in $(seq 40); do echo "export const v$i: number = $i;" > src/m$i.ts; done
(for i in $(seq 40); do echo "import { v$i } from './m$i.js';"; done; echo "console.log(v1 + v40);") > src/main.ts
echo '{"compilerOptions":{"module":"nodenext","target":"es2022","rootDir":"src","outDir":"out","declaration":true,"types":[]},"include":["src"]}' > tsconfig.json
`;

/** Carried out in an empty directory, natively and in the view; what it prints is compared too. */
const WORK = `
git clone -q "$SOURCE/repo" clone; cd clone
git status --porcelain; git checkout -q feature; git status --porcelain; ls | wc -l; test ! -e src/part-7; readlink link; ./moved.sh
git checkout -q main; ./run.sh; git merge -q -m merged feature; git log --format=%H | head -3
for i in 1 2 3 4 5; do echo "line $i" >> src/part-1/inner-1/file-1.ts; git commit -qam "change $i"; done
git stash list; echo dirty > binary; git stash -q; git stash pop -q; git checkout -q -- binary; git reset -q --hard HEAD~2
git rebase -q --onto main~1 main~1 main; git gc -q; git fsck --strict 2>&1; git status --porcelain; git rev-parse HEAD; git worktree add -q ../other feature; git -C ../other status --porcelain; git worktree remove ../other
cd ..
tar -C "$SOURCE" -cf - plain repo | tar -xpf -; mkdir untar; tar -C plain -cf - . | tar -C untar -xpf -
tar -C plain --sort=name --numeric-owner -cf - . | sha256sum
rsync -aHAX "$SOURCE/plain/" rsynced/; rsync -aHAX "$SOURCE/plain/" rsynced/; rsync -aHAXin --checksum "$SOURCE/plain/" rsynced/
cp -a plain copied; diff -r --no-dereference plain copied; du --apparent-size -s plain | cut -f1
grep -r needle-7 plain/src | sort | sha256sum; grep -rc EXPORT clone/src | sort | sha256sum; find plain -type f -perm -100 | sort
if command -v rg >/dev/null; then rg --no-ignore -c needle-42 plain/src | sort | sha256sum; fi
printf 'one\\ntwo\\n' > edited; chmod 640 edited; ln edited edited-too
vim -Nu NONE -es -c 'set backupcopy=yes' -c '1s/one/ONE/' -c 'wq' edited </dev/null; stat -c '%h %a' edited; cat edited-too
vim -Nu NONE -es -c 'set backupcopy=no' -c '2s/two/TWO/' -c 'wq' edited </dev/null; stat -c '%h %a' edited; cat edited edited-too
sed -i s/ONE/sed/ edited; perl -pi -e s/TWO/perl/ edited; cat edited; ls -A | sort
node -e 'const fs=require("fs"); for (let i=0;i<50;i++){ const fd=fs.openSync("saved",i?"r+":"w"); fs.ftruncateSync(fd); fs.writeSync(fd,"save "+i+"\\n",0); fs.fsyncSync(fd); fs.closeSync(fd);
 fs.writeFileSync("saved2.tmp-"+i,"atomic "+i+"\\n"); fs.renameSync("saved2.tmp-"+i,"saved2"); }'; cat saved saved2
cp -r "$SOURCE/app" app; cd app; npm ci --silent --offline --no-audit --no-fund; node_modules/.bin/dep; node "$TSC" -p .; node out/main.js; ls out | wc -l
`;

/** A line for each thing below `dir`. Times only of what was unpacked or copied with its time. */
function snapshot(dir: string): string[] {
  const lines: string[] = [];
  const walk = (path: Buffer, shown: string) => {
    for (const name of fs.readdirSync(path, { encoding: 'buffer' })) {
      // What the view keeps, and hides.
      if (shown === '' && name.toString() === '.gate') continue;
      const full = Buffer.concat([path, Buffer.from('/'), name]);
      const label = `${shown}/${name.toString('latin1')}`;
      const stat = fs.lstatSync(full, { bigint: true });
      const timed = /^\/(?:plain|repo|untar|rsynced|copied)(?:\/|$)/.test(label) && !label.includes('/.git');
      const content = stat.isSymbolicLink()
        ? fs.readlinkSync(full, 'latin1')
        : stat.isFile()
          ? createHash('sha1').update(fs.readFileSync(full)).digest('hex')
          : '';
      const size = stat.isDirectory() ? 0n : stat.size;
      lines.push(
        [label, stat.mode.toString(8), stat.nlink, size, content, timed ? stat.mtimeNs : ''].join(' '),
      );
      // What git writes into its own folder carries times and inode numbers.
      if (stat.isDirectory() && name.toString() !== '.git') walk(full, label);
    }
  };
  walk(Buffer.from(dir), '');
  return lines.sort();
}

async function work(gate: Gate, dir: string, source: string): Promise<{ out: string; tree: string[] }> {
  const env = { ...ENV, SOURCE: source, TSC, PATH: process.env.PATH! };
  const done = await gate.sh(`set -e; exec 2>&1; ${WORK}`, { cwd: dir, env }).done;
  assert.equal(done.status, 0, `in ${dir}:\n${done.out.slice(-4000)}`);
  return { out: done.out, tree: snapshot(dir) };
}

function same(found: string[], expected: string[]): void {
  const [a, b] = [new Set(found), new Set(expected)];
  const only = (lines: string[], other: Set<string>) => lines.filter((line) => !other.has(line)).slice(0, 20);
  assert.deepEqual(only(found, b), only(expected, a));
}

async function prepared(t: TestContext, gate: Gate): Promise<{ source: string; native: string }> {
  const source = join(gate.dir, 'source');
  const native = join(gate.dir, 'native');
  makeSource(source);
  fs.mkdirSync(native);
  const done = await gate.sh(`set -e; ${HISTORY}`, { cwd: source, env: ENV }).done;
  assert.equal(done.status, 0, done.err);
  t.diagnostic(`${FILES} files`);
  return { source, native };
}

for (const passthrough of [true, false]) {
  const mode = passthrough ? 'passthrough' : 'through the view';
  test(`${mode}: git, tar, rsync, grep, editors, npm and tsc end with the same tree as natively`, {
    timeout: 120_000,
  }, async (t) => {
    const gate = await startGate(t, { passthrough });
    const { source, native } = await prepared(t, gate);
    const expected = await work(gate, native, source);
    const began = process.hrtime.bigint();
    const found = await work(gate, gate.mount, source);
    t.diagnostic(`in the view: ${Number((process.hrtime.bigint() - began) / 1_000_000n)} ms`);
    assert.equal(found.out, expected.out);
    same(found.tree, expected.tree);
    same(snapshot(gate.root), expected.tree);
    await gate.idle();
  });
}
