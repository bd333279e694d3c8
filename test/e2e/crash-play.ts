/**
 * A play on real processes: programs work on a real mount and clients take locks, while `kill -9` hits the broker, the mount, the
 * supervisor, whoever holds or waits, or all at once, at random instants. An outside observer (crash-books.ts) writes down what was
 * acknowledged. A seed gives the same schedule of who is killed and when; what exactly it hits is up to the machine.
 *
 *   node test/e2e/crash-play.ts --seed N --rounds M
 */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  promises as fs,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { delay, until } from '../../src/base/clock.ts';
import { GateError } from '../../src/base/errors.ts';
import { projectDir } from '../../src/base/version.ts';
import { BrokerHttp, connect, type GateSession } from '../../src/client/index.ts';
import { below, generator, pick, type Random } from '../fuzz/kit.ts';
import { makeRig, type Rig, type Running, type Up } from './cli-rig.ts';
import { FileBooks, type Line, LockBooks } from './crash-books.ts';
import { BLOCK_BYTES, BLOCKS, WORKER } from './crash-worker.ts';
import { cleanEnv, ended } from './harness.ts';

/** Longer than a busy machine needs to start a broker, as short as can be for those who wait for a dead view's locks. */
const TTL_MS = 6000;
/** Who came back later than this after a kill may have lost its session, which is no fault. */
const PROMPT_MS = TTL_MS / 2;
const PATIENCE_MS = 60_000;
const LOG_LINES = 30;
const SETTLE_EVERY = 10;
const WORKERS = 6;
const UID = 65_534;
const FILES = ['f0', 'f1', 'f2', 'f3'];
const REPLACED = ['r0', 'r1'];
const KEYS = ['k0', 'k1', 'k2'];

const KINDS = [
  'broker',
  'mount',
  'supervisor',
  'holder',
  'waiter',
  'hold',
  'broker and mount',
  'all',
] as const;
type Kind = (typeof KINDS)[number];
/** Of 100. */
const WEIGHTS: Record<Kind, number> = {
  broker: 30,
  mount: 18,
  supervisor: 10,
  holder: 12,
  waiter: 8,
  hold: 6,
  'broker and mount': 8,
  all: 8,
};

/** What a program may see from the death of its mount until the next one stands there. */
/** Until a dead view's session is over its locks belong to the programs that had them: two of them may close a circle. */
const OF_DEAD_LOCKS = new Set(['EDEADLOCK']);
const OF_DEAD_MOUNT = new Set([
  'ENOTCONN',
  'ECONNABORTED',
  'EACCES',
  'ENOENT',
  'ESTALE',
  'ENODEV',
  'EIO',
  'ENOLCK',
]);
/** What it may see when its view's session was lost. */
const OF_LOST_SESSION = new Set(['ESTALE', 'ENOLCK']);

export interface CrashResult {
  readonly seed: number;
  readonly rounds: number;
  readonly kills: Record<string, number>;
  readonly sections: number;
  readonly reads: number;
  readonly grants: number;
  /** Errors that programs saw, by kind of what had happened. */
  readonly errors: Record<string, number>;
  /** Kills after which the broker came back so late that sessions may have been lost. */
  readonly late: number;
  readonly slowestMs: number;
  readonly keptFiles: number;
  readonly wrong: readonly string[];
  /** What went wrong is looked for here: the ends of the logs. */
  readonly logs: readonly string[];
}

interface Window {
  readonly kind: Kind;
  readonly fromMs: number;
  /** Until when programs may see an error of it. */
  untilMs: number;
  readonly errors: ReadonlySet<string>;
}

class Worker {
  readonly name: string;
  readonly child: ChildProcess;
  /** In a section, in an open, or between. */
  state: 'in' | 'opening' | 'out' = 'out';
  progress = 0;
  readonly over: Promise<unknown>;

  constructor(play: CrashPlay, name: string, seed: number) {
    this.name = name;
    const args = [
      '-c',
      WORKER,
      play.rig.repoView,
      play.witnesses,
      name,
      String(seed),
      [...FILES, ...REPLACED].join(','),
    ];
    this.child = spawn('python3', args, {
      cwd: '/',
      env: cleanEnv(),
      stdio: ['pipe', 'pipe', 'inherit'],
      uid: UID,
      gid: UID,
    });
    this.over = new Promise((done) => this.child.once('close', done));
    createInterface({ input: this.child.stdout! }).on('line', (text) => {
      const line = JSON.parse(text) as Line;
      if (line.op === 'try') this.state = 'opening';
      else if (line.op === 'begin') this.state = 'in';
      else {
        this.state = 'out';
        if (line.op !== 'error') this.progress++;
      }
      play.heard(line);
    });
  }
}

class CrashPlay {
  readonly rig: Rig & { repoView: string };
  readonly witnesses: string;
  readonly files = new FileBooks();
  readonly locks = new LockBooks();
  readonly wrong: string[] = [];
  readonly errors: Record<string, number> = {};
  readonly logs: string[] = [];
  readonly #random: Random;
  readonly #windows: Window[] = [];
  readonly #workers = new Set<Worker>();
  readonly #progress = new Map<string, number>();
  readonly #holds = new Set<Running>();
  readonly #clients: Promise<void>[] = [];
  #names = 0;
  #stopping = false;
  /** Kills that the living supervisor has answered: its pauses grow with each. */
  #restarts = 0;
  late = 0;
  slowestMs = 0;
  keptFiles = 0;

  constructor(seed: number) {
    this.#random = generator(seed);
    const rig = makeRig('/var/tmp');
    this.rig = Object.assign(rig, { repoView: `${rig.dir}/view` });
    this.witnesses = `${rig.dir}/witnesses`;
  }

  async start(): Promise<void> {
    chmodSync(this.rig.dir, 0o755);
    mkdirSync(this.witnesses);
    for (const path of [this.witnesses, this.rig.repo]) chmodSync(path, 0o777);
    for (const file of [...FILES, ...REPLACED]) {
      const path = `${this.rig.repo}/${file}`;
      writeFileSync(path, 'first'.padEnd(BLOCK_BYTES, '.').repeat(BLOCKS));
      chmodSync(path, 0o666);
      chownSync(path, UID, UID);
    }
    await this.#bringUp();
    for (let i = 0; i < WORKERS; i++) this.#work();
    for (let i = 0; i < 3; i++)
      this.#clients.push(this.#httpClient(`http${i}`), this.#sessionClient(`sdk${i}`));
    this.#clients.push(this.#holder('hold'));
  }

  async #bringUp(): Promise<void> {
    await this.rig.up('--mount', this.rig.repoView, '--session-ttl-ms', String(TTL_MS));
    this.#restarts = 0;
  }

  #work(): void {
    this.#workers.add(new Worker(this, `w${this.#names++}`, below(this.#random, 2 ** 31)));
  }

  // ------------------------------------------------------------ what is seen

  heard(line: Line): void {
    this.files.add(line);
    if (line.op === 'violation') this.wrong.push(`${line.what}, ${this.#since(line.t * 1000)}`);
    if (line.op === 'error') this.#judgeError(line);
  }

  #judgeError({ error, at, file, t, why }: Line): void {
    const atMs = t * 1000;
    const found = this.#windows.find((w) => atMs >= w.fromMs && atMs <= w.untilMs && w.errors.has(error!));
    const key = `${error} after the death of ${found?.kind ?? 'nobody'}`;
    this.errors[key] = (this.errors[key] ?? 0) + 1;
    if (found === undefined)
      this.#suspects.push({
        atMs,
        error: error!,
        says: `${at} of ${file}: ${error}, at ${this.#since(atMs)} ${why ?? ''}`,
      });
  }

  /** An error that comes before the play knows that its cause was late. */
  readonly #suspects: { atMs: number; error: string; says: string }[] = [];

  #since(atMs: number): string {
    const last = this.#windows.at(-1);
    return last === undefined
      ? 'the start'
      : `${Math.round(atMs - last.fromMs)} ms after the death of ${last.kind}`;
  }

  #progressed(who: string): void {
    this.#progress.set(who, (this.#progress.get(who) ?? 0) + 1);
  }

  // ------------------------------------------------------------ who takes locks

  /** Plain HTTP: asks again with the same request id until it has an answer. */
  async #httpClient(who: string): Promise<void> {
    const http = new BrokerHttp({ socket: `${this.rig.state}/broker.sock` });
    const insist = async (path: string, body: Record<string, unknown>) => {
      for (let tries = 0; ; tries++)
        try {
          return { answer: await http.post(path, body), tries };
        } catch (error) {
          if (!(error instanceof GateError) || error.code !== 'unavailable')
            throw Object.assign(error as Error, { tries });
          await delay(50);
        }
    };
    for (let n = 0; !this.#stopping; n++) {
      const key = pick(this.#random, KEYS);
      const wait = this.locks.asks(key, who);
      try {
        const body = { path: key, mode: 'write', owner: who, request_id: `${who}-${n}`, lease_ms: 600_000 };
        const { answer } = await insist('/v1/locks/acquire', body);
        const { lock_id, fencing_token } = answer.lock as { lock_id: string; fencing_token: number };
        this.locks.granted(wait, fencing_token);
        await delay(below(this.#random, 300));
        await insist('/v1/locks/heartbeat', { lock_id, owner: who, lease_ms: 600_000 });
        this.locks.gone(key, who);
        await insist('/v1/locks/release', { lock_id, owner: who }).catch(
          (error: GateError & { tries: number }) => {
            // It was carried out, and the broker died before it could say so.
            if (error.code !== 'not_found' || error.tries === 0) throw error;
          },
        );
        this.#progressed(who);
      } catch (error) {
        this.wrong.push(`${who} on ${key}: ${String(error)}`);
        this.locks.gone(key, who);
        this.locks.gaveUp(wait);
      }
      await delay(below(this.#random, 100));
    }
  }

  /** A session that lives through everything that happens to the broker. */
  async #sessionClient(who: string): Promise<void> {
    let session: GateSession | undefined;
    for (let n = 0; !this.#stopping; n++) {
      const key = pick(this.#random, KEYS);
      let wait: ReturnType<LockBooks['asks']> | undefined;
      try {
        if (session === undefined || session.ended) {
          session = await connect({
            socket: `${this.rig.state}/broker.sock`,
            kind: 'test',
            connectMs: PATIENCE_MS,
          });
          session.onHoldLost = (lockId, reason) => this.#lost(who, `${lockId}: ${reason}`);
          session.onLost = (why) => this.#lost(who, why);
        }
        const asked = this.locks.asks(key, who);
        wait = asked;
        const options = { path: key, owner: `${who}-${n}`, waitMs: null, holdCapMs: null };
        const hold = await session.acquire(options, { onQueued: () => this.locks.queued(asked) });
        this.locks.granted(asked, hold.token);
        await delay(below(this.#random, 300));
        this.locks.gone(key, who);
        const { gone } = await session.release(hold);
        if (!gone) this.wrong.push(`${who} on ${key}: something is left after its release`);
        this.#progressed(who);
      } catch (error) {
        const lost = error instanceof GateError && ['session_lost', 'not_found'].includes(error.code);
        const says = `${who} on ${key}: ${String(error)}`;
        if (lost) this.#suspects.push({ atMs: Date.now(), error: 'session lost', says });
        else this.wrong.push(says);
        this.locks.gone(key, who);
        if (wait) this.locks.gaveUp(wait);
        await delay(100);
      }
    }
    await session?.close();
  }

  #lost(who: string, why: string): void {
    for (const key of KEYS) this.locks.gone(key, who);
    this.#suspects.push({ atMs: Date.now(), error: 'session lost', says: `${who} lost what it had: ${why}` });
  }

  /** `gate hold FILE -- worker`, one after the other, two at a time on one file. */
  async #holder(who: string): Promise<void> {
    while (!this.#stopping) {
      const both = [0, 1].map(async (i) => {
        const name = `${who}${this.#names++}`;
        const worker = ['python3', '-c', WORKER, this.rig.repoView, this.witnesses, name, '1', 'f3', 'once'];
        const args = ['hold', '--as', name, `${this.rig.repoView}/f3`, '--', ...worker];
        await delay(i * 100);
        const began = Date.now();
        const running = this.rig.start(join(projectDir, 'gate'), args, { cwd: '/' });
        this.#holds.add(running);
        const outcome = await running.outcome;
        this.#holds.delete(running);
        for (const text of outcome.stdout.split('\n'))
          if (text.startsWith('{"op"')) this.heard(JSON.parse(text) as Line);
        if (outcome.status === 0) this.#progressed(who);
        else if (
          outcome.signal === null &&
          !this.#windows.some((w) => w.kind !== 'holder' && w.untilMs >= began)
        )
          this.wrong.push(`gate hold ended with ${outcome.status}: ${outcome.stderr}`);
      });
      await Promise.all(both);
      await delay(500);
    }
  }

  // ------------------------------------------------------------ who dies

  #pids(): Up['pids'] {
    const read = (path: string) => JSON.parse(readFileSync(`${this.rig.state}/${path}`, 'utf8'));
    const { pid: supervisor } = read('supervisor.json') as { pid: number };
    const { pid: broker } = read('broker.json') as { pid: number };
    const { process: mount } = read('views/repo.json') as { process: { pid: number } };
    return { supervisor, broker, mount: mount.pid };
  }

  #choose(): Kind {
    // The supervisor waits ever longer before it starts something again; a new one begins at 0.2 s.
    if (this.#restarts >= 3) return this.#random() < 0.5 ? 'supervisor' : 'all';
    let at = this.#random() * 100;
    for (const kind of KINDS) {
      at -= WEIGHTS[kind];
      if (at < 0) return kind;
    }
    return 'broker';
  }

  async round(): Promise<Kind> {
    await delay(below(this.#random, 1500));
    const kind = this.#choose();
    const pids = this.#pids();
    const fromMs = Date.now();
    const kill = (...which: number[]) => {
      for (const pid of which)
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          this.wrong.push(`${pid} was gone before it was killed`);
        }
    };
    const window: Window = { kind, fromMs, untilMs: Number.POSITIVE_INFINITY, errors: this.#allowed(kind) };
    this.#windows.push(window);
    if (kind === 'broker' || kind === 'mount' || kind === 'supervisor') kill(pids[kind]);
    else if (kind === 'broker and mount') kill(pids.broker, pids.mount);
    else if (kind === 'all')
      kill(...[pids.supervisor, pids.broker, pids.mount].sort(() => this.#random() - 0.5));
    else await this.#killClient(kind);
    if (kind === 'supervisor' || kind === 'all') {
      await delay(below(this.#random, 500));
      await this.#bringUp();
    } else if (kind === 'broker' || kind === 'mount') this.#restarts++;
    else if (kind === 'broker and mount') this.#restarts += 2;
    await this.#back(kind, pids, window);
    return kind;
  }

  #allowed(kind: Kind): ReadonlySet<string> {
    if (kind === 'mount') return OF_DEAD_MOUNT;
    if (kind === 'broker and mount' || kind === 'all') return new Set([...OF_DEAD_MOUNT]);
    return new Set();
  }

  async #killClient(kind: Kind): Promise<void> {
    if (kind === 'hold') {
      const all = [...this.#holds];
      if (all.length > 0) pick(this.#random, all).kill('SIGKILL');
      return;
    }
    const wanted = kind === 'holder' ? 'in' : 'opening';
    const found = await until(
      () => [...this.#workers].find((w) => w.state === wanted && !ended(w.child)),
      3000,
      1,
    );
    const victim = found ?? [...this.#workers][0]!;
    victim.child.kill('SIGKILL');
    this.#workers.delete(victim);
    this.#work();
  }

  /** Waits until the broker and the view answer again. */
  async #back(kind: Kind, before: Up['pids'], window: Window): Promise<void> {
    const http = new BrokerHttp({ socket: `${this.rig.state}/broker.sock` });
    const isNew = (which: keyof Up['pids']) => {
      try {
        return this.#pids()[which] !== before[which];
      } catch {
        return false;
      }
    };
    const hitsBroker = kind === 'broker' || kind === 'all' || kind === 'broker and mount';
    const broker = await until(
      () =>
        (!hitsBroker || isNew('broker')) &&
        http.info().then(
          () => true,
          () => false,
        ),
      PATIENCE_MS,
    );
    const tookMs = Date.now() - window.fromMs;
    if (!broker) throw new Error(`the broker did not come back after the death of ${kind}`);
    if (hitsBroker) this.slowestMs = Math.max(this.slowestMs, tookMs);
    if (hitsBroker && tookMs > PROMPT_MS) {
      this.late++;
      this.#windows.push({
        ...window,
        untilMs: Date.now() + 2 * TTL_MS,
        errors: new Set([...OF_LOST_SESSION, 'session lost']),
      });
    }
    const hitsMount = kind === 'mount' || kind === 'all' || kind === 'broker and mount';
    const answers = () =>
      Promise.race([
        fs.stat(`${this.rig.repoView}/f0`).then(
          () => true,
          () => false,
        ),
        delay(2000).then(() => false),
      ]);
    const mount = await until(async () => (!hitsMount || isNew('mount')) && (await answers()), PATIENCE_MS);
    if (!mount) throw new Error(`the view did not come back after the death of ${kind}`);
    // What was open in the dead view ends a little later.
    window.untilMs = Date.now() + (hitsMount ? 2000 : 0);
    if (hitsMount)
      this.#windows.push({ ...window, untilMs: Number.POSITIVE_INFINITY, errors: OF_DEAD_LOCKS });
    if (kind === 'hold') window.untilMs = Date.now() + 1000;
  }

  // ------------------------------------------------------------ looks

  /** Everybody who works or waits must get on. */
  async settle(): Promise<void> {
    const workers = new Map([...this.#workers].map((w) => [w, w.progress]));
    const clients = new Map(this.#progress);
    const stuck = () => [
      ...[...workers]
        .filter(([w, was]) => this.#workers.has(w) && w.progress === was)
        .map(([w]) => `${w.name} (${w.state})`),
      ...[...this.#progress.keys()].filter((who) => this.#progress.get(who) === (clients.get(who) ?? 0)),
    ];
    if (!(await until(() => stuck().length === 0, PATIENCE_MS)))
      this.wrong.push(`they do not get on: ${stuck().join(', ')}; ${await this.#whatIsHeld()}`);
    for (const { atMs, error, says } of this.#suspects.splice(0))
      if (!this.#windows.some((w) => atMs >= w.fromMs && atMs <= w.untilMs && w.errors.has(error)))
        this.wrong.push(says);
  }

  async #whatIsHeld(): Promise<string> {
    const http = new BrokerHttp({ socket: `${this.rig.state}/broker.sock` });
    return JSON.stringify(await http.waits().catch(String)).slice(0, 1000);
  }

  async finish(): Promise<void> {
    this.#stopping = true;
    for (const { child } of this.#workers) child.stdin!.end();
    let over = false;
    void Promise.all([...[...this.#workers].map((w) => w.over), ...this.#clients]).then(() => (over = true));
    if (!(await until(() => over, PATIENCE_MS)))
      this.wrong.push(`somebody does not end: ${await this.#whatIsHeld()}`);
    const http = new BrokerHttp({ socket: `${this.rig.state}/broker.sock` });
    const held = async () => {
      const { holds, waiters } = await http.info();
      return holds + waiters;
    };
    if (!(await until(async () => (await held()) === 0, PATIENCE_MS)))
      this.wrong.push(
        `left over when all is over: ${JSON.stringify(await http.status('', undefined, 'tree'))}`,
      );
    this.wrong.push(...this.files.judge(this.#left()), ...this.locks.wrong);
  }

  /** What the files contain, and what is kept of them. */
  #left(): { file: string; found: string[] }[] {
    const lost = `${this.rig.repo}/.gate/lost`;
    let kept: string[] = [];
    try {
      kept = readdirSync(lost).filter((name) => name.includes('-') && !name.endsWith('.json'));
    } catch {
      // Nothing was kept.
    }
    this.keptFiles = kept.length;
    const found = (path: string) => {
      const text = readFileSync(path, 'latin1');
      const blocks: string[] = [];
      for (let i = 0; i < text.length; i += BLOCK_BYTES)
        blocks.push(text.slice(i, i + BLOCK_BYTES).replace(/\.*$/, ''));
      return blocks;
    };
    return [
      ...[...FILES, ...REPLACED].map((file) => ({ file, found: found(`${this.rig.repo}/${file}`) })),
      ...kept.map((id) => ({ file: `kept ${id}`, found: found(`${lost}/${id}`) })),
    ];
  }

  async close(): Promise<void> {
    this.#stopping = true;
    if (this.wrong.length > 0)
      for (const log of ['repo/mount.log', 'broker.log', 'supervisor.log'])
        try {
          const lines = readFileSync(`${this.rig.state}/logs/${log}`, 'utf8').trim().split('\n');
          this.logs.push(...lines.slice(-LOG_LINES).map((line) => `${log}: ${line}`));
        } catch {
          // There is none.
        }
    for (const { child } of this.#workers) child.kill('SIGKILL');
    await this.rig.close();
  }
}

export async function crashPlay(
  seed: number,
  rounds: number,
  say: (text: string) => void = () => {},
): Promise<CrashResult> {
  const play = new CrashPlay(seed);
  const kills: Record<string, number> = {};
  try {
    await play.start();
    await play.settle();
    for (let round = 1; round <= rounds && play.wrong.length === 0; round++) {
      const kind = await play.round();
      kills[kind] = (kills[kind] ?? 0) + 1;
      if (round % SETTLE_EVERY === 0 || round === rounds) {
        await play.settle();
        say(
          `seed ${seed}: ${round} rounds, ${play.files.sections} sections, ${play.locks.grants} grants, ${play.wrong.length} wrong`,
        );
      }
    }
    await play.finish();
  } finally {
    await play.close();
  }
  const { sections, reads } = play.files;
  const { errors, late, wrong, slowestMs, keptFiles, logs } = play;
  return {
    seed,
    rounds,
    kills,
    sections,
    reads,
    grants: play.locks.grants,
    errors,
    late,
    slowestMs,
    keptFiles,
    wrong,
    logs,
  };
}

/** Values of `--name value` on the command line. */
function argument(name: string, otherwise: number): number {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
}

if (import.meta.main) {
  const [seed, rounds] = [argument('--seed', 1), argument('--rounds', 20)];
  const result = await crashPlay(seed, rounds, (text) => process.stderr.write(`${text}\n`));
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  process.exit(result.wrong.length === 0 ? 0 : 1);
}
