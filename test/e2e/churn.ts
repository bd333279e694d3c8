/**
 * Many processes hammer few files of a real mount for a long time: errors, torn reads, how long an open takes, and what is left of it
 * in memory, descriptors and locks.
 *
 *   node test/e2e/churn.ts --seconds N [--processes N] [--files N]
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { delay, until } from '../../src/base/clock.ts';
import { Gate } from './harness.ts';

function argument(name: string, otherwise: number): number {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
}

const [seconds, processes, files] = [
  argument('--seconds', 600),
  argument('--processes', 200),
  argument('--files', 50),
];

/** A file is always one letter, in whole thousands: a reader who sees two letters, or a part, saw half a write. */
const CHURN = `
import collections, json, os, random, sys, time
def work(k, end, out):
    random.seed(k); letter = bytes([65 + k % 26]); took = []; errors = collections.Counter(); torn = 0; done = 0
    def opened(name, flags):
        start = time.monotonic(); fd = os.open(name, flags, 0o644); took.append(time.monotonic() - start); return fd
    while time.time() < end:
        name = 'f%d' % random.randrange(${files}); what = random.random()
        try:
            if what < .3:
                fd = opened(name, os.O_WRONLY | os.O_TRUNC | os.O_CREAT)
                for _ in range(8): os.write(fd, letter * 1000)
                os.close(fd)
            elif what < .8:
                fd = opened(name, os.O_RDONLY); text = os.read(fd, 100000); os.close(fd)
                if len(set(text)) > 1 or len(text) % 1000: torn += 1
            elif what < .9:
                with open('t%d' % k, 'wb') as f: f.write(letter * 8000)
                os.rename('t%d' % k, name)
            elif what < .95: os.unlink(name)
            else: os.chmod(name, 0o600 + random.randrange(2))
            done += 1
        except FileNotFoundError: pass
        except OSError as e: errors['%s %.2f' % (e.strerror, what)] += 1
    took.sort()
    json.dump(dict(took=took[::max(1, len(took) // 2000)], opens=len(took), errors=errors, torn=torn, done=done), open(out, 'w'))
    os._exit(0)
end = time.time() + ${seconds}
pids = []
for k in range(${processes}):
    pid = os.fork()
    if pid == 0: work(k, end, os.path.join(sys.argv[1], 'r%d' % k))
    pids.append(pid)
for pid in pids: os.waitpid(pid, 0)
`;

interface Report {
  readonly took: readonly number[];
  readonly opens: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly torn: number;
  readonly done: number;
}

const memoryMib = (pid: number) =>
  Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]) / 1024);
const descriptors = (pid: number) => readdirSync(`/proc/${pid}/fd`).length;

const ends: (() => Promise<void> | void)[] = [];
const gate = new Gate({ after: (end: () => Promise<void>) => ends.push(end) } as unknown as TestContext, {});
let bad = true;
try {
  await gate.start();
  mkdirSync(`${gate.root}/churn`);
  mkdirSync(`${gate.dir}/reports`);
  const pids = { mount: gate.mounter.pid!, broker: gate.broker.pid! };
  const measure = () => ({
    mountMib: memoryMib(pids.mount),
    brokerMib: memoryMib(pids.broker),
    mountDescriptors: descriptors(pids.mount),
  });
  const start = measure();
  const running = gate.run('python3', ['-c', CHURN, `${gate.dir}/reports`], { cwd: gate.path('churn') });
  const minutes: ReturnType<typeof measure>[] = [];
  while (!running.over) {
    await Promise.race([running.done, delay(60_000)]);
    minutes.push(measure());
  }
  const { status, err } = await running.done;
  const held = await until(async () => {
    const now = await gate.session.status('', gate.volume, true);
    return now.holds.length + now.queue.length === 0;
  }, 30_000);
  await delay(3000);
  const reports = readdirSync(`${gate.dir}/reports`).map(
    (name) => JSON.parse(readFileSync(`${gate.dir}/reports/${name}`, 'utf8')) as Report,
  );
  const sum = (of: (report: Report) => number) => reports.reduce((all, report) => all + of(report), 0);
  // Each process's own quantiles count by how many opens it made: all made about as many.
  const took = reports.flatMap((report) => report.took).sort((a, b) => a - b);
  const at = (share: number) =>
    Number((1000 * took[Math.min(took.length - 1, Math.floor(took.length * share))]!).toFixed(2));
  const errors: Record<string, number> = {};
  for (const report of reports)
    for (const [name, count] of Object.entries(report.errors)) errors[name] = (errors[name] ?? 0) + count;
  const result = {
    seconds,
    processes: reports.length,
    files,
    operations: sum(({ done }) => done),
    opens: sum(({ opens }) => opens),
    openMs: { p50: at(0.5), p99: at(0.99), most: at(1) },
    torn: sum((report) => report.torn),
    errors,
    nothingHeld: held === true,
    start,
    end: measure(),
    minutes,
    status,
    err: err.slice(0, 1000),
  };
  process.stdout.write(`${JSON.stringify(result, null, 1)}\n`);
  bad = result.torn > 0 || Object.keys(errors).length > 0 || !result.nothingHeld || status !== 0;
} finally {
  for (const end of ends) await end();
}
process.exit(bad ? 1 : 0);
