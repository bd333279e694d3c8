/** hold, who, status, events and history against a broker, without a mount. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { projectDir } from '../../src/base/version.ts';
import { eventually, makeRig, type Rig, type Running } from './cli-rig.ts';

let rig: Rig;
let broker: Running;
before(async () => {
  rig = makeRig();
  broker = rig.start(`${projectDir}/gate`, ['broker']);
  await eventually('a broker', () => existsSync(`${rig.state}/broker.json`));
});
after(() => rig.close());

const hold = (...args: string[]) => rig.start(`${projectDir}/gate`, ['hold', ...args]);
const json = async (...args: string[]) =>
  JSON.parse((await rig.gate(...args, '--json')).stdout) as Record<string, never[]>;

async function held(path: string, count = 1): Promise<void> {
  await eventually(
    `${count} holds of ${path}`,
    async () => (await json('who', path)).holds!.length === count,
  );
}

test('hold runs a command under the lock, and passes on its status', async () => {
  const outcome = await rig.gate(
    'hold',
    '/x/a',
    '--',
    'sh',
    '-c',
    `"${projectDir}/gate" who /x/a --json; exit 5`,
  );
  assert.equal(outcome.status, 5, outcome.stderr);
  const { holds } = JSON.parse(outcome.stdout) as { holds: { owner: string; targets: { mode: string }[] }[] };
  assert.equal(holds.length, 1);
  assert.equal(holds[0]!.targets[0]!.mode, 'write');
  await held('/x/a', 0);
});

test('hold without a command holds until Ctrl-C', async () => {
  const first = hold('/x/b', '--as', 'alice');
  await held('/x/b');
  assert.match((await rig.gate('who', '/x/b')).stdout, /write .*\/alice/);
  first.kill('SIGINT');
  assert.equal((await first.outcome).status, 0);
  await held('/x/b', 0);
});

test('hold --wait gives up with status 75, and leaves the queue', async () => {
  const first = hold('/x/c');
  await held('/x/c');
  const second = await rig.gate('hold', '/x/c', '--wait', '200', '--', 'true');
  assert.equal(second.status, 75);
  assert.match(second.stderr, /waiting for \/x\/c[\s\S]*gave up waiting/);
  assert.deepEqual((await json('who', '/x/c')).queue, []);
  first.kill('SIGINT');
  await first.outcome;
});

test('a waiter is shown, and Ctrl-C ends its wait', async () => {
  const first = hold('/x/d', '--as', 'first');
  await held('/x/d');
  const second = hold('/x/d', '--as', 'second', '--', 'true');
  await eventually('a wait', async () => (await json('who')).waits!.length === 1);
  assert.match((await rig.gate('who')).stdout, /second/);
  assert.match(
    (await rig.gate('who', '/x/d')).stdout,
    /first[\s\S]*in order of arrival[\s\S]*1\. +write.*second/,
  );
  second.kill('SIGINT');
  assert.equal((await second.outcome).status, 130);
  assert.deepEqual((await json('who')).waits, []);
  first.kill('SIGTERM');
  await first.outcome;
});

test('readers share; a tree stands in the way below it', async () => {
  const readers = [hold('/x/e/f', '--read'), hold('/x/e/f', '--read')];
  await held('/x/e/f', 2);
  const tree = await rig.gate('hold', '/x/e', '--tree', '--wait', '100', '--', 'true');
  assert.equal(tree.status, 75);
  for (const reader of readers) reader.kill('SIGINT');
  for (const reader of readers) await reader.outcome;
});

test('events and history tell of it; --json is one line each', async () => {
  await rig.gate('hold', '/x/g', '--as', 'teller', '--', 'true');
  const { stdout } = await rig.gate('history', '/x/g', '--json');
  const types = stdout
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { type: string }).type);
  assert.deepEqual(types, ['granted', 'released']);
  assert.match((await rig.gate('events', '-n', '20')).stdout, /granted .*x\/g by .*teller/);
});

test('a lost session ends the command, unless it is to keep going', async () => {
  const ends = hold('/x/h', '--', 'sleep', '30');
  const goes = hold(
    '/x/i',
    '--keep-going',
    '--',
    'sh',
    '-c',
    'while [ ! -e go ]; do sleep 0.1; done; exit 4',
  );
  await held('/x/h');
  await held('/x/i');
  const { holds } = (await json('who', '/x/h')) as unknown as { holds: { lock_id: string }[] };
  const { holds: others } = (await json('who', '/x/i')) as unknown as { holds: { lock_id: string }[] };
  const { BrokerHttp } = await import('../../src/client/http.ts');
  const http = new BrokerHttp({ socket: `${rig.state}/broker.sock` });
  await http.break(holds[0]!.lock_id);
  await http.break(others[0]!.lock_id);
  const ended = await ends.outcome;
  assert.equal(ended.status, 1);
  assert.match(ended.stderr, /the locks are lost[\s\S]*SIGTERM/);
  await eventually('it says that it goes on', () => goes.text().includes('runs on'));
  await rig.start('touch', ['go']).outcome;
  assert.equal((await goes.outcome).status, 4);
});

test('a second broker is refused, and names the first', async () => {
  const second = await rig.gate('broker');
  assert.equal(second.status, 1);
  assert.match(second.stderr, /pid \d+|another|already/);
});

test('the broker ends cleanly on SIGTERM', async () => {
  broker.kill('SIGTERM');
  assert.equal((await broker.outcome).status, 0);
  assert.match((await rig.gate('who')).stderr, /no broker is running/);
});
