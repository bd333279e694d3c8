/** A view mounted by another machine: here both are this one, and the connection is a Unix socket, or a real sshd's. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { type TestContext, test } from 'node:test';
import { until } from '../../src/base/clock.ts';
import { type Actor, type Gate, type GateOptions, PATIENCE_MS, settle, startGate } from './harness.ts';

/** A view, and the same seen from another machine. */
async function pair(t: TestContext, options: GateOptions = {}): Promise<{ gate: Gate; there: string }> {
  const gate = await startGate(t, { serve: { ttlMs: 3000 }, ...options });
  return { gate, there: await gate.remoteMount() };
}

/** Tells who was let in, in which order. */
function order() {
  const names: string[] = [];
  return {
    names,
    open(name: string, actor: Actor, path: string, flags: string) {
      return actor.open(path, flags).then((file) => {
        names.push(name);
        return file as number;
      });
    },
  };
}

for (const passthrough of [true, false])
  test(`strict order across both doors (passthrough ${passthrough})`, async (t) => {
    const { gate, there } = await pair(t, { passthrough });
    fs.writeFileSync(`${gate.root}/f`, 'x');
    const here = await gate.actor('here');
    const first = await gate.actor('first', { cwd: there });
    const second = await gate.actor('second', { cwd: there });
    const { names, open } = order();
    const a = await open('here', here, 'f', 'WRONLY|TRUNC');
    const waits = [];
    for (const [name, actor, flags] of [
      ['first', first, 'WRONLY|APPEND'],
      ['again', here, 'RDONLY'],
      ['second', second, 'RDONLY'],
    ] as const) {
      if (name === 'again') continue;
      waits.push(open(name, actor, 'f', flags));
      await gate.queued('f', waits.length);
    }
    const last = await gate.actor('last');
    waits.push(open('last', last, 'f', 'WRONLY|APPEND'));
    await gate.queued('f', 3);
    await here.do('write', a, 'here ');
    await here.do('close', a);
    const b = await waits[0]!;
    await settle();
    assert.deepEqual(names, ['here', 'first']);
    await first.do('write', b, 'first ');
    await first.do('close', b);
    const c = await waits[1]!;
    assert.equal(await second.do('read', c), 'here first ');
    assert.deepEqual(names, ['here', 'first', 'second']);
    await second.do('close', c);
    const d = await waits[2]!;
    await last.do('write', d, 'last');
    await last.do('close', d);
    assert.deepEqual(names, ['here', 'first', 'second', 'last']);
    assert.equal(await first.do('readFile', 'f'), 'here first last');
    assert.equal(fs.readFileSync(`${gate.root}/f`, 'utf8'), 'here first last');
    await gate.idle();
  });

test('one name on two machines is two actors; on one machine it is one', async (t) => {
  const { gate, there } = await pair(t);
  fs.writeFileSync(`${gate.root}/f`, 'x');
  const here = await gate.actor('agent');
  const far = await gate.actor('agent', { cwd: there });
  const again = await gate.actor('agent', { cwd: there });
  const file = await far.open('f', 'WRONLY');
  await again.open('f', 'WRONLY');
  const waits = here.open('f');
  await gate.queued('f', 1);
  const { holds } = await gate.session.status('f', gate.volume);
  assert.match(holds[0]!.owner, /^[\w-]+:0\/agent$/);
  await far.do('close', file);
  again.kill('SIGKILL');
  await waits;
});

test('a hundred waiters stall nothing; Ctrl-C and SIGKILL end a wait', async (t) => {
  const { gate, there } = await pair(t);
  fs.writeFileSync(`${gate.root}/f`, 'x');
  fs.writeFileSync(`${gate.root}/g`, 'y');
  const holder = await gate.actor('holder');
  const file = await holder.open('f', 'WRONLY');
  const waiters = gate.sh('for i in $(seq 100); do GATE_ACTOR=w$i cat f & done; wait', { cwd: there });
  await gate.queued('f', 100);
  const began = performance.now();
  const done = await gate.sh('ls; cat g; touch h; mv h i; rm i; stat -c %s f', { cwd: there }).done;
  assert.deepEqual([done.status, done.out], [0, 'f\ng\ny1\n'], done.err);
  assert.ok(performance.now() - began < 15_000);
  for (const signal of ['SIGINT', 'SIGKILL'] as const) {
    const waiter = gate.run('cat', ['f'], { cwd: there });
    await gate.queued('f', 101);
    waiter.child.kill(signal);
    assert.equal((await waiter.done).signal, signal);
    await gate.queued('f', 100);
  }
  await holder.do('close', file);
  assert.equal((await waiters.done).out, 'x'.repeat(100));
  await gate.idle();
});

test('rename, unlink, truncate and chmod wait by replay, and leave the directory free', async (t) => {
  const { gate, there } = await pair(t);
  for (const name of ['a', 'b', 'c', 'd', 'e']) fs.writeFileSync(`${gate.root}/${name}`, 'old');
  const holder = await gate.actor('holder');
  const files = [];
  for (const name of ['a', 'b', 'c', 'd']) files.push(await holder.open(name, 'WRONLY'));
  const far = [];
  for (const [i, op] of [
    ['rename', 'e', 'a'],
    ['unlink', 'b'],
    ['truncate', 'c', 1],
    ['chmod', 'd', 0o600],
  ].entries()) {
    const actor = await gate.actor(`far${i}`, { cwd: there });
    far.push(actor.do(...(op as [string, ...unknown[]])));
  }
  for (const name of ['a', 'b', 'c', 'd']) await gate.queued(name, 1);
  assert.equal((await gate.sh('ls', { cwd: there }).done).out, 'a\nb\nc\nd\ne\n');
  assert.equal((await gate.sh('echo new > x; cat x; rm x', { cwd: there }).done).out, 'new\n');
  assert.ok(far.every((operation) => !operation.over()));
  for (const file of files) await holder.do('close', file);
  await Promise.all(far);
  assert.deepEqual(
    fs.readdirSync(gate.root).filter((name) => name !== '.gate'),
    ['a', 'c', 'd'],
  );
  assert.equal(fs.statSync(`${gate.root}/c`).size, 1);
  assert.equal(fs.statSync(`${gate.root}/d`).mode & 0o777, 0o600);
});

test('what one door changes the other sees: content at once, names and attributes soon', async (t) => {
  const { gate, there } = await pair(t, { mountFlags: ['--attr-valid-ms', '3600000'] });
  const here = gate.mount;
  fs.writeFileSync(`${there}/f`, 'one');
  assert.equal(fs.readFileSync(`${here}/f`, 'utf8'), 'one');
  for (let i = 0; i < 20; i++) {
    const [from, to] = i % 2 === 0 ? [here, there] : [there, here];
    const text = 'text '.repeat(i * 400);
    fs.writeFileSync(`${from}/f`, text);
    assert.equal(fs.readFileSync(`${to}/f`, 'utf8'), text);
    fs.appendFileSync(`${from}/f`, 'more');
    assert.equal(fs.readFileSync(`${to}/f`, 'utf8'), `${text}more`);
  }
  const soon = async (what: string, probe: () => boolean) => assert.ok(await until(probe, PATIENCE_MS), what);
  for (const [from, to] of [
    [here, there],
    [there, here],
  ] as const) {
    assert.ok(!fs.existsSync(`${to}/new`));
    fs.writeFileSync(`${from}/new`, 'n');
    await soon('a new file', () => fs.existsSync(`${to}/new`));
    fs.chmodSync(`${from}/new`, 0o600);
    await soon('a mode', () => (fs.statSync(`${to}/new`).mode & 0o777) === 0o600);
    fs.mkdirSync(`${from}/dir`);
    fs.renameSync(`${from}/new`, `${from}/dir/moved`);
    await soon('a new directory', () => fs.existsSync(`${to}/dir/moved`));
    await soon('an old name', () => !fs.existsSync(`${to}/new`));
    assert.deepEqual(fs.readdirSync(`${to}/dir`), ['moved']);
    fs.linkSync(`${from}/dir/moved`, `${from}/linked`);
    await soon(
      'a second name',
      () => fs.existsSync(`${to}/linked`) && fs.statSync(`${to}/dir/moved`).nlink === 2,
    );
    fs.rmSync(`${from}/dir`, { recursive: true });
    await soon('a removed directory', () => !fs.existsSync(`${to}/dir`));
    await soon('its listing', () => !fs.readdirSync(to).includes('dir'));
    fs.rmSync(`${from}/linked`);
    await soon('a removed file', () => !fs.existsSync(`${to}/linked`));
  }
});

test('names are bytes, times have nanoseconds, attributes and modes come through', async (t) => {
  const { there, gate } = await pair(t);
  const name = Buffer.from([0xff, 0xfe, 0x41]);
  fs.writeFileSync(Buffer.concat([Buffer.from(`${there}/`), name]), 'bytes');
  assert.deepEqual(fs.readdirSync(gate.root, { encoding: 'buffer' }).map(String), [String(name)]);
  const script = `
set -e
echo text > f; touch -d '2001-02-03 04:05:06.123456789' f; stat -c %y f
setfattr -n user.colour -v red f; getfattr --only-values -n user.colour f; echo
ln -s f l; readlink l; mkfifo p; test -p p; chmod 4711 f; stat -c %a f
truncate -s 5G big; stat -c %s big; fallocate -l 1M full; stat -c %s full; rm big full
cp /bin/true t; ./t; mkdir -p d/e; mv d x; rmdir x/e x; : > empty; cat empty; df . > /dev/null; sync -f f`;
  const done = await gate.sh(script, { cwd: there }).done;
  assert.equal(done.err, '');
  assert.equal(done.out, `2001-02-03 04:05:06.123456789 +0000\nred\nf\n4711\n5368709120\n1048576\n`);
  const errors = await gate.sh('cat none; rmdir l; mkdir f; cat f/x; ln f f; cd p; true', { cwd: there })
    .done;
  assert.match(
    errors.err,
    /No such file[\s\S]*Not a directory[\s\S]*File exists[\s\S]*Not a directory[\s\S]*File exists[\s\S]*Not a directory/,
  );
});

test('git clones, commits and checks out through it, and both doors agree', async (t) => {
  const { gate, there } = await pair(t);
  const script = `
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main one; cd one
for i in $(seq 50); do mkdir -p d$((i % 5)); echo "content $i" > d$((i % 5))/f$i; done
git add .; git commit -qm first; echo changed >> d1/f1; git commit -qam second
cd ..; git clone -q one two; cd two; git checkout -q -b side HEAD~1; git status --porcelain; cat d1/f1; git checkout -q main; cat d1/f1
git -C ../one fsck --strict; git log --oneline | wc -l`;
  const done = await gate.sh(script, { cwd: there, env: { HOME: gate.dir } }).done;
  assert.deepEqual([done.status, done.out], [0, 'content 1\ncontent 1\nchanged\n2\n'], done.err);
  const here = await gate.sh('git -C two status --porcelain; git -C two diff --stat main side', {
    env: { HOME: gate.dir },
  }).done;
  assert.match(here.out, /^ d1\/f1 \| 1 -\n/);
});

test('an ancestor that has the file open: its child joins; O_NONBLOCK does not wait', async (t) => {
  const { gate, there } = await pair(t);
  const joined = await gate.sh('exec 3> f; echo one >&3; cat f; echo two >> f; cat f', { cwd: there }).done;
  assert.deepEqual([joined.status, joined.out], [0, 'one\none\ntwo\n'], joined.err);
  const holder = await gate.actor('holder');
  await holder.open('f', 'WRONLY');
  const far = await gate.actor('far', { cwd: there });
  await assert.rejects(far.open('f', 'RDONLY|NONBLOCK'), /EAGAIN/);
  assert.match((await far.do('readFile', '.gate/why')) as string, /f: timeout/);
});

test('what is mounted there ends: its locks are free at once', async (t) => {
  const { gate, there } = await pair(t);
  fs.writeFileSync(`${gate.root}/f`, 'x');
  const far = await gate.actor('far', { cwd: there });
  await far.open('f', 'WRONLY');
  assert.ok(await gate.isHeld('f'));
  spawnSync('umount', ['-l', there]);
  far.kill('SIGKILL');
  await gate.idle();
});
