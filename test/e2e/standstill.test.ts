/** Waits that would never end because a lock's holder waits, through pipes, children or sockets, for the process that waits. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { delay, until } from '../../src/base/clock.ts';
import { PATIENCE_MS, startGate } from './harness.ts';

test('a parent joins the lock of a child that reads from it', async (t) => {
  for (const delegation of [true, false]) {
    const gate = await startGate(t, { delegation });
    // As `git fetch` and its `git upload-pack` with one GIT_TRACE_PACKET file.
    const script = `
      coproc { exec 3>>trace; echo opened; read -r word; echo "child $word" >&3; }
      child=$COPROC_PID; exec 5<&"\${COPROC[0]}" 6>&"\${COPROC[1]}"
      eval "exec \${COPROC[0]}<&- \${COPROC[1]}>&-"
      read -r word <&5
      echo parent >>trace && echo go >&6
      wait $child; cat trace`;
    const { status, out, err } = await gate.sh(script).done;
    assert.deepEqual([status, out, err], [0, 'parent\nchild go\n', '']);
    await gate.idle();
    await gate.stop();
  }
});

test('a server joins the lock of a client that waits for its answer', async (t) => {
  const gate = await startGate(t);
  // As gpg-agent, which reads trustlist.txt for a gpgsm whose output goes into that very file.
  writeFileSync(
    `${gate.dir}/server.py`,
    `import os, select, socket, threading
server = socket.socket(socket.AF_UNIX)
server.bind('sock')
server.listen()
print('listens', flush=True)
def serve(client):
    client.recv(1)
    client.sendall(open('f').read().encode() + b'read it')
    client.close()
    os._exit(0)
select.select([server], [], [])
threading.Thread(target=serve, args=[server.accept()[0]]).start()
select.select([server], [], [])
`,
  );
  const ask = `import socket; c = socket.socket(socket.AF_UNIX); c.connect('sock'); c.sendall(b'?'); print(c.recv(99).decode())`;
  const server = gate.run('python3', [`${gate.dir}/server.py`]);
  const listens = new Promise((done) => server.child.stdout!.once('data', done));
  await listens;
  const client = await gate.sh(`python3 -c "${ask}" | cat >f; cat f`).done;
  assert.deepEqual([client.status, client.out, client.err], [0, 'read it\n', '']);
  assert.equal((await server.done).status, 0);
});

test('a daemon that inherited several descriptors of a file joins their lock', async (t) => {
  const gate = await startGate(t);
  // As `git gc` that went into the background, with the trace file of the `git fetch` that started it.
  const script = `
    exec 3>>f 4>>f
    (while kill -0 $$ 2>>/dev/null; do sleep 0.05; done; echo late >>f; cat f) &`;
  assert.deepEqual(await gate.sh(script).done, { status: 0, signal: null, out: 'late\n', err: '' });
  await gate.idle();
});

test('what a reader has still to read is not cut off by who waits for its output', async (t) => {
  const gate = await startGate(t);
  const text = 'line\n'.repeat(200_000);
  writeFileSync(`${gate.root}/f`, text);
  // The first byte has come through: so cat has the file open before tee asks for it.
  const { out, err } = await gate.sh('cat f | { head -c 1; tee f; } | wc -c').done;
  assert.equal(Number(out), text.length);
  assert.match(err, /tee: f: Resource deadlock avoided/);
  assert.equal(readFileSync(`${gate.root}/f`, 'utf8'), text);
});

test('of a circle of locks and processes the newest wait is refused', async (t) => {
  const gate = await startGate(t);
  for (const name of ['f', 'g']) writeFileSync(`${gate.root}/${name}`, `${name}\n`);
  // One has f and waits for its child, which wants g; the other has g and wants f.
  const other = gate.run('bash', [
    '-c',
    'exec 3>>g; until test -e go; do sleep 0.05; done; exec 4<f; echo "$?"',
  ]);
  assert.ok(await until(() => gate.isHeld('g'), PATIENCE_MS));
  const one = gate.sh('exec 3>>f; cat g; echo done >&3');
  await gate.queued('g', 1);
  writeFileSync(`${gate.root}/go`, '');
  const refused = await other.done;
  assert.match(refused.err, /f: Resource deadlock avoided/);
  assert.deepEqual(await one.done, { status: 0, signal: null, out: 'g\n', err: '' });
  assert.equal(readFileSync(`${gate.root}/f`, 'utf8'), 'f\ndone\n');
});

test('a holder that can go on is waited for', async (t) => {
  const gate = await startGate(t);
  // The child waits for a line from anybody who has the pipe.
  const script = `
    coproc { exec 3>>f; echo opened; read -r word; echo "child $word" >&3; }
    exec 5<&"\${COPROC[0]}" 6>&"\${COPROC[1]}"
    eval "exec \${COPROC[0]}<&- \${COPROC[1]}>&-"
    read -r word <&5
    (until test -e go; do sleep 0.05; done; echo go >&6) &
    exec 6>&-
    cat f`;
  const waiter = gate.sh(script);
  await gate.queued('f', 1);
  // Four looks at least: the first come after 250, 750, 1750 ms.
  await delay(4000);
  assert.equal(waiter.over, false);
  writeFileSync(`${gate.root}/go`, '');
  assert.equal((await waiter.done).out, 'child go\n');
});
