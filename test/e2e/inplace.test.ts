/** `gate up --in-place`: a view over the repository itself. What it promises, what it refuses, and what a crash leaves. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { afterEach, beforeEach, type TestContext, test } from 'node:test';
import { processId } from '../../src/base/process.ts';
import { projectDir } from '../../src/base/version.ts';
import { mountAt } from '../../src/cli/mounts.ts';
import { lookBelow } from '../../src/mount/below.ts';
import { eventually, makeRig, type Rig, type Running, type Up } from './cli-rig.ts';

let rig: Rig;
beforeEach(() => {
  rig = makeRig();
  fs.mkdirSync(`${rig.repo}/sub`);
  fs.writeFileSync(`${rig.repo}/sub/b.txt`, 'two\n');
  fs.writeFileSync(`${rig.repo}/.gitignore`, '*.o\n');
  fs.linkSync(`${rig.repo}/a.txt`, `${rig.repo}/sub/linked.txt`);
  fs.symlinkSync('a.txt', `${rig.repo}/symlink`);
});
afterEach(() => rig.close());

const isView = () => mountAt(rig.repo)?.type === 'fuse.gate';
const running = (pid: number) => processId(pid) !== undefined;
const gone = (...pids: number[]) => eventually('they are gone', () => !pids.some(running));
const kill = (...pids: number[]) => {
  for (const pid of pids) process.kill(pid, 'SIGKILL');
  return gone(...pids);
};

/** Everything but the access time, of everything in the tree below. Only for when no view is over it. */
function snapshot(): string[] {
  assert.ok(!isView());
  const names = ['.', ...(fs.readdirSync(rig.repo, { recursive: true }) as string[])].sort();
  return names.map((name) => {
    const path = `${rig.repo}/${name}`;
    const s = fs.lstatSync(path, { bigint: true });
    const content = s.isFile()
      ? fs.readFileSync(path, 'hex')
      : s.isSymbolicLink()
        ? fs.readlinkSync(path)
        : '';
    return [name, s.dev, s.ino, s.mode, s.nlink, s.uid, s.gid, s.size, s.mtimeNs, s.ctimeNs, content].join(
      ' ',
    );
  });
}

function readable(): boolean {
  try {
    return fs.readFileSync(`${rig.repo}/a.txt`, 'utf8') === 'one\n';
  } catch {
    return false;
  }
}

/** A process that works in the repository until the test ends. */
function worker(how: 'cwd' | 'fd' | 'map'): Running {
  const path = `${rig.repo}/a.txt`;
  if (how === 'cwd') return rig.start('sleep', ['60'], { cwd: rig.repo });
  if (how === 'fd') return rig.start('sh', ['-c', `exec 3<'${path}'; echo on; sleep 60`]);
  // A program is mapped, and no descriptor of it is open.
  fs.copyFileSync('/bin/sleep', `${rig.repo}/program`, fs.constants.COPYFILE_EXCL);
  fs.chmodSync(`${rig.repo}/program`, 0o755);
  return rig.start(`${rig.repo}/program`, ['60']);
}

async function started(how: 'cwd' | 'fd' | 'map'): Promise<Running> {
  const process = worker(how);
  await eventually('it works there', () =>
    how === 'fd'
      ? process.text().includes('on')
      : fs.readlinkSync(`/proc/${process.pid}/${how === 'cwd' ? 'cwd' : 'exe'}`).startsWith(rig.repo),
  );
  return process;
}

test('the view is at the same path, and down uncovers what it showed, byte for byte', async () => {
  const before = snapshot();
  const up = await rig.up('--in-place');
  assert.deepEqual([up.root, up.mount], [rig.repo, rig.repo]);
  assert.ok(isView());
  assert.equal(fs.readFileSync(`${rig.repo}/.gate/who`, 'utf8').length > 0, true);
  assert.deepEqual(await rig.up('--in-place'), up, 'a second up changes nothing');
  await kill(up.pids.mount);
  await eventually('it is back', readable);
  const down = await rig.gate('down');
  assert.equal(down.status, 0, down.stderr);
  assert.deepEqual(snapshot(), before, 'neither up, nor a crash, nor down touches the tree');

  await rig.up('--in-place');
  fs.writeFileSync(`${rig.repo}/new.txt`, 'new\n');
  fs.appendFileSync(`${rig.repo}/sub/b.txt`, 'three\n');
  fs.renameSync(`${rig.repo}/a.txt`, `${rig.repo}/c.txt`);
  const shown = fs.readdirSync(rig.repo, { recursive: true }).sort();
  assert.equal((await rig.gateIn(`${rig.repo}/sub`, 'down')).status, 0);
  assert.ok(!isView());
  assert.deepEqual(fs.readdirSync(rig.repo, { recursive: true }).sort(), shown);
  assert.equal(fs.readFileSync(`${rig.repo}/new.txt`, 'utf8'), 'new\n');
  assert.equal(fs.readFileSync(`${rig.repo}/sub/b.txt`, 'utf8'), 'two\nthree\n');
  assert.equal(fs.readFileSync(`${rig.repo}/sub/linked.txt`, 'utf8'), 'one\n');
});

test('its files are locked, by the name that everybody uses', async () => {
  const up = await rig.up('--in-place');
  const path = `${rig.repo}/a.txt`;
  const writer = rig.start('sh', ['-c', `exec 3>>'${path}'; echo on; sleep 60`], {
    env: { GATE_ACTOR: 'w' },
  });
  await eventually('it has it open', () => writer.text().includes('on'));
  const { holds } = JSON.parse((await rig.gateIn(rig.repo, 'who', 'a.txt', '--json')).stdout) as {
    holds: { owner: string }[];
  };
  assert.match(holds[0]!.owner, /\/w$/);
  assert.equal((await rig.gate('hold', path, '--wait', '100', '--', 'true')).status, 75);
  const http = await rig.start('curl', [
    ...['-s', '--unix-socket', up.broker.socket, 'http://localhost/v1/locks/acquire'],
    ...['-d', JSON.stringify({ path, mode: 'read', owner: 'me', timeout_ms: 100 })],
  ]).outcome;
  assert.match(http.stdout, /"timeout"/);
  const down = await rig.gate('down');
  assert.match(down.stderr, new RegExp(`in use by sh \\(pid ${writer.pid}\\), sleep \\(pid \\d+\\);`));
  assert.equal(down.status, 0);
  assert.ok(!isView());
});

for (const how of ['cwd', 'fd', 'map'] as const)
  test(`who works in the tree from before (${how}) is named, and in the way without --force`, async () => {
    const other = await started(how);
    const what = { cwd: 'working directory', fd: 'open file', map: 'mapped file' }[how];
    const refused = await rig.gate('up', '--in-place', rig.repo);
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, new RegExp(`\\(pid ${other.pid}\\): its ${what} is ${rig.repo}`));
    assert.match(refused.stderr, /--force/);
    assert.ok(!isView());
    const forced = await rig.gate('up', '--in-place', '--force', rig.repo);
    assert.equal(forced.status, 0, forced.stderr);
    const says = new RegExp(`\\(pid ${other.pid}\\) bypasses Gate: its ${what} is ${rig.repo}`);
    assert.match(forced.stderr, says);
    assert.match((await rig.gate('status')).stdout, says);
    assert.match((await rig.gate('doctor')).stdout, says);
    const inside = rig.start('sleep', ['60'], { cwd: rig.repo });
    await eventually('it stands in the view', () => fs.readlinkSync(`/proc/${inside.pid}/cwd`) === rig.repo);
    assert.doesNotMatch((await rig.gate('status')).stdout, new RegExp(`pid ${inside.pid}\\) bypasses`));
  });

test('other mount namespaces and other mounts of the tree are seen, and told', async () => {
  const script = `cd '${rig.repo}'; echo on; exec sleep 60`;
  const there = rig.start('unshare', ['-m', '--propagation', 'private', 'sh', '-c', script]);
  await eventually('it stands there', () => there.text().includes('on'));
  const refused = await rig.gate('up', '--in-place', rig.repo);
  assert.match(refused.stderr, new RegExp(`\\(pid ${there.pid}\\): its working directory is ${rig.repo}`));
  fs.mkdirSync(`${rig.dir}/again`);
  assert.equal((await rig.start('mount', ['--bind', rig.repo, `${rig.dir}/again`]).outcome).status, 0);
  try {
    assert.equal((await rig.gate('up', '--in-place', '--force', rig.repo)).status, 0);
    const { stdout } = await rig.gate('status');
    assert.match(stdout, new RegExp(`\\(pid ${there.pid}\\) bypasses Gate`));
    assert.match(stdout, new RegExp(`also to be had, beside its view, at ${rig.dir}/again\n`));
    assert.match(
      stdout,
      new RegExp(`beside its view, at ${rig.repo} in the mount namespace of .*\\(pid ${there.pid}\\)`),
    );
  } finally {
    await rig.start('umount', [`${rig.dir}/again`]).outcome;
  }
});

test('the shell in which one stands is no reason to refuse; it is told what to do', async () => {
  const script = `'${projectDir}/gate' up --in-place; echo "status $?"; cat a.txt; cd "$PWD"; '${projectDir}/gate' status`;
  const shell = await rig.start('bash', ['-c', script], { cwd: rig.repo }).outcome;
  assert.match(shell.stdout, /status 0\none\n/);
  assert.match(
    shell.stderr,
    /bash \(pid \d+\), where this was started, stands beneath the view: say {2}cd "\$PWD"/,
  );
  assert.doesNotMatch(shell.stdout, /bypasses/, 'after cd it does not any more');
});

test('run starts its command in the view, although the shell stands beneath it', async () => {
  const script = `'${projectDir}/gate' up --in-place && '${projectDir}/gate' run -- stat -c %d . && stat -c %d .`;
  const shell = await rig.start('bash', ['-c', script], { cwd: rig.repo }).outcome;
  const [, inRun, inShell] = shell.stdout.trim().split('\n');
  assert.notEqual(inRun, inShell);
  assert.equal(Number(inRun), fs.statSync(rig.repo).dev);
});

test('there is one view of a repository, in place or not', async () => {
  const up = await rig.up('--in-place');
  const again = await rig.gate('up', rig.repo);
  assert.equal(again.stdout, `${rig.repo}\n`);
  assert.match(again.stderr, /in place/);
  const cases: [string[], number, RegExp][] = [
    [
      ['up', rig.repo, '--mount', `${rig.dir}/view`],
      1,
      /already mounted, as 'repo' at .*repo[\s\S]*gate down repo/,
    ],
    [['up', `${rig.repo}/sub`, '--in-place'], 1, /lies inside the view/],
    [['up', rig.repo, '--in-place', '--mount', rig.repo], 2, /goes with no --mount/],
    [['up', rig.repo, '--in-place', '--state-dir', `${rig.dir}/other`], 1, /is a view already/],
    [['mount', '--root', rig.repo, '--in-place'], 1, /lies inside the view/],
  ];
  for (const [args, status, says] of cases) {
    const outcome = await rig.gate(...args);
    assert.match(outcome.stderr, says);
    assert.equal(outcome.status, status, args.join(' '));
  }
  assert.deepEqual(await rig.up(), up);
  assert.equal((await rig.gate('down')).status, 0);

  await rig.up('--mount', `${rig.dir}/view`);
  const beside = await rig.gate('up', '--in-place', rig.repo);
  assert.equal(beside.status, 1);
  assert.match(beside.stderr, /already mounted, as 'repo' at .*view[\s\S]*gate down repo/);
});

test('refused: a repository from which Gate itself runs, and its own path as --mount', async () => {
  const own = await rig.gate('up', '--in-place', projectDir);
  assert.equal(own.status, 1);
  assert.match(own.stderr, /Gate itself lies in/);
  const same = await rig.gate('up', rig.repo, '--mount', rig.repo);
  assert.equal(same.status, 1);
  assert.match(same.stderr, /--in-place/);
});

/** Looks at the repository all the time; what it saw: devices, or errors. */
function lookout(t: TestContext): { seen: () => Promise<Set<string>> } {
  const script = `
    const fs = require('node:fs'), seen = new Set();
    process.on('SIGTERM', () => { console.log(JSON.stringify([...seen])); process.exit(0); });
    const look = () => { for (let i = 0; i < 50; i++) try { seen.add(String(fs.statSync(process.argv[1]).dev)); } catch (error) { seen.add(error.code); }
      setImmediate(look); };
    look(); console.error('on');`;
  const child = spawn(process.execPath, ['-e', script, rig.repo], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: '/',
  });
  t.after(() => child.kill('SIGKILL'));
  let out = '';
  child.stdout.on('data', (part: Buffer) => (out += part));
  const on = new Promise((done) => child.stderr.once('data', done));
  const over = new Promise((done) => child.once('close', done));
  return {
    async seen() {
      await on;
      child.kill('SIGTERM');
      await over;
      return new Set(JSON.parse(out) as string[]);
    },
  };
}

/** Root on Linux 6.5 and later puts the new view beneath the dead one; elsewhere the tree below is seen for a moment. */
function assertNeverUncovered(seen: Set<string>, below: number): void {
  const [major = 0, minor = 0] = fs.readFileSync('/proc/sys/kernel/osrelease', 'utf8').split('.').map(Number);
  if (process.getuid?.() === 0 && (major > 6 || (major === 6 && minor >= 5)))
    assert.ok(!seen.has(String(below)), `the tree below was seen: ${[...seen].join(', ')}`);
}

test('a killed mount comes back by itself, and the tree below is never seen meanwhile', async (t) => {
  const below = fs.statSync(rig.repo).dev;
  const up = await rig.up('--in-place');
  const look = lookout(t);
  await kill(up.pids.mount);
  await eventually('it is back', readable);
  // The one that came back has the root from the supervisor's hands; the next one has it from there, too.
  const { pids } = await rig.up('--in-place');
  await kill(pids.mount);
  await eventually('it is back again', readable);
  assertNeverUncovered(await look.seen(), below);
  const mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  assert.equal(mounts.filter((line) => line.includes(` ${rig.repo} `)).length, 1, 'nothing is stacked');
});

test('a killed supervisor: the next one keeps the view, and brings it back', async () => {
  const up = await rig.up('--in-place');
  await kill(up.pids.supervisor);
  assert.ok(readable());
  const adopted = await rig.up('--in-place');
  assert.equal(adopted.pids.mount, up.pids.mount);
  await kill(up.pids.mount);
  await eventually('it is back', readable);
});

const all = ({ pids }: Up) => [pids.supervisor, pids.broker, pids.mount];

test('everything killed: nobody gets in or past it; up, doctor and down each mend it', async (t) => {
  const before = snapshot();
  const below = fs.statSync(rig.repo).dev;
  const up = await rig.up('--in-place');
  const look = lookout(t);
  await kill(...all(up));
  // ECONNABORTED: the request was sent, and its connection ended.
  assert.throws(() => fs.writeFileSync(`${rig.repo}/lost.txt`, ''), { code: /^(?:ENOTCONN|ECONNABORTED)$/ });
  assert.equal((await rig.gate('status')).status, 1);
  const again = await rig.up('--in-place');
  assert.ok(readable());

  await kill(...all(again));
  const looked = await rig.gate('doctor', '--no-repair');
  // Tests beside this one may have dead views, too.
  assert.match(looked.stdout, new RegExp(`nobody serves .*${rig.repo}`));
  const doctor = await rig.gate('doctor');
  assert.match(doctor.stdout, /repaired the view repo/);
  assert.ok(readable());
  assertNeverUncovered(await look.seen(), below);

  // The shell stands in the dead view.
  await kill(...all(await rig.up('--in-place')));
  const here = await rig.gateIn(rig.dir, 'up', './repo');
  assert.equal(here.status, 0, here.stderr);
  await kill(...all(await rig.up('--in-place')));
  const down = await rig.gate('down');
  assert.equal(down.status, 0, down.stderr);
  assert.deepEqual(snapshot(), before);
});

test('up --all brings it back where it was, also when nothing is left of it', async () => {
  const up = await rig.up('--in-place');
  await kill(...all(up));
  const unmounted = await rig.start('umount', ['-l', rig.repo]).outcome;
  assert.equal(unmounted.status, 0, unmounted.stderr);
  const back = await rig.gate('up', '--all');
  assert.equal(back.status, 0, back.stderr);
  assert.ok(isView());
});

test('a repository that is a mount point itself stays one', async () => {
  const mount = await rig.start('mount', ['--bind', rig.repo, rig.repo]).outcome;
  assert.equal(mount.status, 0, mount.stderr);
  try {
    const up = await rig.up('--in-place');
    await kill(...all(up));
    await rig.up('--in-place');
    assert.ok(readable());
    assert.equal((await rig.gate('down')).status, 0);
    assert.equal(mountAt(rig.repo)?.type === 'fuse.gate', false);
    assert.notEqual(mountAt(rig.repo), undefined);
  } finally {
    await rig.gate('down', '--all');
    await rig.start('umount', [rig.repo]).outcome;
  }
});

test('a root that was exchanged while the view was dead is not mounted by itself', async () => {
  const up = await rig.up('--in-place');
  await kill(up.pids.supervisor);
  await kill(up.pids.mount);
  await rig.start('umount', ['-l', rig.repo]).outcome;
  fs.renameSync(rig.repo, `${rig.dir}/moved`);
  fs.mkdirSync(rig.repo);
  const record = JSON.parse(fs.readFileSync(`${rig.state}/views/repo.json`, 'utf8')) as {
    below: { id: string };
  };
  const args = ['mount', '--root', rig.repo, '--in-place', '--replace', '--root-id', record.below.id];
  const mount = await rig.gate(...args, '--socket', up.broker.socket);
  assert.equal(mount.status, 1);
  assert.match(mount.stderr, /is not the directory that it was/);
  assert.equal(
    (await rig.gate('up', '--in-place', rig.repo)).status,
    0,
    'who asks for it means what is there now',
  );
});

/** The mount's log says it, once nobody works beneath the view. */
async function alone(t: TestContext): Promise<boolean> {
  const { open } = lookBelow(rig.repo, true);
  if (open.length > 0) t.skip(`the tree is to be had elsewhere: ${open.join(', ')}`);
  else
    await eventually('nobody is beneath', () =>
      fs.readFileSync(`${rig.state}/logs/repo/mount.log`, 'utf8').includes('nobody works beneath'),
    );
  return open.length === 0;
}

test('names and attributes are remembered for long only once nobody is left beneath', async (t) => {
  const shell = await started('cwd');
  assert.equal((await rig.gate('up', '--in-place', '--force', rig.repo)).status, 0);
  fs.writeFileSync(`/proc/${shell.pid}/cwd/a.txt`, 'changed beneath\n');
  await eventually('it shows', () => fs.readFileSync(`${rig.repo}/a.txt`, 'utf8') === 'changed beneath\n');
  assert.doesNotMatch(fs.readFileSync(`${rig.state}/logs/repo/mount.log`, 'utf8'), /nobody works beneath/);
  shell.kill('SIGKILL');
  await shell.outcome;
  if (!(await alone(t))) return;
  // What is changed through the view is right at once all the same.
  const [path, other] = [`${rig.repo}/a.txt`, `${rig.repo}/sub/linked.txt`];
  assert.equal(fs.statSync(other).nlink, 2);
  fs.appendFileSync(path, 'more');
  assert.equal(fs.statSync(other).size, fs.statSync(path).size);
  fs.linkSync(path, `${rig.repo}/third`);
  assert.equal(fs.statSync(other).nlink, 3);
  fs.chmodSync(`${rig.repo}/third`, 0o600);
  assert.equal(fs.statSync(other).mode & 0o777, 0o600);
  fs.renameSync(`${rig.repo}/sub/b.txt`, `${rig.repo}/third`);
  fs.unlinkSync(path);
  assert.equal(fs.statSync(other).nlink, 1);
  assert.ok(!fs.existsSync(path));
  fs.writeFileSync(path, 'again');
  assert.equal(fs.readFileSync(path, 'utf8'), 'again');
  const mapping = `import mmap,os
f = open('${path}', 'r+b'); os.stat('${path}'); m = mmap.mmap(f.fileno(), 0); before = os.stat('${path}').st_mtime_ns
m[0:1] = b'X'; m.flush(); print(os.stat('${path}').st_mtime_ns > before)`;
  assert.equal((await rig.start('python3', ['-c', mapping]).outcome).stdout, 'True\n');
});
