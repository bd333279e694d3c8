import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { processId } from '../base/process.ts';
import { Effects } from './effects.ts';
import { VmError } from './errors.ts';
import { Journal, type StepEvent } from './events.ts';
import { guestEnv, unreachable } from './guest.ts';
import { hostSources, recipeHash } from './image.ts';
import { probeKvm } from './kvm.ts';
import { alone, deleteMachine, type Host, stopMachine } from './lifecycle.ts';
import { type MachineRecord, machinesIn, readMachine, stateOf, writeMachine } from './machine.ts';
import { cacheFiles, machineFiles } from './names.ts';
import { freePort, isFree } from './ports.ts';
import { awaitReady, qemuArguments } from './qemu.ts';

const dir = mkdtempSync('/var/tmp/gate-vm-');
after(() => rmSync(dir, { recursive: true, force: true }));
const effects = new Effects({ clock: systemClock });
const image = {
  dir,
  disk: `${dir}/disk`,
  format: 'raw',
  kernel: `${dir}/k`,
  initrd: `${dir}/i`,
  seed: 'gate',
} as const;

function record(name: string, more: Partial<MachineRecord> = {}): MachineRecord {
  return {
    ...{ name, vmm: 'qemu', base: 'debian-12', image, cpus: 2, memoryMib: 1024, diskMib: 8192 },
    ...{ sshPort: 2222, sshHost: '127.0.0.1', sshKey: null, repo: '/r', guestRepo: '/srv/repo', options: {} },
    ...more,
  };
}

function host(heard: StepEvent[] = []): Host {
  return {
    ...{ effects, journal: new Journal(effects, (event) => heard.push(event)), vmDir: dir },
    ...{ cacheDir: `${dir}/cache`, uid: 0 },
  };
}

test('a pid counts only with its start time and its boot', () => {
  const here = processId(process.pid)!;
  assert.equal(stateOf(record('a', { process: here })), 'running');
  assert.equal(stateOf(record('a', { process: { ...here, startTicks: here.startTicks + 1 } })), 'crashed');
  assert.equal(stateOf(record('a', { process: { ...here, bootId: 'of-yesterday' } })), 'crashed');
  assert.equal(stateOf(record('a')), 'stopped');
  assert.equal(stateOf(undefined), 'half-built');
});

test('machines are found with whole records, damaged ones and none', () => {
  const whole = machineFiles(dir, 'whole');
  mkdirSync(whole.dir, { recursive: true });
  writeMachine(effects, whole, record('whole'));
  mkdirSync(machineFiles(dir, 'damaged').dir);
  writeFileSync(machineFiles(dir, 'damaged').record, '{"name": "dam');
  mkdirSync(machineFiles(dir, 'empty').dir);
  const states = machinesIn(dir).map(({ name, record: known }) => [name, stateOf(known)]);
  assert.deepEqual(states, [
    ['damaged', 'half-built'],
    ['empty', 'half-built'],
    ['whole', 'stopped'],
  ]);
  assert.deepEqual(readMachine(whole), record('whole'));
  assert.deepEqual(machinesIn(`${dir}/nowhere`), []);
});

test('names that are none, and folders too deep for a socket, are refused', () => {
  for (const name of ['', '-x', 'a/b', '..', 'a'.repeat(41)])
    assert.throws(() => machineFiles(dir, name), VmError, name);
  assert.throws(() => machineFiles(`/${'d'.repeat(80)}`, 'gate-vm'), /too long/);
});

test('a crashed machine is stopped without harm to who has its pid now', async () => {
  const files = machineFiles(dir, 'crashed');
  mkdirSync(files.dir, { recursive: true });
  const here = processId(process.pid)!;
  const crashed = record('crashed', { process: { ...here, startTicks: here.startTicks + 1 } });
  writeMachine(effects, files, crashed);
  writeFileSync(files.qmp, '');
  for (let n = 0; n < 2; n++) assert.equal(await stopMachine(host(), files, readMachine(files)), 'was off');
  assert.equal(stateOf(readMachine(files)), 'stopped');
  assert.ok(!existsSync(files.qmp));
});

test('two commands do not change one machine at the same time', async () => {
  const files = machineFiles(dir, 'busy');
  await alone(host(), files, async () => {
    await assert.rejects(
      alone(host(), files, async () => {}),
      /another gate is busy/,
    );
  });
  await alone(host(), files, async () => {});
});

test('a machine that dies while it boots is told at once, with the end of its console', async () => {
  const files = machineFiles(dir, 'dying');
  mkdirSync(files.dir, { recursive: true });
  writeFileSync(files.serial, 'Booting\r\n\u001b[31mKernel panic - not syncing: no root\u001b[0m\r\n');
  const startMs = performance.now();
  await assert.rejects(
    awaitReady(effects, files, 'dying', { pid: 1, startTicks: -1, bootId: '' }, 'tcg', false),
    (error) =>
      error instanceof VmError &&
      /ended while its guest was starting/.test(error.message) &&
      error.detail.includes('Kernel panic - not syncing: no root'),
  );
  assert.ok(performance.now() - startMs < 5000);
});

test('a guest that says it is ready counts only by its own name', async () => {
  const files = machineFiles(dir, 'ready');
  mkdirSync(files.dir, { recursive: true });
  writeFileSync(files.serial, 'GATE-READY other\nGATE-READY ready\n');
  await awaitReady(effects, files, 'ready', processId(process.pid)!, 'tcg', false);
});

test('ports: one that somebody listens on is not free', async () => {
  const port = await freePort();
  assert.equal(await isFree(port), true);
  const server = createServer();
  await new Promise<void>((done) => server.listen(port, '127.0.0.1', done));
  assert.equal(await isFree(port), false);
  await new Promise((done) => server.close(done));
});

test('a comma in a path does not end a value of QEMU', () => {
  const files = machineFiles(`${dir}/a,b`, 'm');
  const args = qemuArguments(files, record('m'), 'tcg');
  assert.ok(args.some((arg) => arg.startsWith(`file=${dir}/a,,b/machines/m/disk,`)));
  assert.ok(args.includes('tcg,thread=multi,tb-size=256'));
  assert.ok(qemuArguments(files, record('m'), 'kvm').includes('host'));
});

test('KVM: a missing device is told, and an answer holds until the next boot', async () => {
  const cache = cacheFiles(`${dir}/kvm`);
  assert.deepEqual(await probeKvm(effects, cache, image, `${dir}/no-kvm`), {
    usable: false,
    why: `there is no ${dir}/no-kvm`,
  });
  mkdirSync(cache.dir, { recursive: true });
  const device = `${dir}/device`;
  writeFileSync(device, '');
  writeFileSync(
    cache.kvm,
    JSON.stringify({ bootId: processId(process.pid)!.bootId, usable: true, why: 'a guest ran' }),
  );
  assert.equal((await probeKvm(effects, cache, image, device)).usable, true);
});

test("ssh's failures are told apart", () => {
  assert.match(unreachable('look', 'Host key verification failed.').message, /another host key/);
  assert.match(
    unreachable('look', 'gate@127.0.0.1: Permission denied (publickey).').message,
    /does not let our key in/,
  );
  assert.match(
    unreachable('look', 'connect to host 127.0.0.1 port 9: Connection refused').message,
    /does not reach/,
  );
});

test("the units' settings are quoted for systemd", () => {
  const text = guestEnv({ repo: '/srv/a "b"', mount: '/mnt/gate', options: { GATE_MAX_HOLD_MS: '5000' } });
  assert.match(text, /^GATE_REPO="\/srv\/a \\"b\\""$/m);
  assert.match(text, /^GATE_MAX_HOLD_MS="5000"$/m);
});

test('only sources of the same Debian are handed on', () => {
  const etc = join(dir, 'apt');
  mkdirSync(`${etc}/sources.list.d`, { recursive: true });
  writeFileSync(
    `${etc}/sources.list.d/debian.sources`,
    'Types: deb\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n',
  );
  writeFileSync(`${etc}/sources.list.d/other.sources`, 'Types: deb\nURIs: http://other\nSuites: nodistro\n');
  writeFileSync(`${etc}/sources.list.d/cloud.list`, 'deb [signed-by=/k] http://cloud cloud-sdk main\n');
  writeFileSync(`${etc}/sources.list`, '# nothing\ndeb http://mirror/debian bookworm main\n');
  assert.deepEqual(hostSources(etc), [`${etc}/sources.list`, `${etc}/sources.list.d/debian.sources`]);
  assert.match(recipeHash(), /^[0-9a-f]{16}$/);
});

test('steps are told and written down, also those from before there was a file', async () => {
  const heard: StepEvent[] = [];
  const journal = new Journal(effects, (event) => heard.push(event));
  journal.note('early');
  const path = `${dir}/events.jsonl`;
  journal.writeTo(path);
  await journal.step('count', async (goesOn) => {
    goesOn('half');
    return { value: 1, said: 'counted' };
  });
  await assert.rejects(
    journal.step('fail', async () => {
      throw new Error('no');
    }),
    /^VmError: fail: no/,
  );
  const states = ['note', 'begins', 'goes on', 'done', 'begins', 'failed'];
  assert.deepEqual(
    heard.map(({ state }) => state),
    states,
  );
  const lines = readFileSync(path, 'utf8').trim().split('\n');
  assert.deepEqual(
    lines.map((line) => (JSON.parse(line) as StepEvent).state),
    states,
  );
});

test('a deleted machine leaves nothing, and says so without its log', async () => {
  const files = machineFiles(dir, 'deleted');
  const heard: StepEvent[] = [];
  const its = host(heard);
  await alone(its, files, async () => {
    await deleteMachine(its, files);
    its.journal.note('it is gone');
  });
  assert.ok(!existsSync(files.dir));
  assert.equal(heard.at(-1)?.text, 'it is gone');
});

test('a dry run does nothing', async () => {
  const lines: string[] = [];
  const dry = new Effects({ clock: systemClock, dry: (line) => lines.push(line) });
  dry.makeDir(`${dir}/dry`);
  dry.write(`${dir}/dry/file`, 'x');
  assert.equal(dry.start('sleep', ['1'], `${dir}/dry/log`), undefined);
  await dry.run('touch', [`${dir}/dry-touched`], { what: 'touch' });
  assert.deepEqual(lines, [
    `mkdir  ${dir}/dry`,
    `write  ${dir}/dry/file (1 bytes, mode 644)`,
    'start  sleep 1',
    `run    touch ${dir}/dry-touched`,
  ]);
  assert.ok(!existsSync(`${dir}/dry`) && !existsSync(`${dir}/dry-touched`));
});

test('a program that is missing, fails or hangs is told with its words', async () => {
  await assert.rejects(
    effects.run('mmdebstrap-not-here', [], { what: 'build' }),
    /cannot build: the program .* is missing/,
  );
  await assert.rejects(
    effects.run('sh', ['-c', 'echo words >&2; exit 3'], { what: 'fail' }),
    (error) => error instanceof VmError && error.detail.includes('words') && /status 3/.test(error.message),
  );
  await assert.rejects(
    effects.run('sleep', ['60'], { what: 'sleep', limitMs: 200 }),
    /was not done after 0.2 s/,
  );
});
