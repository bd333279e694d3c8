/** Who waits for whom through a real mount: the promises of the README, in both modes of the data path. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { until } from '../../src/base/clock.ts';
import { BrokerHttp } from '../../src/client/index.ts';
import { ended, type Gate, type GateOptions, PATIENCE_MS, settle, startGate } from './harness.ts';

/** Notes a name when a promise is kept, and passes its value on. */
function note(names: string[], name: string): <T>(value: T) => T {
  return (value) => {
    names.push(name);
    return value;
  };
}

/** How data travels, and who decides the locks. */
const modes: Record<string, GateOptions> = {
  delegated: {},
  'through the view': { passthrough: false },
  'by the broker': { delegation: false },
  'in place': { inPlace: true },
};

for (const [mode, options] of Object.entries(modes)) {
  const start = (t: Parameters<typeof startGate>[0]): Promise<Gate> => startGate(t, options);

  test(`${mode}: writer, then W2, R3, R4, W5 get in as W2, R3 and R4 together, W5`, async (t) => {
    const gate = await start(t);
    writeFileSync(`${gate.root}/f`, 'x');
    const order: string[] = [];
    const [w1, w2, r3, r4, w5] = await Promise.all(
      ['w1', 'w2', 'r3', 'r4', 'w5'].map((name) => gate.actor(name)),
    );
    const f1 = await w1!.open('f', 'WRONLY');
    const waits = [
      [w2!, 'WRONLY', 'w2'],
      [r3!, 'RDONLY', 'r3'],
      [r4!, 'RDONLY', 'r4'],
      [w5!, 'WRONLY', 'w5'],
    ] as const;
    const files: Record<string, Promise<unknown>> = {};
    for (const [i, [actor, flags, name]] of waits.entries()) {
      files[name] = actor.open('f', flags).then((file) => {
        order.push(name);
        return file;
      });
      await gate.queued('f', i + 1);
    }
    await w1!.do('close', f1);
    const f2 = await files.w2;
    await settle();
    assert.deepEqual(order, ['w2']);
    await w2!.do('close', f2);
    const [f3, f4] = await Promise.all([files.r3, files.r4]);
    await settle();
    assert.deepEqual([...order].sort(), ['r3', 'r4', 'w2']);
    await r3!.do('close', f3);
    await settle();
    assert.ok(!order.includes('w5'), 'one reader is still inside');
    await r4!.do('close', f4);
    await w5!.do('close', await files.w5);
    assert.equal(order.at(-1), 'w5');
    await gate.idle();
  });

  test(`${mode}: what a writer wrote is what the next reader sees, whole`, async (t) => {
    const gate = await start(t);
    const [a, b] = await Promise.all([gate.actor('a'), gate.actor('b')]);
    const file = await a!.open('new', 'WRONLY|CREAT');
    const text = b!.do('readFile', 'new');
    await gate.queued('new', 1);
    for (let i = 0; i < 100; i++) await a!.do('write', file, `line ${i}\n`);
    assert.equal(text.over(), false);
    await a!.do('close', file);
    assert.equal(((await text) as string).split('\n').length, 101);
  });

  test(`${mode}: two that hold a file each and open the other's: exactly one gets EDEADLK`, async (t) => {
    const gate = await start(t);
    for (const name of ['f', 'g']) writeFileSync(`${gate.root}/${name}`, name);
    const [a, b] = await Promise.all([gate.actor('a'), gate.actor('b')]);
    const fa = await a!.open('f', 'RDWR');
    await b!.open('g', 'RDWR');
    const ag = a!.open('g', 'RDWR');
    await gate.queued('g', 1);
    await assert.rejects(b!.open('f', 'RDWR'), /EDEADLK/);
    assert.equal(ag.over(), false);
    b!.kill('SIGKILL');
    await ag;
    await a!.do('close', fa);
  });

  test(`${mode}: SIGINT and SIGKILL end a waiter at once and free its place`, async (t) => {
    const gate = await start(t);
    writeFileSync(`${gate.root}/f`, 'x');
    const holder = await gate.actor('holder');
    const file = await holder.open('f', 'WRONLY');
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const waiter = gate.run('cat', ['f']);
      await gate.queued('f', 1);
      waiter.child.kill(signal);
      assert.equal((await waiter.done).signal, signal);
      await gate.queued('f', 0);
    }
    // A place in the middle of the queue that is given up holds nobody up.
    const middle = gate.sh('exec 3>>f');
    await gate.queued('f', 1);
    const last = gate.run('cat', ['f']);
    await gate.queued('f', 2);
    middle.child.kill('SIGKILL');
    await gate.queued('f', 1);
    await holder.do('close', file);
    assert.equal((await last.done).out, 'x');
  });

  test(`${mode}: a signal with SA_RESTART does not end a wait`, async (t) => {
    const gate = await start(t);
    writeFileSync(`${gate.root}/f`, 'x');
    const holder = await gate.actor('holder');
    const file = await holder.open('f', 'WRONLY');
    const script =
      'import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\nsignal.siginterrupt(signal.SIGALRM, False)\nsignal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)\nx = open("f").read()\nsignal.setitimer(signal.ITIMER_REAL, 0)\nprint(x)';
    const waiter = gate.run('python3', ['-c', script]);
    await gate.queued('f', 1);
    await settle();
    assert.equal(waiter.over, false);
    await holder.do('close', file);
    assert.deepEqual([(await waiter.done).out, (await waiter.done).status], ['x\n', 0]);
  });

  test(`${mode}: a killed holder's lock is free at once`, async (t) => {
    const gate = await start(t);
    writeFileSync(`${gate.root}/f`, 'x');
    const holder = await gate.actor('holder');
    await holder.open('f', 'WRONLY');
    const next = await gate.actor('next');
    const opened = next.open('f', 'WRONLY');
    await gate.queued('f', 1);
    holder.kill('SIGKILL');
    await opened;
  });

  test(`${mode}: a child joins the lock of the shell that opened the file`, async (t) => {
    const gate = await start(t);
    const script =
      'echo one > f; { echo two >> f; cat f >&2; sh -c "echo three >> f"; } > g 2>h; { cat f; } 3>> f';
    const done = await gate.sh(script).done;
    assert.equal(done.status, 0, done.err);
    assert.equal(readFileSync(`${gate.root}/f`, 'utf8'), 'one\ntwo\nthree\n');
    assert.equal(done.out, 'one\ntwo\nthree\n');
  });

  test(`${mode}: O_NONBLOCK does not wait`, async (t) => {
    const gate = await start(t);
    writeFileSync(`${gate.root}/f`, 'x');
    const [a, b] = await Promise.all([gate.actor('a'), gate.actor('b')]);
    await a!.open('f', 'WRONLY');
    await assert.rejects(b!.open('f', 'RDONLY|NONBLOCK'), /EAGAIN/);
  });

  test(`${mode}: excluded names take no lock`, async (t) => {
    const gate = await start(t);
    const [a, b] = await Promise.all([gate.actor('a'), gate.actor('b')]);
    await a!.do('mkdir', '.git');
    await a!.open('.git/index', 'WRONLY|CREAT');
    await a!.open('out.log', 'WRONLY|CREAT');
    await b!.open('.git/index', 'RDWR');
    await b!.open('out.log', 'WRONLY|APPEND');
    assert.equal(await gate.waiting('out.log'), 0);
  });
}

/** Path operations that meet another actor's write lock: wait for their turn, and freeze nobody. */
const pathOperations: Record<string, (at: string) => string> = {
  'mv onto it': (at) => `mv -f ${at}other ${at}f && cat ${at}f`,
  'mv away': (at) => `mv ${at}f ${at}moved && cat ${at}moved`,
  rm: (at) => `rm ${at}f && ! test -e ${at}f`,
  truncate: (at) => `truncate -s 1 ${at}f && cat ${at}f`,
  'sed -i': (at) => `sed -i s/held/changed/ ${at}f && cat ${at}f`,
  'atomic save': (at) =>
    `python3 -c 'import os; open("${at}t","w").write("saved"); os.replace("${at}t", "${at}f")' && cat ${at}f`,
  chmod: (at) => `chmod 600 ${at}f && stat -c %a ${at}f`,
  setfattr: (at) =>
    `setfattr -n user.x -v 1 ${at}f && getfattr --absolute-names --only-values -n user.x ${at}f`,
  touch: (at) => `touch -d @1 ${at}f && stat -c %Y ${at}f`,
  'ln onto a name': (at) => `ln -f ${at}other ${at}f && cat ${at}f`,
  'rm -r of the directory': (at) => `cd ${at}.. && rm -r d && ! test -e d`,
  'mv of the directory': (at) => `cd ${at}.. && mv d e && cat e/f`,
};

for (const [name, script] of Object.entries(pathOperations))
  for (const [how, delegation] of [
    ['absolute', true],
    ['relative', true],
    ['absolute', false],
    ['relative', false],
  ] as const)
    test(`${name}, by ${how} path, ${delegation ? 'delegated' : 'by the broker'}, waits for the writer, then succeeds; the directory stays free`, async (t) => {
      const gate = await startGate(t, { delegation });
      const dir = `${gate.mount}/d`;
      const holder = await gate.actor('holder');
      await holder.do('mkdir', 'd');
      await holder.do('writeFile', 'd/other', 'other');
      const file = await holder.open('d/f', 'RDWR|CREAT');
      await holder.do('write', file, 'held');
      const waiter = gate.sh(script(how === 'absolute' ? `${dir}/` : './'), {
        cwd: how === 'absolute' ? gate.mount : dir,
      });
      await until(async () => (await gate.waiting('d/f')) > 0 || waiter.over, PATIENCE_MS);
      assert.equal(waiter.over, false, JSON.stringify(waiter.over && (await waiter.done)));

      // Meanwhile everybody else goes on, the holder included.
      const other = await gate.actor('other');
      assert.ok(((await other.do('readdir', 'd')) as string[]).includes('f'));
      await other.do('stat', 'd/f');
      if (!name.includes('directory')) {
        await other.do('writeFile', 'd/new', 'new');
        await other.do('unlink', 'd/new');
      }
      await holder.do('write', file, '!');
      await holder.do('fsync', file);
      assert.equal(waiter.over, false);
      await holder.do('close', file);
      const done = await waiter.done;
      assert.equal(done.status, 0, done.err);
      assert.equal(done.err, '');
      await gate.idle();
    });

test('Ctrl-C ends the wait of a path operation', async (t) => {
  const gate = await startGate(t);
  const holder = await gate.actor('holder');
  const file = await holder.open('f', 'WRONLY|CREAT');
  for (const command of [
    ['rm', 'f'],
    ['truncate', '-s', '0', 'f'],
    ['mv', 'f', 'g'],
  ]) {
    const waiter = gate.run(command[0]!, command.slice(1));
    await gate.queued('f', 1);
    waiter.child.kill('SIGINT');
    assert.equal((await waiter.done).signal, 'SIGINT', command.join(' '));
    await gate.queued('f', 0);
  }
  await holder.do('close', file);
  await gate.idle();
});

test('locks follow renames, and a replaced file does not hold up who opens the new one', async (t) => {
  const gate = await startGate(t);
  const [a, b] = await Promise.all([gate.actor('a'), gate.actor('b')]);
  const file = await a!.open('old', 'WRONLY|CREAT');
  await a!.do('rename', 'old', 'new');
  const opened = b!.open('new', 'RDONLY');
  await gate.queued('new', 1);
  await b!.do('writeFile', 'old', 'another file: the old name is free');
  await a!.do('close', file);
  const reading = (await opened) as number;
  // A reader keeps its inode; who replaces the name does not wait for it.
  await a!.do('writeFile', 'tmp', 'fresh');
  await a!.do('rename', 'tmp', 'new');
  assert.equal(await b!.do('read', reading), '');
  assert.equal(await b!.do('readFile', 'new'), 'fresh');
});

test('who waits for a name that is replaced meanwhile gets what stands there then', async (t) => {
  const gate = await startGate(t);
  const [a, b] = await Promise.all([gate.actor('a'), gate.actor('b')]);
  await a!.do('writeFile', 'f', 'first');
  const file = await a!.open('f', 'WRONLY');
  const reading = b!.do('readFile', 'f');
  await gate.queued('f', 1);
  await a!.do('writeFile', 'tmp', 'second');
  await a!.do('rename', 'tmp', 'f');
  await a!.do('close', file);
  assert.equal(await reading, 'second');
  const again = await a!.open('f', 'WRONLY');
  const gone = b!.do('readFile', 'f');
  await gate.queued('f', 1);
  await a!.do('unlink', 'f');
  await a!.do('close', again);
  await assert.rejects(gone, /ENOENT/);
  await gate.idle();
});

test('two names of one inode are one lock', async (t) => {
  const gate = await startGate(t);
  const [a, b] = await Promise.all([gate.actor('a'), gate.actor('b')]);
  await a!.do('writeFile', 'f', 'x');
  await a!.do('link', 'f', 'g');
  const file = await a!.open('f', 'WRONLY');
  const opened = b!.open('g', 'RDONLY');
  await gate.queued('#ino', 0);
  await gate.queued('g', 1);
  await settle();
  assert.equal(opened.over(), false);
  await a!.do('close', file);
  await opened;
});

test('two makers of one name: one makes it, the other waits and opens it', async (t) => {
  const gate = await startGate(t);
  const [a, b] = await Promise.all([gate.actor('a'), gate.actor('b')]);
  const file = await a!.open('f', 'WRONLY|CREAT|EXCL');
  const exclusive = b!.open('f', 'WRONLY|CREAT|EXCL');
  await assert.rejects(exclusive, /EEXIST/);
  const opened = b!.open('f', 'WRONLY|CREAT');
  await gate.queued('f', 1);
  await a!.do('close', file);
  await opened;
});

test('a mapping that outlives its close keeps the lock until it is unmapped', async (t) => {
  const gate = await startGate(t);
  writeFileSync(`${gate.root}/f`, 'x'.repeat(4096));
  const script = [
    'import mmap, os, sys',
    'fd = os.open("f", os.O_RDWR)',
    'm = mmap.mmap(fd, 4096)',
    'os.close(fd)',
    'print("mapped", flush=True)',
    'sys.stdin.readline()',
    'm[0:1] = b"y"',
    'm.close()',
    'print("unmapped", flush=True)',
    'sys.stdin.readline()',
  ].join('\n');
  const { spawn } = await import('node:child_process');
  const child = spawn('python3', ['-c', script], { cwd: gate.mount, stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  let out = '';
  child.stdout.on('data', (text) => (out += text));
  await until(() => out.includes('mapped'), PATIENCE_MS);
  const reader = await gate.actor('reader');
  const text = reader.do('readFile', 'f');
  await gate.queued('f', 1);
  await settle();
  assert.equal(text.over(), false);
  child.stdin.write('\n');
  assert.ok(((await text) as string).startsWith('yx'));
});

test('a killed mount frees its locks after the TTL; nobody else is let in before', async (t) => {
  const gate = await startGate(t, { brokerFlags: ['--session-ttl-ms', '1500'] });
  const holder = await gate.actor('holder');
  await holder.open('f', 'WRONLY|CREAT');
  gate.mounter.kill('SIGKILL');
  await until(() => ended(gate.mounter), PATIENCE_MS);
  const next = gate.session.acquire({ owner: 'next', volume: gate.volume, path: 'f', mode: 'write' });
  let granted = false;
  void next.then(() => (granted = true));
  await gate.queued('f', 1);
  await settle();
  assert.equal(granted, false);
  const hold = await next;
  await gate.session.release(hold);
});

test('file opens, HTTP, `gate hold` and a second mount of the same tree wait in one line', async (t) => {
  const gate = await startGate(t);
  const second = await gate.secondMount();
  writeFileSync(`${gate.root}/f`, 'x');
  const order: string[] = [];
  const [w1, r4, w6] = await Promise.all([gate.actor('w1'), gate.actor('r4'), gate.actor('w6')]);
  const http = new BrokerHttp({ socket: gate.socket });
  const f1 = await w1!.open('f', 'WRONLY');
  const w2 = http
    .post('/v1/locks/acquire', { path: gate.path('f'), mode: 'write', owner: 'w2' })
    .then(note(order, 'w2')) as Promise<{ lock: { lock_id: string; owner: string } }>;
  await gate.queued('f', 1);
  spawnSync('mkfifo', [`${gate.dir}/go`]);
  const h3 = gate.gate(['hold', '--read', '--as', 'h3', 'f', '--', 'sh', '-c', 'echo in; read line < ../go']);
  h3.child.stdout!.once('data', () => order.push('h3'));
  await gate.queued('f', 2);
  const r4f = r4!.open('f', 'RDONLY').then(note(order, 'r4'));
  await gate.queued('f', 3);
  const w5 = gate.sh(`exec 3>>${second}/f; echo in; exec 3>&-`);
  w5.child.stdout!.once('data', () => order.push('w5'));
  await gate.queued('f', 4);
  const w6f = w6!.open('f', 'WRONLY').then(note(order, 'w6'));
  await gate.queued('f', 5);
  await w1!.do('close', f1);
  await http.post('/v1/locks/release', (await w2).lock);
  await until(() => order.includes('h3') && order.includes('r4'), PATIENCE_MS);
  writeFileSync(`${gate.dir}/go`, 'on\n');
  await h3.done;
  await r4!.do('close', await r4f);
  await w5.done;
  await w6!.do('close', await w6f);
  assert.deepEqual([order[0], order.slice(1, 3).sort(), order.slice(3)], ['w2', ['h3', 'r4'], ['w5', 'w6']]);
  await gate.idle();
});
