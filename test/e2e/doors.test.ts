/** The doors into another machine, which is this one behind an sshd of the test's own. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { until } from '../../src/base/clock.ts';
import { isAlive, processId } from '../../src/base/process.ts';
import { projectDir } from '../../src/base/version.ts';
import {
  type DoorMethod,
  type DoorOptions,
  doorRecords,
  mountDoor,
  planDoor,
  unmountDoor,
} from '../../src/cli/doors/index.ts';
import { type Gate, isMounted, PATIENCE_MS, startGate } from './harness.ts';
import { startSshd } from './sshd.ts';

const SMOKE = `${projectDir}/scripts/smoke_test_fifo_sshfs.sh`;

async function rig(t: TestContext) {
  const gate = await startGate(t, { serve: { ttlMs: 5000 } });
  const socket = await gate.startSftp();
  const sshd = await startSshd(t, `${projectDir}/gate sftp --connect ${socket}`);
  const stateDir = join(gate.dir, 'host');
  const mountPoint = join(gate.dir, 'the door');
  const root = join(gate.dir, 'mine');
  mkdirSync(root);
  const stop = gate.stop.bind(gate);
  gate.stop = async () => {
    try {
      await unmountDoor(stateDir, mountPoint);
    } finally {
      await stop();
    }
  };
  const options = (method: DoorMethod): DoorOptions => ({
    method,
    target: sshd.target,
    mountPoint,
    stateDir,
    env: process.env,
    root,
    there: {
      gate: `${projectDir}/gate`,
      sftpSocket: socket,
      brokerSocket: gate.socket,
      viewSocket: gate.serveSocket,
    },
  });
  return { gate, sshd, stateDir, mountPoint, root, options };
}

async function smoke(gate: Gate, at: string): Promise<string> {
  const { status, out, err } = await gate.run(SMOKE, [at], { cwd: '/' }).done;
  assert.equal(status, 0, out + err);
  return out;
}

test('the smoke test passes through sshfs, and the door leaves nothing', async (t) => {
  const { gate, stateDir, mountPoint, options } = await rig(t);
  const opened = await mountDoor(options('sshfs'));
  assert.match(await smoke(gate, mountPoint), /passed: all, through sshfs/);
  await unmountDoor(stateDir, mountPoint);
  assert.ok(!isMounted(mountPoint) && !existsSync(mountPoint));
  assert.deepEqual(doorRecords(stateDir), []);
  // It ends by itself once nothing is mounted, which may take a moment; as a zombie it is over, too.
  for (const id of opened.pids) assert.ok(await until(() => !isAlive(processId(id.pid)), PATIENCE_MS));
  await gate.idle();
});

test("the smoke test passes through the view's own protocol", async (t) => {
  const { gate, stateDir, mountPoint, options } = await rig(t);
  await mountDoor(options('gate'));
  writeFileSync(join(gate.root, 'f'), 'f');
  assert.equal(readFileSync(join(mountPoint, 'f'), 'utf8'), 'f');
  assert.match(await smoke(gate, mountPoint), /passed: all, through a view of Gate/);
  await unmountDoor(stateDir, mountPoint);
  assert.ok(!isMounted(mountPoint));
  await gate.idle();
});

test('the smoke test passes through a tunnel to the broker, also after the tunnel broke', async (t) => {
  const { gate, sshd, mountPoint, root, options, stateDir } = await rig(t);
  await mountDoor(options('direct'));
  await smoke(gate, mountPoint);
  writeFileSync(join(root, 'f'), 'mine');
  assert.equal(readFileSync(join(mountPoint, 'f'), 'utf8'), 'mine');
  // One session with the same broker: the other machine sees who waits here.
  const volumes = await gate.session.volumes();
  assert.ok(volumes.some((volume) => volume.root === root));
  await sshd.stop();
  await sshd.start();
  const holder = await gate.actor('one', { cwd: mountPoint });
  const file = await holder.open('f', 'WRONLY');
  await holder.do('close', file);
  await smoke(gate, mountPoint);
  await unmountDoor(stateDir, mountPoint);
});

test('a door that cannot open says why, and leaves nothing', async (t) => {
  const { gate, sshd, stateDir, mountPoint, options } = await rig(t);
  const bad = options('sshfs');
  const limited = { ...bad, limitMs: 30_000 };
  await assert.rejects(
    mountDoor({ ...limited, target: { ...sshd.target, port: 1 } }),
    /did not open: sshfs ended/,
  );
  // The stock server is no view: it is not taken for one.
  await assert.rejects(
    mountDoor({ ...limited, there: { ...bad.there, gate: '/usr/lib/openssh/sftp-server; :' } }),
    /\.gate\/about cannot be read/,
  );
  assert.ok(!isMounted(mountPoint) && !existsSync(mountPoint));
  assert.deepEqual(doorRecords(stateDir), []);
  const plan = planDoor(bad);
  assert.match(plan.files[0]!.text, /^StrictHostKeyChecking=yes$/m);
  assert.ok(plan.processes[0]!.argv.join(' ').includes('dir_cache=no'));
  await gate.idle();
});

test('a killed door is taken down by its record, and opened again', async (t) => {
  const { gate, stateDir, mountPoint, options } = await rig(t);
  writeFileSync(join(gate.root, 'f'), 'f');
  const { pids } = await mountDoor(options('sshfs'));
  for (const { pid } of pids) process.kill(pid, 'SIGKILL');
  assert.equal(await until(() => spawnSync('stat', [mountPoint]).status !== 0, PATIENCE_MS), true);
  await mountDoor(options('sshfs'));
  assert.equal(execFileSync('cat', [join(mountPoint, 'f')], { encoding: 'utf8' }), 'f');
  await unmountDoor(stateDir, mountPoint);
});

test('setup-host mounts, and unmounts', async (t) => {
  const { gate, sshd, options } = await rig(t);
  const { there } = options('sshfs');
  const { host, port, identityFile, hostKeys } = sshd.target;
  const at = join(gate.dir, 'setup');
  const repo = join(gate.dir, 'repo');
  mkdirSync(repo);
  writeFileSync(join(repo, 'synced'), 'yes');
  const flags = ['--vm-user', 'root', '--vm-host', host, '--ssh-port', `${port}`, '--ssh-key', identityFile!];
  flags.push('--known-hosts', hostKeys!.file, '--host-key-alias', hostKeys!.alias);
  flags.push('--mount-method', 'sshfs', '--gate-command', there!.gate!, '--sftp-socket', there!.sftpSocket!);
  flags.push('--host-mount', at, '--state-dir', join(gate.dir, 'host'));
  const run = (...more: string[]) =>
    gate.run(`${projectDir}/scripts/setup_host_gate.sh`, [...flags, ...more], { cwd: '/' }).done;
  const dry = await run('--dry-run');
  assert.match(dry.out, /^sshfs -f /m);
  const done = await run('--sync', '--repo-path', repo, '--vm-repo-path', gate.root, '--json');
  assert.equal(done.status, 0, done.err);
  assert.equal(JSON.parse(done.out).mount, at);
  assert.equal(readFileSync(join(at, 'synced'), 'utf8'), 'yes');
  const down = await run('--unmount');
  assert.equal(down.status, 0, down.err);
  assert.ok(!isMounted(at));
});
