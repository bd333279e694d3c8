/** up, down and what lies between them, against real mounts. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { isAlive, processId } from '../../src/base/process.ts';
import { projectDir } from '../../src/base/version.ts';
import { mountAt } from '../../src/cli/mounts.ts';
import { eventually, makeRig, type Rig, type Up } from './cli-rig.ts';

let rig: Rig;
beforeEach(() => {
  rig = makeRig();
});
afterEach(() => rig.close());

const running = (pid: number) => processId(pid) !== undefined;

/** Nothing of it is left: no mount, no process, no socket, no folder that was made for it. */
function assertGone(up: Up): void {
  assert.equal(mountAt(up.mount), undefined, 'a mount');
  for (const [what, pid] of Object.entries(up.pids))
    assert.ok(!running(pid), `the ${what} process ${pid} still runs`);
  assert.ok(!existsSync(up.mount), 'the mount point');
  for (const file of ['broker.sock', 'broker.json', 'supervisor.sock', 'supervisor.json'])
    assert.ok(!existsSync(`${rig.state}/${file}`), file);
  assert.deepEqual(readdirSync(`${rig.state}/views`), []);
}

function viewDir(): string[] {
  return ['--mount', `${rig.dir}/view`];
}

test('up gives a view that works, a second up changes nothing, down leaves nothing', async () => {
  const up = await rig.up(...viewDir());
  assert.equal(up.name, 'repo');
  assert.equal(up.root, rig.repo);
  assert.equal(mountAt(up.mount)?.type, 'fuse.gate');
  assert.equal(readFileSync(`${up.mount}/a.txt`, 'utf8'), 'one\n');
  writeFileSync(`${up.mount}/b.txt`, 'two\n');
  assert.equal(readFileSync(`${rig.repo}/b.txt`, 'utf8'), 'two\n');
  assert.ok(existsSync(up.broker.token_file));
  assert.deepEqual(await rig.up(), up);
  const status = await rig.gate('status', '--json');
  assert.equal(status.status, 0);
  assert.equal((JSON.parse(status.stdout) as { views: { health: string }[] }).views[0]!.health, 'up');
  const down = await rig.gate('down');
  assert.equal(down.status, 0, down.stderr);
  assertGone(up);
  const again = await rig.gate('down');
  assert.equal(again.status, 0);
  assert.match(again.stdout, /nothing is up/);
});

test('up without REPO takes the git work tree one stands in; its steps are told', async () => {
  mkdirSync(`${rig.repo}/.git`);
  mkdirSync(`${rig.repo}/deep/down`, { recursive: true });
  const outcome = await rig.gateIn(`${rig.repo}/deep/down`, 'up', ...viewDir());
  assert.equal(outcome.status, 0, outcome.stderr);
  assert.equal(outcome.stdout, `${rig.dir}/view\n`);
  assert.match(outcome.stderr, /✓ .*can be mounted[\s\S]*✓ broker at http[\s\S]*✓ .* is mounted on/);
  assert.equal((await rig.gateIn(`${rig.dir}/view/deep`, 'down')).status, 0);
  assert.equal(mountAt(`${rig.dir}/view`), undefined);
});

test('up refuses what would give a file two sets of locks, or no place', async () => {
  const up = await rig.up(...viewDir());
  mkdirSync(`${rig.repo}/sub`);
  mkdirSync(`${rig.dir}/full`);
  writeFileSync(`${rig.dir}/full/x`, '');
  mkdirSync(`${rig.dir}/other`);
  const cases: [string[], RegExp][] = [
    [['up', `${up.mount}/sub`], /lies inside the view/],
    [['up', rig.repo, '--name', 'else'], /already the view 'repo'/],
    [['up', rig.repo, '--mount', `${rig.dir}/second`], /already mounted/],
    [['up', `${rig.repo}/sub`], /lie in one another/],
    [['up', `${rig.dir}/other`, '--name', 'repo'], /there is a view 'repo' already/],
    [['up', `${rig.dir}/other`, '--mount', `${rig.dir}/full`], /is not empty/],
    [['up', `${rig.dir}/other`, '--mount', up.mount], /something else is mounted/],
    [['unmount', up.mount], /gate down repo|is the view 'repo'/],
  ];
  for (const [args, says] of cases) {
    const outcome = await rig.gate(...args);
    assert.equal(outcome.status, 1, args.join(' '));
    assert.match(outcome.stderr, says);
  }
  assert.deepEqual(await rig.up(), up, 'the first view is as it was');
});

test('two views share a broker, which stays until the last is down', async () => {
  mkdirSync(`${rig.dir}/other/repo`, { recursive: true });
  const one = await rig.up(...viewDir());
  const two = await rig.up(`${rig.dir}/other/repo`, '--mount', `${rig.dir}/view2`);
  assert.equal(two.name, 'repo-2');
  assert.equal(two.pids.broker, one.pids.broker);
  const unclear = await rig.gate('down');
  assert.equal(unclear.status, 2);
  assert.match(unclear.stderr, /2 views[\s\S]*repo-2/);
  assert.equal((await rig.gate('down', 'repo')).status, 0);
  assert.ok(running(one.pids.broker));
  assert.equal((await rig.gate('down', `${rig.dir}/view2`)).status, 0);
  assertGone(two);
});

test('who and hold name files by mount, by root and relatively; they meet opens of the view', async () => {
  const up = await rig.up(...viewDir());
  const opener = rig.start('sh', ['-c', `exec 3>>"${up.mount}/a.txt"; echo open; sleep 30`], {
    env: { GATE_ACTOR: 'writer' },
  });
  await eventually('the file is open', () => opener.text().includes('open'));
  for (const [cwd, path] of [
    [rig.dir, `${up.mount}/a.txt`],
    [rig.dir, `${up.root}/a.txt`],
    [up.mount, 'a.txt'],
    [up.root, './a.txt'],
  ] as const) {
    const { stdout } = await rig.gateIn(cwd, 'who', path, '--json');
    const { holds } = JSON.parse(stdout) as { holds: { owner: string; who: { pid: number } }[] };
    assert.equal(holds.length, 1, `${path} in ${cwd}`);
    assert.match(holds[0]!.owner, /\/writer$/);
    assert.equal(holds[0]!.who.pid, opener.pid);
  }
  assert.equal((await rig.gate('hold', `${up.root}/a.txt`, '--wait', '100', '--', 'true')).status, 75);
  const same = await rig.gate(
    'hold',
    `${up.mount}/a.txt`,
    '--as',
    'writer',
    '--',
    'sh',
    '-c',
    `echo three >> "${up.mount}/a.txt"`,
  );
  assert.equal(same.status, 0, 'the same actor does not wait for itself');
  opener.kill('SIGKILL');
  await opener.outcome;
});

test('the broker is found from inside the mount, with no environment', async () => {
  const up = await rig.up(...viewDir());
  const outcome = await rig.start(`${projectDir}/gate`, ['who', 'a.txt'], {
    cwd: up.mount,
    env: { GATE_STATE_DIR: '' },
  }).outcome;
  assert.match(outcome.stdout, /is free/);
  assert.equal(outcome.status, 0);
});

test('a killed mount is brought back by the supervisor', async () => {
  const up = await rig.up(...viewDir());
  process.kill(up.pids.mount, 'SIGKILL');
  await eventually('it is back', () => {
    try {
      return !running(up.pids.mount) && readFileSync(`${up.mount}/a.txt`, 'utf8') === 'one\n';
    } catch {
      return false;
    }
  });
  assert.equal((await rig.gate('status')).status, 0);
});

test('a killed broker comes back, and the view goes on', async () => {
  const up = await rig.up(...viewDir());
  process.kill(up.pids.broker, 'SIGKILL');
  await eventually('a new broker', async () => (await rig.gate('who')).status === 0);
  assert.equal(readFileSync(`${up.mount}/a.txt`, 'utf8'), 'one\n');
});

test('a killed supervisor: views go on, up adopts them, down works without it', async () => {
  const up = await rig.up(...viewDir());
  process.kill(up.pids.supervisor, 'SIGKILL');
  assert.equal(readFileSync(`${up.mount}/a.txt`, 'utf8'), 'one\n');
  const adopted = await rig.up();
  assert.equal(adopted.pids.mount, up.pids.mount);
  assert.equal(adopted.pids.broker, up.pids.broker);
  process.kill(adopted.pids.supervisor, 'SIGKILL');
  const down = await rig.gate('down');
  assert.equal(down.status, 0, down.stderr);
  assertGone(adopted);
});

test('everything killed: up repairs it, and down cleans up', async () => {
  const up = await rig.up(...viewDir());
  for (const pid of [up.pids.supervisor, up.pids.mount, up.pids.broker]) process.kill(pid, 'SIGKILL');
  await eventually('all gone', () => !Object.values(up.pids).some(running));
  assert.equal((await rig.gate('status')).status, 1);
  assert.match((await rig.gate('doctor')).stdout, /stale-mounts: nobody serves/);
  const again = await rig.up();
  assert.equal(readFileSync(`${up.mount}/a.txt`, 'utf8'), 'one\n');
  for (const pid of [again.pids.supervisor, again.pids.mount, again.pids.broker])
    process.kill(pid, 'SIGKILL');
  await eventually('all gone again', () => !Object.values(again.pids).some(running));
  const down = await rig.gate('down', '--all');
  assert.equal(down.status, 0, down.stderr);
  assertGone(again);
});

test('up --all brings back what there was', async () => {
  const up = await rig.up(...viewDir());
  for (const pid of [up.pids.supervisor, up.pids.mount, up.pids.broker]) process.kill(pid, 'SIGKILL');
  await eventually('all gone', () => !Object.values(up.pids).some(running));
  const all = await rig.gate('up', '--all');
  assert.equal(all.status, 0, all.stderr);
  assert.equal(all.stdout, `${up.mount}\n`);
  assert.equal(readFileSync(`${up.mount}/a.txt`, 'utf8'), 'one\n');
});

test('a busy view: down names who uses it, and takes it down all the same', async () => {
  const up = await rig.up(...viewDir());
  const user = rig.start('sleep', ['60'], { cwd: up.mount });
  await eventually('it stands there', () => isAlive(processId(user.pid)));
  const down = await rig.gate('down');
  assert.equal(down.status, 0, down.stderr);
  assert.match(down.stderr, new RegExp(`in use by sleep \\(pid ${user.pid}\\)`));
  assertGone(up);
});

test('processes beside the view are named', async () => {
  const beside = rig.start('sleep', ['60'], { cwd: rig.repo });
  await eventually('it stands there', () => isAlive(processId(beside.pid)));
  const outcome = await rig.gate('up', rig.repo, ...viewDir());
  assert.match(outcome.stderr, new RegExp(`sleep \\(pid ${beside.pid}\\) bypasses Gate`));
  assert.match((await rig.gate('status')).stdout, /bypasses Gate/);
});

test('up --foreground ends with Ctrl-C, and leaves nothing mounted', async () => {
  const foreground = rig.start(`${projectDir}/gate`, [
    'up',
    rig.repo,
    ...viewDir(),
    '--foreground',
    '--json',
  ]);
  await eventually('it is up', () => foreground.text().includes('"mount"'));
  const up = JSON.parse(
    foreground
      .text()
      .split('\n')
      .find((line) => line.startsWith('{"name"'))!,
  ) as Up;
  assert.equal(readFileSync(`${up.mount}/a.txt`, 'utf8'), 'one\n');
  foreground.kill('SIGINT');
  assert.equal((await foreground.outcome).status, 0);
  assert.equal(mountAt(up.mount), undefined);
  for (const pid of Object.values(up.pids)) assert.ok(!running(pid));
});

test('up --foreground that fails ends, with nothing left', async () => {
  mkdirSync(`${rig.dir}/full`);
  writeFileSync(`${rig.dir}/full/x`, '');
  const outcome = await rig.gate('up', rig.repo, '--mount', `${rig.dir}/full`, '--foreground');
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /is not empty/);
  for (const file of ['broker.sock', 'supervisor.sock']) assert.ok(!existsSync(`${rig.state}/${file}`), file);
});

test('a mount that cannot start: the step, the end of its log, and nothing half-mounted', async () => {
  // No broker can be reached over this socket: its path is a folder.
  mkdirSync(`${rig.dir}/socket`);
  const outcome = await rig.gate('up', rig.repo, ...viewDir(), '--socket', `${rig.dir}/socket`);
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /gate: the (broker|mount of repo) ended/);
  assert.equal(mountAt(`${rig.dir}/view`), undefined);
  assert.ok(!existsSync(`${rig.dir}/view`));
  await eventually('no supervisor', () => !existsSync(`${rig.state}/supervisor.sock`));
  assert.deepEqual(readdirSync(`${rig.state}/views`), []);
});

test('mount and unmount alone, in the foreground', async () => {
  const broker = rig.start(`${projectDir}/gate`, ['broker']);
  await eventually('a broker', () => existsSync(`${rig.state}/broker.json`));
  mkdirSync(`${rig.dir}/alone`);
  const args = ['mount', '--root', rig.repo, '--mount', `${rig.dir}/alone`, '--foreground'];
  for (const end of ['unmount', 'SIGTERM'] as const) {
    const mount = rig.start(`${projectDir}/gate`, args);
    await eventually('it is mounted', () => mountAt(`${rig.dir}/alone`)?.type === 'fuse.gate');
    assert.equal(readFileSync(`${rig.dir}/alone/a.txt`, 'utf8'), 'one\n');
    if (end === 'SIGTERM') mount.kill(end);
    else assert.equal((await rig.gate('unmount', `${rig.dir}/alone`)).status, 0);
    assert.equal((await mount.outcome).status, 0, mount.text());
    assert.equal(mountAt(`${rig.dir}/alone`), undefined);
  }
  broker.kill('SIGTERM');
  await broker.outcome;
});

test('a mount point that up made is closed beneath the view', async () => {
  const up = await rig.up(...viewDir());
  // Unmounted by hand and its server stopped, what remains is the folder itself.
  process.kill(up.pids.supervisor, 'SIGKILL');
  process.kill(up.pids.mount, 'SIGTERM');
  await eventually('it is unmounted', () => mountAt(up.mount) === undefined);
  assert.equal(statSync(up.mount).mode & 0o777, 0);
});

test('the smoke test passes on a view', async () => {
  const up = await rig.up(...viewDir());
  const smoke = await rig.start(`${projectDir}/scripts/smoke_test_fifo_sshfs.sh`, [up.mount]).outcome;
  assert.equal(smoke.status, 0, smoke.stdout + smoke.stderr);
  assert.deepEqual(readdirSync(up.mount), ['a.txt']);
});

test('doctor tells of what is kept', async () => {
  const up = await rig.up();
  const write = (actor: string) =>
    rig.start('sh', ['-c', `echo ${actor} > '${up.mount}/a.txt'`], { env: { GATE_ACTOR: actor } }).outcome;
  assert.equal((await write('one')).status, 0);
  assert.equal((await write('two')).status, 0);
  await eventually('it is kept', async () =>
    /kept-files: 1 kept of what would have been lost \(.*\), 0 of them conflict copies/.test(
      (await rig.gate('doctor')).stdout,
    ),
  );
});
