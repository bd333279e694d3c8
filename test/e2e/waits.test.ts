/** What a waiter and its neighbours can see, how a wait ends otherwise than by its turn, and who is one actor. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { until } from '../../src/base/clock.ts';
import { ended, PATIENCE_MS, settle, startGate } from './harness.ts';

/** A view in which `holder` has `f` open for writing. */
async function held(t: Parameters<typeof startGate>[0], options: Parameters<typeof startGate>[1] = {}) {
  const gate = await startGate(t, options);
  writeFileSync(`${gate.root}/f`, 'x');
  const holder = await gate.actor('holder');
  const file = await holder.open('f', 'WRONLY');
  return { gate, holder, file };
}

test('after three seconds a waiter is told on its terminal who is in the way', async (t) => {
  const { gate, holder, file } = await held(t);
  const waiter = gate.run('script', ['-qec', 'cat f', '/dev/null']);
  let seen = '';
  waiter.child.stdout!.on('data', (text) => (seen += text));
  await until(() => seen.includes('gate:'), PATIENCE_MS);
  assert.match(
    seen,
    /gate: waiting for \S+\/f: .*\(pid \d+\) has it open to write since \d\d:\d\d:\d\d\. Ctrl-C gives up; gate who \S+\/f/,
  );
  assert.ok(seen.includes(`(pid ${holder.pid})`));
  await holder.do('close', file);
  assert.equal((await waiter.done).status, 0);
});

test('a full-screen program is not written into', async (t) => {
  const { gate, holder, file } = await held(t);
  const waiter = gate.run('script', ['-qec', 'stty raw; cat f; stty sane', '/dev/null']);
  const plain = gate.run('script', ['-qec', 'cat f', '/dev/null']);
  let seen = '';
  plain.child.stdout!.on('data', (text) => (seen += text));
  await until(() => seen.includes('gate:'), PATIENCE_MS);
  await holder.do('close', file);
  assert.doesNotMatch((await waiter.done).out, /gate:/);
});

test('.gate is not listed, and tells who waits and why something was refused', async (t) => {
  const { gate, holder, file } = await held(t);
  assert.ok(!((await holder.do('readdir', '.')) as string[]).includes('.gate'));
  assert.equal(await holder.do('readFile', '.gate/why'), 'Nothing was refused to you.\n');
  assert.equal(await holder.do('readFile', '.gate/who'), 'Nobody waits.\n');
  const other = await gate.actor('other');
  await assert.rejects(other.open('f', 'RDONLY|NONBLOCK'), /EAGAIN/);
  assert.match((await other.do('readFile', '.gate/why')) as string, /^0 s ago: f: timeout: .*holder/);
  const opened = other.open('f');
  await gate.queued('f', 1);
  assert.match(
    (await holder.do('readFile', '.gate/who')) as string,
    new RegExp(`^f: .*\\(pid ${other.pid}, 0/other\\) waits to read, behind .*\\(pid ${holder.pid}`),
  );
  for (const op of [
    ['writeFile', '.gate/who', ''],
    ['mkdir', '.gate'],
    ['mkdir', '.gate/x'],
    ['unlink', '.gate/who'],
    ['rename', '.gate/who', 'x'],
    ['rename', 'f', '.gate/f'],
    ['chmod', '.gate/who', 0o777],
  ] as const)
    await assert.rejects(
      other.do(...(op as unknown as [string, ...string[]])),
      /EACCES|EEXIST|EXDEV|EISDIR/,
      op.join(' '),
    );
  await holder.do('close', file);
  await opened;
});

test('a wait limit ends a wait with EAGAIN', async (t) => {
  const { gate, holder } = await held(t, { mountFlags: ['--acquire-timeout-ms', '200'] });
  const other = await gate.actor('other');
  await assert.rejects(other.open('f', 'WRONLY'), /EAGAIN/);
  await assert.rejects(other.do('unlink', 'f'), /EAGAIN/);
  await assert.rejects(other.do('rename', 'f', 'g'), /EAGAIN/);
  assert.ok(!ended(holder.child));
  assert.equal(await gate.waiting('f'), 0);
});

test('scanners that are named read without a lock after a moment, and are noted', async (t) => {
  const { gate } = await held(t, { mountFlags: ['--scanners', 'grep'] });
  const done = await gate.run('grep', ['-r', 'x', '.']).done;
  assert.match(done.out, /f:x/);
  const passed = await until(
    async () => (await gate.session.history('f', gate.volume)).find((e) => e.type === 'passed'),
    PATIENCE_MS,
  );
  assert.match(passed!.message ?? '', /grep read it without a lock/);
  const writer = gate.sh('echo y >> f');
  await gate.queued('f', 1);
  writer.child.kill('SIGKILL');
});

test('one name is one actor, with all its descendants; another is not', async (t) => {
  const gate = await startGate(t);
  const [a, again] = await Promise.all([gate.actor('agent'), gate.actor('agent')]);
  const file = await a!.open('f', 'WRONLY|CREAT');
  await again!.open('f', 'RDWR');
  const child = await gate.sh('cat f; echo more >> f', { env: { GATE_ACTOR: 'agent' } }).done;
  assert.equal(child.status, 0, child.err);
  const stranger = await gate.actor('stranger');
  const opened = stranger.open('f');
  await gate.queued('f', 1);
  await a!.do('close', file);
  again!.kill('SIGKILL');
  await opened;
});

test('an agent is found by its name, and is one actor with its tools', async (t) => {
  const gate = await startGate(t, { mountFlags: ['--agents', 'myagent'] });
  copyFileSync('/bin/bash', `${gate.dir}/myagent`);
  const script = 'exec 3>f; (exec 3>&-; echo one >> f; sh -c "echo two >> f"; cat f)';
  const done = await gate.run(`${gate.dir}/myagent`, ['-c', script]).done;
  assert.deepEqual([done.out, done.status], ['one\ntwo\n', 0], done.err);
  // The same by an ordinary shell works, too, because the tools' ancestor has the file open; two agents do not share.
  spawnSync('mkfifo', [`${gate.dir}/hang`]);
  const first = gate.run(`${gate.dir}/myagent`, ['-c', 'exec 3>g 4<>../hang; read -t 60 <&4']);
  await until(() => gate.isHeld('g'), PATIENCE_MS);
  const second = gate.run(`${gate.dir}/myagent`, ['-c', 'cat g; :']);
  await gate.queued('g', 1);
  first.child.kill('SIGKILL');
  assert.equal((await second.done).status, 0);
});

test('--owner makes everybody in a view one owner', async (t) => {
  const { gate } = await held(t, { mountFlags: ['--owner', 'team'] });
  const other = await gate.actor('other');
  await other.open('f', 'WRONLY');
  assert.deepEqual(
    (await gate.session.status('f', gate.volume)).holds.map((hold) => hold.owner),
    ['team'],
  );
});

for (const delegation of [true, false])
  test(`the broker restarts: waits go on, nothing fails, order holds (${delegation ? 'delegated' : 'by the broker'})`, async (t) => {
    const { gate, holder, file } = await held(t, { delegation });
    const [first, second] = await Promise.all([gate.actor('first'), gate.actor('second')]);
    const order: string[] = [];
    const one = first!.open('f', 'WRONLY').then((got) => {
      order.push('first');
      return got;
    });
    await gate.queued('f', 1);
    const two = second!.do('readFile', 'f').then(() => order.push('second'));
    await gate.queued('f', 2);
    gate.broker.kill('SIGKILL');
    await until(() => ended(gate.broker), PATIENCE_MS);
    const during = holder.do('writeFile', 'elsewhere', 'written while there is no broker');
    await gate.startBroker();
    await during;
    await settle();
    assert.deepEqual(order, []);
    await holder.do('close', file);
    await first!.do('close', await one);
    await two;
    assert.deepEqual(order, ['first', 'second']);
    await gate.idle();
  });

test('the broker is gone for good: opens fail with ENOLCK, what needs no lock works, and all recovers', async (t) => {
  const { gate, holder, file } = await held(t, { brokerFlags: ['--session-ttl-ms', '1000'] });
  gate.broker.kill('SIGKILL');
  await until(() => ended(gate.broker), PATIENCE_MS);
  const other = await gate.actor('other');
  // A delegate goes on by itself until its session has surely ended.
  const refused = () => other.do('writeFile', 'new', '').then(String, (error: Error) => error.message);
  await until(async () => (await refused()) === 'ENOLCK', PATIENCE_MS, 50);
  await assert.rejects(other.do('writeFile', 'new', ''), /ENOLCK/);
  await assert.rejects(other.do('mkdir', 'dir'), /ENOLCK/);
  assert.ok(((await other.do('readdir', '.')) as string[]).includes('f'));
  await other.do('stat', 'f');
  await gate.startBroker();
  await until(
    () =>
      other.do('writeFile', 'new', 'back').then(
        () => true,
        () => false,
      ),
    PATIENCE_MS,
    50,
  );
  assert.equal(readFileSync(`${gate.root}/new`, 'utf8'), 'back');
  await gate.connect();
  await holder.do('close', file);
  await gate.idle();
});
