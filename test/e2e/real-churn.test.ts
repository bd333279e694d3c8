/** Many processes at once on few files, some of them killed in the middle: nothing torn, no error that a disk would not give, nothing left. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { delay, until } from '../../src/base/clock.ts';
import { O_PATH } from '../../src/sys/index.ts';
import { PATIENCE_MS, startGate } from './harness.ts';

const PROCESSES = 120;
const FILES = 30;
const SECONDS = 6;

/** A file is always one letter, written in several writes, or replaced whole: a reader who sees two letters saw half a write. */
const CHURN = `
import os, random, sys, time
def work(k, end):
    random.seed(k); letter = bytes([65 + k % 26]); wrong = 0
    while time.time() < end:
        name = 'f%d' % random.randrange(${FILES}); what = random.random()
        try:
            if what < .35:
                f = os.open(name, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o644)
                for _ in range(8): os.write(f, letter * 1000)
                if what < .02 and k % 10 == 0: os.kill(os.getpid(), 9)
                os.close(f)
            elif what < .7:
                b = open(name, 'rb').read()
                if len(set(b)) > 1 or len(b) % 1000: wrong = 1; print('torn', name, len(b), set(b), flush=True)
            elif what < .8:
                with open('t%d' % k, 'wb') as f: f.write(letter * 8000)
                os.rename('t%d' % k, name)
            elif what < .85: os.unlink(name)
            elif what < .9: os.chmod(name, 0o600 + random.randrange(2))
            elif what < .95: os.truncate(name, 0)
            else: os.listdir('.')
        except FileNotFoundError: pass
        except OSError as e: wrong = 1; print(k, name, '%.2f' % what, e, flush=True)
    os._exit(wrong)
end = time.time() + ${SECONDS}
pids = []
for k in range(${PROCESSES}):
    pid = os.fork()
    if pid == 0: work(k, end)
    pids.append(pid)
states = [os.waitpid(pid, 0)[1] for pid in pids]
sys.exit(any(os.WIFEXITED(s) and os.WEXITSTATUS(s) for s in states))
`;

function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)!.split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** Files below `root` that a process has open, other than to reach them by (O_PATH), and the folder of what is kept, which stays open. */
function openFiles(pid: number, root: string): string[] {
  const kept = `${root}/.gate/lost`;
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      const flags = Number.parseInt(
        /^flags:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1'))![1]!,
        8,
      );
      const path = readlinkSync(`/proc/${pid}/fd/${fd}`);
      return (flags & O_PATH) === 0 && path.startsWith(root) && path !== kept ? [path] : [];
    } catch {
      return []; // closed meanwhile
    }
  });
}

for (const passthrough of [true, false]) {
  const mode = passthrough ? 'passthrough' : 'through the view';
  test(`${mode}: ${PROCESSES} processes on ${FILES} files`, { timeout: 120_000 }, async (t) => {
    const gate = await startGate(t, { passthrough });
    mkdirSync(`${gate.root}/churn`);
    const done = await gate.run('python3', ['-c', CHURN], { cwd: gate.path('churn') }).done;
    assert.equal(done.status, 0, done.out.slice(0, 4000) + done.err);
    await gate.idle();
    const mounter = gate.mounter.pid!;
    await until(() => openFiles(mounter, gate.root).length === 0 || undefined, PATIENCE_MS).catch(
      () => undefined,
    );
    assert.deepEqual(openFiles(mounter, gate.root), []);
    // What was kept is looked at once more, ever more rarely; then nothing is done any more.
    const windows: number[] = [];
    while (windows.length < 10 && !(windows.at(-1)! <= 10)) {
      const before = cpuTicks(mounter);
      await delay(2000);
      windows.push(cpuTicks(mounter) - before);
    }
    assert.ok(windows.at(-1)! <= 10, `idle, and used ${windows} ticks of 10 ms in 2 s each`);
  });
}
