/** Never write over what you have not seen: agents that read, think and write, through real mounts. */
import assert from 'node:assert/strict';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { until } from '../../src/base/clock.ts';
import type { GateEvent } from '../../src/broker/wire.ts';
import { type Gate, type GateOptions, PATIENCE_MS, startGate } from './harness.ts';

const modes: Record<string, GateOptions> = {
  delegated: {},
  'through the view': { passthrough: false },
  'by the broker': { delegation: false },
};

async function startWith(t: TestContext, options: GateOptions = {}): Promise<Gate> {
  const gate = await startGate(t, options);
  writeFileSync(`${gate.root}/plan.md`, 'one\n');
  return gate;
}

/** The newest event of this type on a path. */
async function event(gate: Gate, type: string, path = 'plan.md'): Promise<GateEvent> {
  const found = await until(
    async () => (await gate.session.history(path, gate.volume)).find((e) => e.type === type),
    PATIENCE_MS,
  );
  assert.ok(found, `no event ${type}`);
  return found;
}

const told = async (gate: Gate): Promise<GateEvent[]> =>
  (await gate.session.history('plan.md', gate.volume)).filter((e) => e.type.startsWith('stale_'));

for (const [mode, options] of Object.entries(modes)) {
  test(`${mode}: two agents read, both edit, both save: the second is refused and learns why`, async (t) => {
    const gate = await startWith(t, options);
    const [alice, bob] = [await gate.actor('alice'), await gate.actor('bob')];
    assert.equal(await alice.do('readFile', 'plan.md'), 'one\n');
    assert.equal(await bob.do('readFile', 'plan.md'), 'one\n');
    await bob.do('writeFile', 'plan.md', 'one\nof bob\n');
    await assert.rejects(alice.do('writeFile', 'plan.md', 'one\nof alice\n'), /ESTALE/);
    assert.equal(readFileSync(`${gate.root}/plan.md`, 'utf8'), 'one\nof bob\n');

    const why = (await alice.do('readFile', '.gate/why')) as string;
    assert.match(why, /plan\.md: stale: 0\/bob .*changed it .* read it again, then write/);
    const { owner, whose } = await event(gate, 'stale_refused');
    assert.deepEqual({ owner, whose }, { owner: '0/alice', whose: '0/bob' });

    assert.equal(await alice.do('readFile', 'plan.md'), 'one\nof bob\n');
    await alice.do('writeFile', 'plan.md', 'one\nof bob\nof alice\n');
    await alice.do('writeFile', 'plan.md', 'again\n');
    assert.equal((await told(gate)).length, 1);
  });

  test(`${mode}: a file renamed over an unseen change is refused; so is a truncate`, async (t) => {
    const gate = await startWith(t, options);
    const [alice, bob] = [await gate.actor('alice'), await gate.actor('bob')];
    await alice.do('readFile', 'plan.md');
    await bob.do('writeFile', 'new', 'of bob\n');
    await bob.do('rename', 'new', 'plan.md');
    await alice.do('writeFile', 'plan.md.tmp', 'of alice\n');
    await assert.rejects(alice.do('rename', 'plan.md.tmp', 'plan.md'), /ESTALE/);
    await assert.rejects(alice.do('truncate', 'plan.md', 0), /ESTALE/);
    assert.equal(readFileSync(`${gate.root}/plan.md`, 'utf8'), 'of bob\n');
    assert.equal((await event(gate, 'stale_refused')).whose, '0/bob');
    await alice.do('readFile', 'plan.md');
    await alice.do('rename', 'plan.md.tmp', 'plan.md');
    assert.equal(readFileSync(`${gate.root}/plan.md`, 'utf8'), 'of alice\n');
  });
}

test('others than agents are let through, and it is an event that names whose change it was', async (t) => {
  const gate = await startWith(t);
  const [one, two] = [await gate.actor(), await gate.actor()];
  await one.do('readFile', 'plan.md');
  await two.do('writeFile', 'plan.md', 'of two\n');
  await one.do('writeFile', 'plan.md', 'of one\n');
  const { owner, whose, message } = await event(gate, 'stale_written');
  assert.match(owner!, new RegExp(`^0/pid:${one.pid}\\.`));
  assert.match(whose!, new RegExp(`^0/pid:${two.pid}\\.`));
  assert.match(message!, /written over unseen/);
});

test('--stale-writes deny, warn and off', async (t) => {
  const outcome = async (policy: string): Promise<[boolean, string[]]> => {
    const gate = await startWith(t, { mountFlags: ['--stale-writes', policy] });
    const [alice, bob] = [await gate.actor(policy === 'deny' ? undefined : 'alice'), await gate.actor('bob')];
    await alice.do('readFile', 'plan.md');
    await bob.do('writeFile', 'plan.md', 'of bob\n');
    const wrote = await alice.do('writeFile', 'plan.md', 'of alice\n').then(
      () => true,
      () => false,
    );
    if (policy !== 'off') await event(gate, policy === 'deny' ? 'stale_refused' : 'stale_written');
    return [wrote, (await told(gate)).map((e) => e.type)];
  };
  assert.deepEqual(await outcome('deny'), [false, ['stale_refused']]);
  assert.deepEqual(await outcome('warn'), [true, ['stale_written']]);
  assert.deepEqual(await outcome('off'), [true, []]);
});

test('what an agent stores through a mapping after it closed the file is its own change', async (t) => {
  const gate = await startWith(t);
  writeFileSync(`${gate.root}/plan.md`, '.'.repeat(4096));
  const agent = `
import mmap, os, time
open('plan.md').read()
fd = os.open('plan.md', os.O_RDWR)
m = mmap.mmap(fd, 4096)
os.close(fd)
for i in range(5):
    m[i:i + 1] = b'x'
    m.flush()
    time.sleep(.02)
    open('plan.md', 'r+').close()
    os.truncate('plan.md', 4096)
m.close()
open('plan.md', 'w').write('whole')
`;
  const done = await gate.run('python3', ['-c', agent], { env: { GATE_ACTOR: 'alice' } }).done;
  assert.equal(done.status, 0, done.err);
  assert.deepEqual(await told(gate), []);
});

test('what somebody else wrote is kept when it is swept away, with --stale-writes off too', async (t) => {
  const gate = await startWith(t, { mountFlags: ['--stale-writes', 'off'] });
  const [alice, bob] = [await gate.actor('alice'), await gate.actor('bob')];
  await alice.do('writeFile', 'plan.md', 'of alice');
  await bob.do('writeFile', 'plan.md', 'of bob');
  await bob.do('writeFile', 'made', 'of bob');
  await alice.do('unlink', 'made');
  const { conflicts } = JSON.parse((await gate.gate(['conflicts', '--json']).done).out);
  assert.deepEqual(
    conflicts.map(({ state, owner }: { state: string; owner: string }) => [state, owner]),
    [
      ['sweep', '0/alice'],
      ['sweep', '0/bob'],
    ],
  );
});

test('changes through another mount, and beside the view, count', async (t) => {
  const gate = await startWith(t);
  const second = await gate.secondMount();
  const [alice, bob] = [await gate.actor('alice'), await gate.actor('bob', { cwd: second })];
  await alice.do('readFile', 'plan.md');
  await bob.do('writeFile', 'plan.md', 'of bob\n');
  await assert.rejects(alice.do('writeFile', 'plan.md', 'of alice\n'), /ESTALE/);
  assert.equal((await event(gate, 'stale_refused')).whose, '0/bob');

  assert.equal(await alice.do('readFile', 'plan.md'), 'of bob\n');
  writeFileSync(`${gate.root}/new`, 'of an editor beside the view\n');
  renameSync(`${gate.root}/new`, `${gate.root}/plan.md`);
  await assert.rejects(alice.do('writeFile', 'plan.md', 'of alice\n'), /ESTALE/);
  assert.ok(await until(async () => (await told(gate)).length === 2, PATIENCE_MS));
  assert.match((await told(gate))[0]!.message!, /through another mount or beside the view/);
  assert.equal(readFileSync(`${gate.root}/plan.md`, 'utf8'), 'of an editor beside the view\n');
});

test('what a tool of the agent swept over was not seen; what its command line names was', async (t) => {
  const gate = await startWith(t);
  const bob = await gate.actor('bob');
  const asAlice = (script: string) => gate.sh(script, { env: { GATE_ACTOR: 'alice' } }).done;
  const save = "bash -c 'echo alice >plan.md'";
  // One shell is the agent: what runs in it are its tools.
  const agent = gate.sh(
    `grep -r one . >../swept && touch ../1 && until [ -e ../2 ]; do sleep 0.02; done
     bash -c 'echo blind >plan.md' && cat plan.md >../seen && touch ../3 && until [ -e ../4 ]; do sleep 0.02; done
     ! ${save} 2>../refused && sed -n 1p plan.md >../seen && ${save} && touch ../5`,
    { env: { GATE_ACTOR: 'alice' } },
  );
  const there = async (name: string) =>
    assert.ok(await until(() => exists(`${gate.dir}/${name}`) || agent.over, PATIENCE_MS), name);
  await there('1');
  await bob.do('writeFile', 'plan.md', 'bob 1\n');
  writeFileSync(`${gate.dir}/2`, '');
  await there('3');
  await bob.do('readFile', 'plan.md');
  await bob.do('writeFile', 'plan.md', 'bob 2\n');
  writeFileSync(`${gate.dir}/4`, '');
  const { status, err } = await agent.done;
  assert.equal(status, 0, err);
  assert.match(readFileSync(`${gate.dir}/refused`, 'utf8'), /Stale file handle/);
  assert.equal(readFileSync(`${gate.dir}/seen`, 'utf8'), 'bob 2\n');
  assert.equal((await asAlice('cat plan.md')).out, 'alice\n');
});

test('a tool that has itself read the change may write it: a formatter is not refused', async (t) => {
  const gate = await startWith(t);
  const bob = await gate.actor('bob');
  const agent = gate.sh(
    `cat plan.md && touch ../1 && until [ -e ../2 ]; do sleep 0.02; done
     python3 -c 'import sys, glob
for name in glob.glob("*.md"):
    text = open(name).read()
    open(name, "w").write(text.upper())'`,
    { env: { GATE_ACTOR: 'alice' } },
  );
  assert.ok(await until(() => exists(`${gate.dir}/1`), PATIENCE_MS));
  await bob.do('writeFile', 'plan.md', 'of bob\n');
  writeFileSync(`${gate.dir}/2`, '');
  assert.equal((await agent.done).status, 0);
  assert.equal(readFileSync(`${gate.root}/plan.md`, 'utf8'), 'OF BOB\n');
  assert.deepEqual(await told(gate), []);
});

test('appending writes over nothing', async (t) => {
  const gate = await startWith(t);
  const [alice, bob] = [await gate.actor('alice'), await gate.actor('bob')];
  await alice.do('readFile', 'plan.md');
  await bob.do('writeFile', 'plan.md', 'of bob\n');
  const file = await alice.open('plan.md', 'WRONLY|APPEND');
  await alice.do('write', file, 'of alice\n');
  await alice.do('close', file);
  assert.equal(readFileSync(`${gate.root}/plan.md`, 'utf8'), 'of bob\nof alice\n');
});

function exists(path: string): boolean {
  try {
    readFileSync(path);
    return true;
  } catch {
    return false;
  }
}

test('who sets the times of a file that it has seen has still seen it', async (t) => {
  const gate = await startWith(t);
  const alice = await gate.actor('alice');
  await alice.do('readFile', 'plan.md');
  const touch = gate.sh('touch -d @5 plan.md', { env: { GATE_ACTOR: 'alice' } });
  assert.equal((await touch.done).status, 0);
  await alice.do('writeFile', 'plan.md', 'two\n');
  assert.deepEqual(await told(gate), []);
});
