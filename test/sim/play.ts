/**
 * One play: a seed decides who takes part, what goes wrong and when. Then all faults end, everybody finishes, and nothing may be
 * left. The same seed plays the same play.
 */
import { connect } from '../../src/client/index.ts';
import { HttpHost } from './http-host.ts';
import { Process } from './kernel.ts';
import { SessionHost } from './session-host.ts';
import { ViewHost } from './view-host.ts';
import { Authority, World } from './world.ts';

/** What may go wrong. Each play has some of it. */
const FAULTS = [
  'broker crash',
  'power loss',
  'connections',
  'partition',
  'stop',
  'suspend',
  'client crash',
  'view crash',
  'wall clock',
  'disk full',
] as const;
type Fault = (typeof FAULTS)[number];

/**
 * What a play is about: few take part, so that what it is about happens often.
 * `all`: everybody. `lonely`: one view decides nearly everything by itself, its clock and its session are in trouble. `views`: several
 * views of one tree, all at the same names. `restarts`: a broker that comes and goes, under waits with limits.
 */
const THEMES = ['all', 'all', 'all', 'lonely', 'views', 'restarts'] as const;
type Theme = (typeof THEMES)[number];
const OF_THEME: Partial<Record<Theme, readonly Fault[]>> = {
  lonely: ['stop', 'suspend', 'partition', 'connections', 'broker crash'],
  views: ['stop', 'connections', 'view crash', 'partition'],
  restarts: ['broker crash', 'wall clock', 'connections', 'suspend', 'disk full'],
};

export interface Outcome {
  readonly seed: number;
  readonly error: Error | null;
  readonly steps: number;
  readonly granted: number;
  readonly localGrants: number;
  readonly waited: number;
  readonly checks: number;
  readonly trace: readonly string[];
  readonly summary: Readonly<Record<string, unknown>>;
}

class Play {
  readonly #world: World;
  readonly #faults: Fault[];
  readonly #durationMs: number;
  readonly #views: ViewHost[] = [];
  readonly #sessions: SessionHost[] = [];
  readonly #delegation: boolean;
  readonly #theme: Theme;
  #hosts = 0;

  constructor(seed: number) {
    const sketch = new World(seed, { sessionTtlMs: 1, delegationQuietMs: 1 }).chance;
    const sessionTtlMs = sketch.pick([400, 1000, 3000]);
    const delegationQuietMs = sketch.pick([20, 100, 600]);
    const world = new World(seed, { sessionTtlMs, delegationQuietMs });
    this.#world = world;
    const { chance } = world;
    this.#theme = chance.pick(THEMES);
    const may = OF_THEME[this.#theme] ?? FAULTS;
    const oneIn = this.#theme === 'all' ? 3 : 2;
    this.#faults = chance.oneIn(6) ? [] : may.filter(() => chance.oneIn(oneIn));
    this.#durationMs = chance.between(1500, 4500);
    this.#delegation = this.#theme === 'lonely' || !chance.oneIn(this.#theme === 'views' ? 2 : 4);
    world.pace = this.#theme === 'lonely' ? 12 : 1;
    if (chance.oneIn(3)) world.disk.slowOneIn = chance.pick([2, 10]);
    if (chance.oneIn(6)) world.disk.failOneIn = chance.pick([30, 200]);
    world.disk.alwaysSynced = !chance.oneIn(3);
    world.network.lateMs = chance.pick([2, 30, 30, 200]);
  }

  #begin(): void {
    const world = this.#world;
    const { chance } = world;
    world.broker.start();
    const theme = this.#theme;
    const views = theme === 'views' ? chance.pick([2, 3]) : theme === 'lonely' ? 1 : chance.pick([1, 1, 2]);
    for (let i = 0; i < views; i++) this.#view();
    if (theme === 'lonely') this.#session();
    else if (theme !== 'views') for (let i = chance.below(3); i > 0; i--) this.#session();
    if (theme === 'all' ? chance.oneIn(2) : theme === 'lonely' && chance.oneIn(4))
      new HttpHost(world, 'h', 1 + chance.below(3));
    if (this.#faults.length > 0) this.#trouble();
  }

  #view(): void {
    const { chance } = this.#world;
    this.#views.push(new ViewHost(this.#world, `v${this.#hosts++}`, 1 + chance.below(4), this.#delegation));
  }

  #session(): void {
    const { chance } = this.#world;
    this.#sessions.push(new SessionHost(this.#world, `s${this.#hosts++}`, 1 + chance.below(3)));
  }

  #trouble(): void {
    const { kernel, chance } = this.#world;
    kernel.after(chance.delayMs(400, 2000), () => {
      if (this.#world.closing) return;
      this.#fault(chance.pick(this.#faults));
      this.#trouble();
    });
  }

  #fault(fault: Fault): void {
    const world = this.#world;
    const { kernel, chance, broker, network, times } = world;
    world.counts.faults++;
    world.checker.note(`FAULT ${fault}`);
    const aWhileMs = chance.pick([50, times.sessionTtlMs * 0.5, times.sessionTtlMs * 2]) * chance.next();
    const anybody = [...world.processes];
    if (anybody.length === 0) return;
    switch (fault) {
      case 'broker crash':
      case 'power loss':
        if (fault === 'power loss') broker.losePower();
        else broker.crash();
        kernel.after(chance.pick([1, aWhileMs]), () => broker.start());
        break;
      case 'connections':
        network.breakSome();
        break;
      case 'partition':
        network.partition(chance.pick(anybody), aWhileMs);
        break;
      case 'stop': {
        const one = chance.oneIn(3) ? broker.process : chance.pick(anybody);
        one.stop(false);
        kernel.after(aWhileMs, () => one.goOn());
        break;
      }
      case 'suspend': {
        // The whole machine, or one that is elsewhere.
        const all = chance.oneIn(2) ? [...anybody, broker.process] : [chance.pick(anybody)];
        for (const one of all) one.stop(true);
        kernel.after(aWhileMs, () => {
          for (const one of all) one.goOn();
        });
        break;
      }
      case 'client crash': {
        const at = chance.below(this.#sessions.length);
        const [host] = this.#sessions.splice(at, 1);
        if (host === undefined) break;
        world.kill(host.process);
        kernel.after(aWhileMs, () => world.closing || this.#session());
        break;
      }
      case 'view crash': {
        const at = chance.below(this.#views.length);
        const [view] = this.#views.splice(at, 1);
        if (view === undefined) break;
        world.kill(view.process);
        kernel.after(aWhileMs, () => world.closing || this.#view());
        break;
      }
      case 'disk full':
        world.disk.full = true;
        kernel.after(aWhileMs, () => {
          world.disk.full = false;
        });
        break;
      case 'wall clock':
        chance.pick([...anybody, broker.process]).setWall(chance.between(-1e6, 1e6));
        break;
    }
  }

  /** All faults end, nobody begins anything new. */
  #calm(): void {
    const world = this.#world;
    world.closing = true;
    world.disk.full = false;
    world.disk.slowOneIn = 0;
    world.disk.failOneIn = 0;
    world.network.heal();
    for (const process of [...world.processes, world.broker.process]) process.goOn();
    world.broker.start();
  }

  async run(): Promise<void> {
    const world = this.#world;
    const { kernel, checker, times } = world;
    const wrong = () => checker.violation !== null || world.failure !== null;
    this.#begin();
    await kernel.run(this.#durationMs, wrong);
    this.#calm();
    const limitMs = kernel.nowMs + 20 * times.sessionTtlMs + 20_000;
    const over = () =>
      world.pending.size === 0 &&
      checker.waiters.size === 0 &&
      checker.holds.size === 0 &&
      [...checker.live].every((handle) => !handle.mayAct());
    await kernel.run(limitMs, () => wrong() || (kernel.steps % 64 === 0 && over()));
    if (wrong() || checker.amnesia) return;
    if (!over()) checker.fail(this.#leftOver());
    await this.#probe(wrong);
  }

  #leftOver(): string {
    const { checker, pending } = this.#world;
    const lines = [
      ...[...pending.values()].map(({ what }) => `unanswered: ${what}`),
      ...[...checker.waiters.values()].map(({ waiter }) => `waiting row: ${JSON.stringify(waiter.request)}`),
      ...[...checker.holds.values()].map((hold) => `held row: ${JSON.stringify(hold)}`),
      ...[...checker.live].map((handle) => `live: ${handle.owner} ${handle.lockId}`),
    ];
    return `faults have ended long ago, and this is left:\n  ${lines.slice(0, 16).join('\n  ')}`;
  }

  /** In the end somebody new gets the whole tree. */
  async #probe(wrong: () => boolean): Promise<void> {
    const world = this.#world;
    const { kernel, checker } = world;
    if (world.volume === null) return;
    const process = new Process(kernel);
    let got = false;
    const probe = async () => {
      const session = await connect({
        socket: 'the broker',
        kind: 'probe',
        clock: process.clock,
        bootMs: () => process.bootMs(),
        dial: world.network.dialer(process, new Authority(process, world.times.sessionTtlMs)),
      });
      await session.acquire({ owner: 'probe', volume: world.volume!, path: '', scope: 'tree' });
      got = true;
    };
    const tryOn = async () => {
      while (!got)
        await probe().catch((error) => {
          // A slow network may cost it its session.
          if (error.code !== 'session_lost') throw error;
        });
    };
    tryOn().catch((error) => world.fail(error));
    await kernel.run(kernel.nowMs + 5 * world.times.sessionTtlMs + 10_000, () => got || wrong());
    if (!got && !wrong()) checker.fail('nobody has anything, and the whole tree cannot be had');
  }

  outcome(seed: number, thrown: Error | null): Outcome {
    const { checker, kernel, failure, counts, broker, disk, times } = this.#world;
    const { granted, localGrants, waited, checks, trace, violation, amnesia } = checker;
    return {
      seed,
      error: violation ?? failure ?? thrown,
      steps: kernel.steps,
      granted,
      localGrants,
      waited,
      checks,
      trace,
      summary: {
        ...counts,
        ...times,
        theme: this.#theme,
        faults: this.#faults,
        delegation: this.#delegation,
        starts: broker.starts,
        commits: disk.commits,
        amnesia,
      },
    };
  }
}

export async function play(seed: number): Promise<Outcome> {
  const one = new Play(seed);
  let thrown: Error | null = null;
  try {
    await one.run();
  } catch (error) {
    thrown = error as Error;
  }
  return one.outcome(seed, thrown);
}
