/** What becomes of a remote mount when its connection, its client or its view dies. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { type TestContext, test } from 'node:test';
import { until } from '../../src/base/clock.ts';
import { type Gate, isMounted, PATIENCE_MS, settle, startGate } from './harness.ts';
import { startSshd } from './sshd.ts';
import { Wire } from './wire.ts';

async function wired(t: TestContext, ttlMs: number): Promise<{ gate: Gate; there: string; wire: Wire }> {
  const gate = await startGate(t, { serve: { ttlMs } });
  const wire = new Wire(`${gate.dir}/wire`, gate.serveSocket);
  t.after(() => wire.end());
  await wire.mend();
  return { gate, there: await gate.remoteMount(`unix:${wire.path}`), wire };
}

test('the connection is cut and comes back: programs wait and go on, locks stay', async (t) => {
  const { gate, there, wire } = await wired(t, 30_000);
  fs.writeFileSync(`${there}/f`, 'one ');
  const far = await gate.actor('far', { cwd: there });
  const here = await gate.actor('here');
  const file = await far.open('f', 'WRONLY|APPEND');
  const waits = here.open('f');
  await gate.queued('f', 1);
  await wire.cut();
  const write = far.do('write', file, 'two ');
  const list = gate.sh('ls; cat f2; echo made > f3', { cwd: there });
  await settle();
  assert.ok(!write.over() && !list.over);
  // Who does not want to wait any more need not.
  const reader = gate.run('cat', ['g'], { cwd: there });
  await settle();
  reader.child.kill('SIGINT');
  assert.equal((await reader.done).signal, 'SIGINT');
  await wire.mend();
  await write;
  assert.match((await list.done).out, /^f\n/);
  assert.equal(fs.readFileSync(`${gate.root}/f3`, 'utf8'), 'made\n');
  assert.ok(!waits.over());
  await far.do('close', file);
  await waits;
  assert.equal(await here.do('readFile', 'f'), 'one two ');
});

test('a connection that breaks again and again, at any byte, loses nothing and repeats nothing', async (t) => {
  const seed = Number(process.env.GATE_SEED ?? 7);
  const { gate, there, wire } = await wired(t, 30_000);
  await wire.breakBySelf(seed);
  await wire.cut();
  await wire.mend();
  const script = `
set -e
for i in $(seq 40); do echo line $i >> lines; mkdir dir$i; echo $i > dir$i/f; mv dir$i/f dir$i/g; rm dir$i/g; rmdir dir$i; done
head -c 300000 /dev/urandom > big; cp big copy; cmp big copy; wc -l < lines; ls`;
  const done = await gate.sh(script, { cwd: there }).done;
  assert.deepEqual([done.status, done.out], [0, '40\nbig\ncopy\nlines\n'], `GATE_SEED=${seed}: ${done.err}`);
  const connections = await wire.cut();
  assert.ok(connections > 5, `there were ${connections} connections`);
  assert.deepEqual(fs.readFileSync(`${gate.root}/big`), fs.readFileSync(`${gate.root}/copy`));
  assert.equal(fs.readFileSync(`${gate.root}/lines`, 'utf8').split('\n').length, 41);
});

test('it is cut for longer than the TTL: errors, the locks are free; then a new session', async (t) => {
  const { gate, there, wire } = await wired(t, 500);
  fs.mkdirSync(`${there}/dir`);
  fs.writeFileSync(`${there}/dir/f`, 'one');
  const far = await gate.actor('far', { cwd: there });
  const here = await gate.actor('here');
  const file = await far.open('dir/f', 'RDWR');
  const waits = here.open('dir/f', 'WRONLY|TRUNC');
  await gate.queued('dir/f', 1);
  await wire.cut();
  const write = far.do('write', file, 'lost');
  await assert.rejects(write, /ESTALE/);
  await assert.rejects(far.do('readFile', 'dir/f'), /ENOTCONN|ESTALE/);
  const mine = await waits;
  await here.do('write', mine, 'mine');
  await here.do('close', mine);
  fs.renameSync(`${gate.mount}/dir`, `${gate.mount}/new`);
  await wire.mend();
  assert.ok(await until(() => fs.existsSync(`${there}/new/f`), PATIENCE_MS), 'it does not come back');
  assert.ok(!fs.existsSync(`${there}/dir`));
  assert.equal(await far.do('readFile', 'new/f'), 'mine');
  await assert.rejects(far.do('write', file, 'late'), /ESTALE/);
  await far.do('close', file);
  await far.do('writeFile', 'new/f', 'again');
  assert.equal(fs.readFileSync(`${gate.root}/new/f`, 'utf8'), 'again');
  await gate.idle();
});

test('the client is killed: its locks are free after the TTL, and its mount gives errors', async (t) => {
  const { gate, there } = await wired(t, 500);
  fs.writeFileSync(`${gate.root}/f`, 'one');
  const far = await gate.actor('far', { cwd: there });
  const here = await gate.actor('here');
  await far.open('f', 'WRONLY');
  const waits = here.open('f', 'WRONLY');
  await gate.queued('f', 1);
  gate.remotes.get(there)!.kill('SIGKILL');
  await waits;
  await assert.rejects(far.do('readFile', 'f'), /ENOTCONN|ECONNABORTED/);
  assert.ok(isMounted(there));
});

test('the view is killed and started anew: the client goes on with a new session', async (t) => {
  const { gate, there } = await wired(t, 30_000);
  fs.mkdirSync(`${there}/dir`);
  fs.writeFileSync(`${there}/dir/f`, 'one');
  fs.writeFileSync(`${there}/g`, 'two');
  const far = await gate.actor('far', { cwd: there });
  const file = await far.open('dir/f', 'RDONLY');
  gate.mounter.kill('SIGKILL');
  await until(() => gate.mounter.signalCode !== null, PATIENCE_MS);
  spawnSync('umount', ['-l', gate.mount]);
  // Whatever is asked meanwhile waits for the connection, and then for nothing.
  const asked = far.do('stat', 'g').catch((error: Error) => error.message);
  await gate.startMount();
  assert.match(String(await asked), /ENOTCONN|ESTALE|object/);
  assert.ok(
    await until(() => {
      try {
        return fs.readFileSync(`${there}/g`, 'utf8') === 'two';
      } catch {
        return false;
      }
    }, PATIENCE_MS),
  );
  await assert.rejects(far.do('read', file), /ESTALE/);
  assert.equal(await far.do('readFile', 'dir/f'), 'one');
});

test('a full disk over there: who writes is told, at the latest when it closes', async (t) => {
  const gate = await startGate(t, { serve: { ttlMs: 3000 }, disk: 16 });
  const there = await gate.remoteMount();
  const copied = await gate.sh('head -c 30000000 /dev/zero > big', { cwd: there }).done;
  assert.match(copied.err, /No space left on device/);
  assert.notEqual(copied.status, 0);
  fs.rmSync(`${there}/big`);
  const script = `
import os
f = os.open('f', os.O_WRONLY | os.O_CREAT)
told = []
for call in [lambda: os.write(f, b'x' * 1000000)] * 40 + [lambda: os.fsync(f), lambda: os.close(f)]:
    try: call()
    except OSError as error: told.append(error.errno)
print(28 in told)`;
  const done = await gate.run('python3', ['-c', script], { cwd: there }).done;
  assert.equal(done.out, 'True\n', done.err);
});

test('through ssh: sshd dies and comes back, and a wrong address is an error', async (t) => {
  const sshd = await startSshd(t);
  const gate = await startGate(t, { serve: { ttlMs: 30_000 } });
  const { identityFile, hostKeys } = sshd.target;
  const keys = [
    '--ssh-key',
    identityFile!,
    '--known-hosts',
    hostKeys!.file,
    '--host-key-alias',
    hostKeys!.alias,
  ];
  const address = `ssh://root@127.0.0.1:${sshd.port}`;
  const socket = ['--remote-socket', gate.serveSocket];
  await assert.rejects(
    gate.remoteMount(address, [...keys, '--remote-socket', '/nowhere'], 'wrong'),
    /broke|reached/,
  );
  await assert.rejects(
    gate.remoteMount(address, [...socket, ...keys.slice(0, 4), '--host-key-alias', 'x'], 'bad'),
    /reached/,
  );
  const there = await gate.remoteMount(address, [...keys, ...socket]);
  fs.writeFileSync(`${there}/f`, 'one');
  assert.equal(fs.readFileSync(`${gate.root}/f`, 'utf8'), 'one');
  const far = await gate.actor('far', { cwd: there });
  const file = await far.open('f', 'WRONLY|APPEND');
  await sshd.stop();
  const write = far.do('write', file, ' two');
  await settle();
  assert.ok(!write.over());
  await sshd.start();
  await write;
  await far.do('close', file);
  assert.equal(fs.readFileSync(`${there}/f`, 'utf8'), 'one two');
});
