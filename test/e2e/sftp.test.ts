/** The view over SFTP: the stock clients, and sshfs with real programs in it, in the same queues as the mount beside it. */
import assert from 'node:assert/strict';
import { chmodSync, chownSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { until } from '../../src/base/clock.ts';
import { projectDir } from '../../src/base/version.ts';
import { doorRecords, mountDoor, unmountDoor } from '../../src/cli/doors/index.ts';
import {
  type Actor,
  type Gate,
  type GateOptions,
  isMounted,
  PATIENCE_MS,
  type Running,
  startGate,
} from './harness.ts';
import { type Sshd, startSshd } from './sshd.ts';

/** uid and gid of Debian's `nobody` and `nogroup`. */
const NOBODY = 65_534;

interface Rig {
  readonly gate: Gate;
  readonly sshd: Sshd;
  readonly socket: string;
}

async function rig(t: TestContext, options: GateOptions = {}): Promise<Rig> {
  const gate = await startGate(t, options);
  const socket = await gate.startSftp();
  const sshd = await startSshd(t, `${projectDir}/gate sftp --connect ${socket}`);
  return { gate, sshd, socket };
}

/** A second way in: sshfs, as the door makes it. */
async function door(t: TestContext, { gate, sshd, socket }: Rig): Promise<string> {
  const mountPoint = join(gate.dir, 'sshfs');
  const stateDir = join(gate.dir, 'host');
  // Hooks run in the order in which they were made: this must be unmounted before the folder goes.
  const stop = gate.stop.bind(gate);
  gate.stop = async () => {
    try {
      await unmountDoor(stateDir, mountPoint);
    } finally {
      await stop();
    }
  };
  const opened = await mountDoor({
    method: 'sshfs',
    target: sshd.target,
    mountPoint,
    stateDir,
    there: { gate: `${projectDir}/gate`, sftpSocket: socket },
    env: process.env,
  });
  assert.equal(opened.mount, mountPoint);
  assert.deepEqual(
    doorRecords(stateDir).map((record) => record.mount),
    [mountPoint],
  );
  t.after(() => assert.ok(!isMounted(mountPoint)));
  return mountPoint;
}

async function at(gate: Gate, cwd: string, name?: string): Promise<Actor> {
  return gate.actor(name, { cwd });
}

async function ok(running: Running): Promise<string> {
  const { status, out, err } = await running.done;
  assert.equal(status, 0, `${err}${out}`);
  return out;
}

test('stock sftp and scp work', async (t) => {
  const { gate, sshd } = await rig(t);
  const dir = gate.dir;
  const big = Buffer.alloc(3_000_000, 'all work and no play\n');
  writeFileSync(`${dir}/big`, big);
  const batch = [
    `put ${dir}/big one`,
    'mkdir d',
    'rename one d/two',
    'symlink two d/link',
    'chmod 640 d/two',
    `put -p ${dir}/big d/kept`,
    `get d/link ${dir}/back`,
    'ls -la d',
    'ln d/two d/hard',
    'df',
    'rm d/kept',
    'get .gate/about',
  ];
  writeFileSync(`${dir}/batch`, `${batch.join('\n')}\n`);
  const said = await ok(
    gate.run('sftp', [...sshd.options, '-b', `${dir}/batch`, sshd.target.host], { cwd: dir }),
  );
  assert.match(said, /-rw-r----- +1 \S+ +\S+ +3000000 .* two/);
  assert.deepEqual(readFileSync(`${gate.root}/d/two`), big);
  assert.deepEqual(readFileSync(`${dir}/back`), big);
  assert.equal(statSync(`${gate.root}/d/two`).mode & 0o777, 0o640);
  assert.equal(statSync(`${gate.root}/d/hard`).ino, statSync(`${gate.root}/d/two`).ino);
  assert.equal(JSON.parse(readFileSync(`${dir}/about`, 'utf8')).volume, gate.volume);
  await ok(gate.run('scp', [...sshd.options, '-r', `${sshd.target.host}:d`, `${dir}/copied`], { cwd: dir }));
  assert.deepEqual(readFileSync(`${dir}/copied/two`), big);
  await ok(
    gate.run('scp', [...sshd.options, '-p', `${dir}/big`, `${sshd.target.host}:/d/three`], { cwd: dir }),
  );
  assert.deepEqual(readFileSync(`${gate.root}/d/three`), big);
  await gate.idle();
});

test('nothing outside the root is to be had', async (t) => {
  const { gate, sshd } = await rig(t);
  await ok(
    gate.sh(`ln -s /etc/passwd abs; ln -s ../../../../etc/passwd up; mkdir d; ln -s / d/all`, {
      cwd: gate.root,
    }),
  );
  for (const path of ['abs', 'up', '../../../../../etc/passwd', '/etc/passwd', 'd/all/etc/passwd']) {
    const got = gate.run('scp', [...sshd.options, `${sshd.target.host}:${path}`, `${gate.dir}/got`]);
    assert.notEqual((await got.done).status, 0, path);
  }
  // Within the view `/` is the view's root.
  writeFileSync(`${gate.root}/in`, 'in');
  await ok(gate.run('scp', [...sshd.options, `${sshd.target.host}:d/all/in`, `${gate.dir}/got`]));
});

test('as an ordinary user it is that user, in everything', async (t) => {
  const gate = await startGate(t);
  writeFileSync(`${gate.root}/secret`, 'root only', { mode: 0o600 });
  chownSync(gate.root, NOBODY, NOBODY);
  chmodSync(gate.dir, 0o755);
  const socket = await gate.startSftp(['--user', 'nobody']);
  const { mode, uid } = statSync(socket);
  assert.deepEqual([mode & 0o777, uid], [0o600, NOBODY]);
  // The client is that user's, too, as behind an sshd.
  writeFileSync(`${gate.dir}/relay`, `#!/bin/sh\nexec ${projectDir}/gate sftp --connect ${socket}\n`, {
    mode: 0o755,
  });
  writeFileSync(`${gate.dir}/up`, 'up');
  writeFileSync(
    `${gate.dir}/batch`,
    `put ${gate.dir}/up new\n-get secret ${gate.dir}/stolen\nmkdir d\nrename new d/new\n`,
  );
  const { status, err } = await gate.run('sftp', ['-D', `${gate.dir}/relay`, '-b', `${gate.dir}/batch`]).done;
  assert.equal(status, 0, err);
  assert.match(err, /secret.*[Pp]ermission denied/);
  assert.equal(statSync(`${gate.root}/d/new`).uid, NOBODY);
  await gate.idle();
});

test('writers and readers take turns across sshfs and the mount, and a reader sees all that was written', async (t) => {
  const all = await rig(t);
  const { gate } = all;
  const mnt = await door(t, all);
  writeFileSync(`${gate.root}/f`, 'old\n');
  for (const [writes, reads] of [
    [mnt, gate.mount],
    [gate.mount, mnt],
    [mnt, mnt],
  ] as const) {
    const writer = await at(gate, writes);
    const reader = await at(gate, reads);
    const file = await writer.open('f', 'WRONLY|TRUNC');
    const read = reader.do('readFile', 'f');
    await gate.queued('f', 1);
    for (let i = 0; i < 10; i++) await writer.do('write', file, `${'x'.repeat(5000)}\n`);
    assert.ok(!read.over());
    // Nothing else stands still meanwhile.
    await (await at(gate, mnt)).do('readdir', '.');
    await writer.do('close', file);
    assert.equal(((await read) as string).length, 50_010, `${writes} -> ${reads}`);
  }
  await gate.idle();
});

test('what is beyond the limits fails, and the mount lives on', async (t) => {
  const all = await rig(t);
  const { gate } = all;
  const mnt = await door(t, all);
  writeFileSync(`${gate.root}/f`, 'f');
  writeFileSync(`${gate.root}/g`, 'g');
  const holder = await at(gate, mnt);
  const file = await holder.open('f', 'WRONLY');

  // The park limit: one reader alone.
  const late = gate.run('cat', ['f'], { cwd: mnt });
  assert.match((await late.done).err, /Operation not permitted/);
  assert.match(readFileSync(`${mnt}/.gate/why`, 'utf8'), /'f'/);

  // Ten readers at once: eight wait, the others fail at once, and the ninth and tenth thread serve the rest.
  const readers = Array.from({ length: 9 }, () => gate.run('cat', ['f'], { cwd: mnt }));
  await until(() => readers.some((reader) => reader.over), PATIENCE_MS);
  assert.equal(await (await at(gate, mnt)).do('readFile', 'g'), 'g');
  await holder.do('write', file, 'F');
  await holder.do('close', file);
  const ends = await Promise.all(readers.map((reader) => reader.done));
  assert.ok(ends.some((end) => end.status !== 0 && /not permitted/.test(end.err)));
  assert.equal(await (await at(gate, mnt)).do('readFile', 'f'), 'F');
  await gate.idle();
});

test('a deadlock inside the client dissolves', async (t) => {
  const all = await rig(t);
  const { gate } = all;
  const mnt = await door(t, all);
  writeFileSync(`${gate.root}/f`, 'f');
  const holder = await at(gate, mnt);
  const file = await holder.open('f', 'WRONLY');
  const parked = gate.run('cat', ['f'], { cwd: mnt });
  await gate.queued('f', 1);
  // sshfs keeps the path locked for the open that waits: the unlink waits for that, and the close for the unlink.
  const removed = gate.run('rm', ['f'], { cwd: mnt });
  assert.equal(await until(() => parked.over && removed.over, PATIENCE_MS), true);
  await holder.do('write', file, 'g');
  await holder.do('close', file);
  await gate.idle();
  assert.equal(await (await at(gate, mnt)).do('readFile', 'f'), 'g');
});

test('locks and waits of a client that is gone are gone', async (t) => {
  const all = await rig(t);
  const { gate, sshd } = all;
  const mnt = await door(t, all);
  writeFileSync(`${gate.root}/f`, 'f');
  writeFileSync(`${gate.root}/g`, 'g');
  const there = await at(gate, mnt);
  const here = await at(gate, gate.mount);
  const own = await there.open('f', 'WRONLY');
  const file = await here.open('g', 'WRONLY');
  const waits = there.open('g');
  await gate.queued('g', 1);
  assert.match(await ok(gate.gate(['who', gate.path('f')])), /sftp:\d+:\d+/);
  await sshd.stop();
  await gate.queued('g', 0);
  const freed = await here.open('f', 'WRONLY');
  await assert.rejects(waits);
  await here.do('close', freed);
  await here.do('close', file);

  // It comes back by itself; what was open before is lost, and says so.
  await sshd.start();
  const again = await until(async () => {
    try {
      return (await there.do('readFile', 'f')) === 'f';
    } catch {
      return false;
    }
  }, PATIENCE_MS);
  assert.equal(again, true);
  await assert.rejects(there.do('write', own, 'x').then(() => there.do('close', own)));
  assert.equal(readFileSync(`${gate.root}/f`, 'utf8'), 'f');
  await gate.idle();
});

test('a server that is killed loses its locks, and sshfs goes on with the next', async (t) => {
  const all = await rig(t, { brokerFlags: ['--session-ttl-ms', '2000'] });
  const { gate } = all;
  const mnt = await door(t, all);
  writeFileSync(`${gate.root}/f`, 'f');
  const there = await at(gate, mnt);
  const file = await there.open('f', 'WRONLY');
  gate.sftp!.kill('SIGKILL');
  // The mount beside it gets the file when the dead session's time is over.
  const here = await at(gate, gate.mount);
  await here.do('close', await here.open('f', 'WRONLY'));
  await assert.rejects(there.do('write', file, 'x').then(() => there.do('fsync', file)));
  await gate.startSftp();
  const again = await until(async () => {
    try {
      return (await there.do('readFile', 'f')) === 'f';
    } catch {
      return false;
    }
  }, PATIENCE_MS);
  assert.equal(again, true);
  await gate.idle();
});

test('tools work over sshfs: saves by rename, git, tar, touch', async (t) => {
  const all = await rig(t);
  const { gate } = all;
  const mnt = await door(t, all);
  const script = `set -e
    export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
    mkdir -p a/b
    for i in $(seq 20); do echo $i >a/b/tmp; mv a/b/tmp a/b/f$i; done
    for i in $(seq 20); do echo new >a/b/f$i.tmp; mv -f a/b/f$i.tmp a/b/f$i; done
    for i in $(seq 20); do echo more >>a/b/f1; done
    mkdir many; seq 200 | xargs -P 8 -n 25 sh -c 'for i; do echo $i >many/$i && [ "$(cat many/$i)" = $i ] || exit 1; done' sh
    ls many | wc -l | grep -qx 200; rm -r many
    touch a/b/f2; touch -d 2001-02-03 a/b/f3; chmod 600 a/b/f4; cp -p a/b/f3 a/b/f5
    truncate -s 100000 a/b/f6; sed -i s/new/newer/ a/b/f7
    tar cf all.tar a && mkdir out && tar xf all.tar -C out && diff -r a out/a
    git init -q . && git add a && git -c user.name=t -c user.email=t@t commit -qm one
    git status --porcelain | grep -v '^??' && exit 1
    rm -r out a/b/f9; mv a/b a/c; git checkout -q -- . ; ls a/b | wc -l`;
  assert.equal((await ok(gate.run('bash', ['-c', script], { cwd: mnt }))).trim(), '20');
  assert.equal(readFileSync(`${gate.root}/a/c/f7`, 'utf8'), 'newer\n');
  assert.equal(readFileSync(`${gate.root}/a/c/f1`, 'utf8').split('\n').length, 22);
  await gate.idle();
});
