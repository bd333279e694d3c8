/** The command line without a mount: bad input, options, exit statuses. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { after, before, test } from 'node:test';
import { projectDir } from '../../src/base/version.ts';
import { makeRig, type Rig } from './cli-rig.ts';

let rig: Rig;
before(() => {
  rig = makeRig();
});
after(() => rig.close());

const REFUSALS: readonly { args: (rig: Rig) => string[]; status: number; says: RegExp }[] = [
  { args: () => [], status: 2, says: /Usage: gate/ },
  { args: () => ['upp'], status: 2, says: /unknown command 'upp'/ },
  { args: () => ['up', '--nme', 'x'], status: 2, says: /unknown option '--nme'[\s\S]*--name/ },
  { args: () => ['status', 'a', 'b'], status: 2, says: /too many arguments/ },
  { args: ({ dir }) => ['up', `${dir}/nowhere`], status: 1, says: /no such folder: .*nowhere/ },
  { args: ({ repo }) => ['up', `${repo}/a.txt`], status: 1, says: /a\.txt is not a directory/ },
  {
    args: ({ repo }) => ['up', repo, '--port', '70000'],
    status: 2,
    says: /--port: '70000' is not a whole number/,
  },
  { args: ({ repo }) => ['up', repo, '--name', '../x'], status: 2, says: /'\.\.\/x' is no name for a view/ },
  { args: ({ repo }) => ['up', repo, '--durability', 'some'], status: 2, says: /none of process, power/ },
  { args: ({ repo }) => ['up', repo, '--all'], status: 2, says: /--all takes no REPO/ },
  { args: ({ repo }) => ['up', repo, '--state-dir', `${repo}/state`], status: 1, says: /lies inside/ },
  { args: ({ repo }) => ['up', repo, '--mount', `${repo}/view`], status: 1, says: /lies inside .* itself/ },
  { args: ({ repo }) => ['up', repo, '--mount', '/proc/view'], status: 1, says: /cannot be made/ },
  {
    args: ({ repo, dir }) => ['up', repo, '--state-dir', `${dir}/${'long/'.repeat(30)}`],
    status: 1,
    says: /too long/,
  },
  {
    args: ({ repo }) => ['up', repo, '--state-dir', `${repo}/a.txt`],
    status: 1,
    says: /cannot be (used|written)/,
  },
  // There nothing can be made, and every attempt says that what is above is missing (ENOENT).
  { args: ({ repo }) => ['up', repo, '--state-dir', '/proc/x/y'], status: 1, says: /\/proc\/x\/y cannot be/ },
  { args: () => ['broker', '--state-dir', '/proc/x'], status: 1, says: /\/proc\/x/ },
  { args: () => ['supervise', '--state-dir', '/proc/x'], status: 1, says: /\/proc\/x cannot be/ },
  { args: () => ['down', 'nobody'], status: 1, says: /there is no view 'nobody'/ },
  { args: () => ['unmount', '/tmp'], status: 1, says: /no view is mounted on/ },
  { args: () => ['who', 'x'], status: 1, says: /no broker is running/ },
  { args: () => ['mount', '--root', '/nowhere'], status: 1, says: /does not exist/ },
  { args: () => ['mount'], status: 2, says: /--root DIR.*--remote ADDRESS/ },
  { args: () => ['run'], status: 2, says: /missing required argument/ },
  { args: () => ['run', '--as', 'a b', '--', 'true'], status: 2, says: /no name for an actor/ },
  {
    args: () => ['run', '--', 'no-such-command'],
    status: 127,
    says: /there is no command 'no-such-command'/,
  },
  { args: () => ['hold', '--', 'true'], status: 2, says: /at least one PATH/ },
  { args: () => ['logs', 'nobody'], status: 1, says: /no logs of 'nobody'/ },
];

for (const { args, status, says } of REFUSALS)
  test(`gate ${args({ dir: 'DIR', repo: 'REPO' } as Rig)
    .join(' ')
    .slice(0, 70)} is refused with status ${status}`, async () => {
    const outcome = await rig.gate(...args(rig));
    assert.match(outcome.stderr, says);
    assert.equal(outcome.status, status, outcome.stderr);
    assert.equal(outcome.stdout, '');
    assert.doesNotMatch(outcome.stderr, /\n\s+at /, 'no stack trace');
  });

test('nothing that was refused left a process or a mount', async () => {
  const status = JSON.parse((await rig.gate('status', '--json')).stdout) as Record<string, unknown>;
  assert.equal(status.broker, null);
  assert.equal(status.supervisor, null);
  assert.deepEqual(status.views, []);
});

test('an error is one JSON document with --json', async () => {
  const { stdout, status } = await rig.gate('up', '/nowhere', '--json');
  assert.equal(status, 1);
  assert.match((JSON.parse(stdout) as { error: { message: string } }).error.message, /no such folder/);
});

test('help and version', async () => {
  assert.match((await rig.gate('--help')).stdout, /down +unmount/);
  assert.doesNotMatch((await rig.gate('--help')).stdout, /supervise/);
  assert.match((await rig.gate('up', '--help')).stdout, /GATE_SESSION_TTL_MS/);
  const facts = JSON.parse((await rig.gate('version', '--json')).stdout) as { node: string };
  assert.match(facts.node, /^24\./);
});

test('config.json: its options count, its mistakes are named', async () => {
  mkdirSync(rig.state, { recursive: true });
  for (const [text, says] of [
    ['{', /config\.json is not JSON/],
    ['[]', /one JSON object/],
    ['{"leaseMS": 5}', /no option 'leaseMS'/],
    ['{"leaseMs": "soon"}', /config\.json: leaseMs: 'soon' is not a whole number/],
  ] as const) {
    writeFileSync(`${rig.state}/config.json`, text);
    const outcome = await rig.gate('broker');
    assert.match(outcome.stderr, says);
    assert.equal(outcome.status, 2);
  }
  writeFileSync(`${rig.state}/config.json`, '{}');
});

test('an environment variable is checked, and named', async () => {
  const { stderr, status } = await rig.start(`${import.meta.dirname}/../../gate`, ['broker'], {
    env: { GATE_LEASE_MS: '-1' },
  }).outcome;
  assert.match(stderr, /GATE_LEASE_MS: '-1' is not a whole number/);
  assert.equal(status, 2);
});

test('a port in use is refused when it was asked for', async () => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as { port: number };
  try {
    const alone = await rig.gate('broker', '--port', String(port));
    assert.match(alone.stderr, new RegExp(`${port}`));
    assert.equal(alone.status, 1);
    const up = await rig.gate('up', rig.repo, '--port', String(port));
    assert.equal(up.status, 1);
    assert.match(up.stderr, new RegExp(`the broker ended[\\s\\S]*${port}`));
    assert.deepEqual((JSON.parse((await rig.gate('status', '--json')).stdout) as { views: [] }).views, []);
  } finally {
    server.close();
  }
});

test('a broken database is refused, and stays as it is', async () => {
  const state = `${rig.dir}/broken`;
  mkdirSync(state);
  writeFileSync(`${state}/broker.db`, 'this is no database, whatever its name says'.repeat(100));
  const { stderr, status } = await rig.gate('up', rig.repo, '--state-dir', state);
  assert.equal(status, 1);
  assert.match(stderr, /broker\.db/);
  assert.ok(existsSync(`${state}/broker.db`));
});

test('a state directory that this user cannot write is refused', async () => {
  const state = `${rig.dir}/closed`;
  mkdirSync(state);
  chmodSync(state, 0o500);
  chmodSync(rig.dir, 0o755);
  // Root writes whatever the mode is, so it asks as somebody else.
  const main = `${projectDir}/src/cli/main.ts`;
  const args = ['--disable-warning=ExperimentalWarning', main, 'up', rig.repo, '--state-dir', state];
  const nobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--', process.execPath];
  const root = process.getuid?.() === 0;
  const running = root ? rig.start('setpriv', [...nobody, ...args]) : rig.start(process.execPath, args);
  const { stderr, status } = await running.outcome;
  assert.equal(status, 1, stderr);
  assert.match(stderr, /cannot be written by this user/);
});

test('run passes on the status, the signal and the actor', async () => {
  assert.equal((await rig.gate('run', '--', 'sh', '-c', 'exit 7')).status, 7);
  assert.equal((await rig.gate('run', '--', 'sh', '-c', 'kill -TERM $$')).status, 143);
  assert.equal((await rig.gate('run', '--as', 'alice', '--', 'printenv', 'GATE_ACTOR')).stdout, 'alice\n');
  assert.match((await rig.gate('run', '--', 'printenv', 'GATE_ACTOR')).stdout, /^printenv-[0-9a-z]{6}\n$/);
  assert.equal((await rig.gate('run', '--', 'echo', '--as', 'x')).stdout, '--as x\n');
});

test('run forwards signals', async () => {
  const running = rig.start(`${import.meta.dirname}/../../gate`, [
    'run',
    '--',
    'sh',
    '-c',
    'trap "exit 9" INT; echo on; while :; do sleep 0.05; done',
  ]);
  while (!running.text().includes('on')) await new Promise((done) => setTimeout(done, 20));
  running.kill('SIGINT');
  assert.equal((await running.outcome).status, 9);
});

test('doctor: what it checks, as data', async () => {
  const { checks } = JSON.parse((await rig.gate('doctor', '--json')).stdout) as {
    checks: { name: string; hint: string }[];
  };
  const names = checks.map((check) => check.name);
  for (const name of ['node', 'fuse', 'passthrough', 'state-directory', 'disk-space', 'stale-mounts'])
    assert.ok(names.includes(name), name);
  for (const check of checks) assert.ok(check.hint.length > 10, check.name);
});
