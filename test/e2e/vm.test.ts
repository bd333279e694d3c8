/**
 * A real virtual machine: built, booted (with TCG where there is no KVM), used through each door, killed, recovered, taken down.
 *
 * Image and bundles are kept in GATE_TEST_VM_CACHE, or /var/tmp/gate-vm-test-cache, so that a second run builds nothing. One machine serves all
 * tests, in this order. Run it alone with: scripts/test e2e/vm
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { delay, systemClock } from '../../src/base/clock.ts';
import { projectDir } from '../../src/base/version.ts';
import { doorRecords } from '../../src/cli/doors/index.ts';
import { Effects } from '../../src/vm/effects.ts';
import { FIRECRACKER_KERNEL_ARGUMENTS } from '../../src/vm/firecracker/config.ts';
import { extractKernel } from '../../src/vm/firecracker/kernel.ts';
import { type MachineRecord, readMachine } from '../../src/vm/machine.ts';
import { machineFiles } from '../../src/vm/names.ts';
import { awaitReady } from '../../src/vm/qemu.ts';
import { cleanEnv } from './harness.ts';

const has = (program: string) =>
  spawnSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' }).status === 0;
const possible =
  process.getuid?.() === 0 &&
  process.arch === 'x64' &&
  existsSync('/dev/fuse') &&
  ['qemu-system-x86_64', 'qemu-img', 'mmdebstrap', 'mke2fs', 'sshfs', 'lz4'].every(has);

/** Longest that one command may take: the first one builds an image, too. */
const COMMAND_MS = 590_000;
const cacheDir = process.env.GATE_TEST_VM_CACHE ?? '/var/tmp/gate-vm-test-cache';

describe('a virtual machine', { skip: !possible && 'needs root, x86-64, QEMU, mmdebstrap and sshfs' }, () => {
  let dir: string;
  let repo: string;
  let mount: string;
  let state: string;
  let firstMs = 0;
  const name = 'gate-test';

  interface Outcome {
    readonly status: number | null;
    readonly stdout: string;
    readonly stderr: string;
    readonly ms: number;
  }

  function gate(...args: string[]): Outcome {
    const env = cleanEnv({ GATE_STATE_DIR: state, GATE_VM_CACHE: cacheDir });
    const startMs = performance.now();
    const ran = spawnSync(join(projectDir, 'gate'), args, {
      cwd: dir,
      env,
      encoding: 'utf8',
      timeout: COMMAND_MS,
    });
    return { status: ran.status, stdout: ran.stdout, stderr: ran.stderr, ms: performance.now() - startMs };
  }

  function ok(outcome: Outcome): Outcome {
    assert.equal(outcome.status, 0, `${outcome.stderr}\n${outcome.stdout}`);
    return outcome;
  }

  const up = (...more: string[]) =>
    gate('up', '--vm', 'qemu', '--vm-name', name, '--host-mount', mount, ...more, repo);
  const inGuest = (line: string) => ok(gate('vm', 'ssh', '--root', name, line)).stdout;
  const files = () => machineFiles(`${state}/vm`, name);
  const record = (): MachineRecord => readMachine(files())!;

  before(() => {
    dir = mkdtempSync('/var/tmp/gate-vm-');
    [repo, mount, state] = [join(dir, 'repo'), join(dir, 'mnt'), join(dir, 'state')];
    mkdirSync(repo);
    writeFileSync(join(repo, 'a.txt'), 'one\n');
    const git = (...args: string[]) =>
      execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@t', ...args], {
        cwd: repo,
        stdio: 'ignore',
      });
    git('init', '-q');
    git('add', '.');
    git('commit', '-qm', 'one');
  });

  after(() => {
    gate('down', '--all');
    gate('vm', 'delete', name);
    spawnSync('umount', ['-l', mount], { stdio: 'ignore' });
    rmSync(dir, { recursive: true, force: true });
  });

  test('up: from nothing to a mounted view', () => {
    const outcome = ok(up('--json'));
    firstMs = outcome.ms;
    const said = JSON.parse(outcome.stdout) as { mount: string; method: string; vm: { accelerator: string } };
    assert.deepEqual([said.mount, said.method], [mount, 'gate']);
    assert.equal(readFileSync(join(mount, 'a.txt'), 'utf8'), 'one\n');
    writeFileSync(join(mount, 'new.txt'), 'from the host\n');
    assert.equal(inGuest('cat /srv/repo/new.txt; stat -c %U /srv/repo/new.txt'), 'from the host\ngate\n');
    inGuest('su gate -c "echo from the guest >/mnt/gate/guest.txt"');
    assert.equal(readFileSync(join(mount, 'guest.txt'), 'utf8'), 'from the guest\n');
    // What is in the machine stays there.
    assert.equal(existsSync(join(repo, 'new.txt')), false);
    assert.match(
      execFileSync('git', ['-c', 'safe.directory=*', 'status', '--short'], { cwd: mount, encoding: 'utf8' }),
      /\?\? new.txt/,
    );
  });

  test('up again: nothing is done twice', () => {
    const outcome = ok(up());
    assert.match(outcome.stderr, /runs already/);
    assert.ok(outcome.ms < firstMs / 2, `${outcome.ms} ms, the first time ${firstMs} ms`);
    const listed = JSON.parse(ok(gate('vm', 'list', '--json')).stdout) as { state: string; door: string }[];
    assert.deepEqual(
      listed.map((machine) => [machine.state, machine.door]),
      [['running', 'open']],
    );
  });

  test('the door gate: turns between processes here, and between here and the guest', async () => {
    smoke();
    const held = join(mount, 'held.txt');
    writeFileSync(held, '');
    // A process of the guest holds the file for some seconds; the one here gets in after it.
    const holder = gateInBackground(
      'vm',
      'ssh',
      '--root',
      name,
      'exec 3>>/mnt/gate/held.txt; echo guest >&3; touch /tmp/holds; sleep 6',
    );
    while (inGuest('ls /tmp').includes('holds') === false) await delay(200);
    execFileSync('bash', ['-c', 'echo host >>"$1"', 'bash', held]);
    assert.equal(readFileSync(held, 'utf8'), 'guest\nhost\n');
    await holder;
  });

  test('the mount here is killed: status tells, and up mounts it again', () => {
    for (const { pids } of doorRecords(state)) for (const { pid } of pids) process.kill(pid, 'SIGKILL');
    const told = gate('status');
    assert.equal(told.status, 1);
    assert.match(told.stdout, /broken/);
    ok(up());
    assert.equal(readFileSync(join(mount, 'new.txt'), 'utf8'), 'from the host\n');
  });

  test('the door sshfs', () => {
    ok(up('--host-mount-method', 'sshfs'));
    assert.equal(readFileSync(join(mount, 'new.txt'), 'utf8'), 'from the host\n');
    smoke();
  });

  test('the door direct', () => {
    ok(up('--host-mount-method', 'direct'));
    assert.equal(readFileSync(join(mount, 'a.txt'), 'utf8'), 'one\n');
    smoke();
  });

  test('a machine that shows another host key is not talked to, and goes on running', () => {
    const pinned = readFileSync(files().knownHosts, 'utf8');
    for (const user of ['root', 'gate'])
      spawnSync('ssh', ['-o', `ControlPath=${files().control}-${user}`, '-O', 'exit', '--', '127.0.0.1'], {
        stdio: 'ignore',
      });
    writeFileSync(files().knownHosts, `${name} ${readFileSync(`${files().clientKey}.pub`, 'utf8')}`);
    const refused = up();
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /another host key than the one that was pinned/);
    writeFileSync(files().knownHosts, pinned);
    ok(up());
  });

  test('QEMU is killed: status tells, and up brings everything back', () => {
    process.kill(record().process!.pid, 'SIGKILL');
    const told = gate('status');
    assert.equal(told.status, 1);
    assert.match(told.stdout, new RegExp(`${name} +crashed`));
    const outcome = ok(up('--host-mount-method', 'gate'));
    assert.match(outcome.stderr, /was killed or the host went down/);
    assert.equal(readFileSync(join(mount, 'guest.txt'), 'utf8'), 'from the guest\n');
  });

  test('down, twice; a taken port is told, or evaded', async () => {
    ok(gate('down', name));
    assert.equal(existsSync(mount), false, 'the mount point that was made is gone');
    ok(gate('down', name));
    assert.equal(record().process, undefined);
    const server = createServer();
    await new Promise<void>((done) => server.listen(record().sshPort, '127.0.0.1', done));
    try {
      const refused = up('--ssh-port', `${record().sshPort}`);
      assert.equal(refused.status, 1);
      assert.match(refused.stderr, /port \d+ of this host is taken/);
      assert.equal(record().process, undefined);
    } finally {
      server.close();
    }
  });

  test("Firecracker's kernel, initrd, file system and kernel command line boot on QEMU's microvm", async () => {
    const { image } = record();
    const kernel = join(dir, 'vmlinux');
    const effects = new Effects({ clock: systemClock });
    await extractKernel(effects, image.kernel!, kernel);
    const khz = Math.round(
      1000 * Number(/cpu MHz\s*: ([\d.]+)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 2000),
    );
    const disk = join(dir, 'fc-disk');
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', image.disk, '-F', 'raw', disk]);
    const started = effects.start(
      'qemu-system-x86_64',
      [
        // As Firecracker: no PCI, devices on virtio-mmio that ACPI describes. The clock's rate is only told because of TCG.
        ...[
          '-machine',
          'microvm,acpi=on,pit=off,pic=off,rtc=off',
          '-accel',
          'tcg,thread=multi',
          '-cpu',
          'max',
        ],
        ...['-smp', '2', '-m', '1024', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
        ...['-kernel', kernel, '-initrd', image.initrd!],
        ...['-append', `${FIRECRACKER_KERNEL_ARGUMENTS} tsc_early_khz=${khz} tsc=reliable`],
        ...['-drive', `file=${disk},if=none,id=disk,format=qcow2`, '-device', 'virtio-blk-device,drive=disk'],
        ...['-drive', `file=${files().seed},if=none,id=seed,format=raw,readonly=on`],
        ...['-device', 'virtio-blk-device,drive=seed', '-device', 'virtio-rng-device'],
        ...['-netdev', 'user,id=net,restrict=on', '-device', 'virtio-net-device,netdev=net'],
        ...['-serial', `file:${files().serial}`],
      ],
      join(dir, 'microvm.log'),
    )!;
    try {
      rmSync(files().serial, { force: true });
      await awaitReady(
        effects,
        { ...files(), vmmLog: join(dir, 'microvm.log') },
        name,
        started.process,
        'tcg',
        false,
      );
    } finally {
      process.kill(started.process.pid, 'SIGKILL');
      await started.exited;
    }
  });

  test('delete works from a half-built machine, too', () => {
    rmSync(files().record, { force: true });
    assert.match(ok(gate('vm', 'list')).stdout, /half-built/);
    ok(gate('vm', 'delete', name));
    assert.equal(existsSync(files().dir), false);
    assert.equal(gate('vm', 'delete', name).status, 1);
  });

  function smoke(): void {
    const ran = spawnSync(join(projectDir, 'scripts/smoke_test_fifo_sshfs.sh'), [mount], {
      env: cleanEnv({ GATE_STATE_DIR: state }),
      encoding: 'utf8',
      timeout: 120_000,
    });
    assert.equal(ran.status, 0, `${ran.stdout}\n${ran.stderr}`);
  }

  async function gateInBackground(...args: string[]): Promise<void> {
    const { spawn } = await import('node:child_process');
    const env = cleanEnv({ GATE_STATE_DIR: state, GATE_VM_CACHE: cacheDir });
    const child = spawn(join(projectDir, 'gate'), args, { cwd: dir, env, stdio: 'ignore' });
    await new Promise((done) => child.once('exit', done));
  }
});
