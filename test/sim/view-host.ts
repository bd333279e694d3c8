/**
 * A mount without its file system: the real session keeper, relay, lock port, delegate and grants of a view, on a simulated
 * machine, with the two threads' messages in between. What the kernel and the file operations would do is played here, by the
 * rules of docs/architecture.md: an open looks again after its grant, a rename takes the open files' holds along.
 */
import { GateError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import type { Kind, Region, Target } from '../../src/lock/index.ts';
import type { Announcer } from '../../src/mount/announce.ts';
import type { Lookout } from '../../src/mount/lookout.ts';
import type { FromReactor, ToReactor } from '../../src/mount/messages.ts';
import { MessageLockPort } from '../../src/mount/port.ts';
import { Relay } from '../../src/mount/relay.ts';
import { DelegatedLocks } from '../../src/view/delegate.ts';
import { SessionKeeper } from '../../src/view/keeper.ts';
import { Grant, type LockPort, Pending } from '../../src/view/locks.ts';
import { type Handle, type Inode, touch, within } from './checker.ts';
import { Process } from './kernel.ts';
import { Authority, FILES, type World } from './world.ts';

const ANNOUNCER = { asked() {}, queued() {}, ended() {} } as unknown as Announcer;
const LOOKOUT = ANNOUNCER as unknown as Lookout;

/** One way between the view's two threads, in order. */
class Thread<T> {
  readonly #world: World;
  readonly #process: Process;
  readonly #take: (message: T) => void;
  #lastMs = 0;

  constructor(world: World, process: Process, take: (message: T) => void) {
    this.#world = world;
    this.#process = process;
    this.#take = take;
  }

  post(message: T): void {
    const { kernel, chance } = this.#world;
    const copy = structuredClone(message);
    // A thread that waits for the disk below is late.
    this.#lastMs = Math.max(this.#lastMs, kernel.nowMs + (chance.oneIn(40) ? chance.between(1, 120) : 0.02));
    kernel.at(this.#lastMs, () => this.#process.do(() => this.#take(copy)));
  }
}

interface Taken {
  readonly grant: Grant;
  readonly token: number;
}

export class ViewHost {
  readonly #world: World;
  readonly name: string;
  readonly process: Process;
  readonly #authority: Authority;
  readonly #locks: DelegatedLocks;
  /** The delegate, seen through: a grant tells its token. */
  readonly #seen: LockPort;
  readonly #port: MessageLockPort;
  readonly #toMain: Thread<FromReactor>;
  readonly #handles = new Set<Handle>();
  #relay: Relay | null = null;
  #authorityEndsMs = 0;
  #nextRequest = 1;
  /** Recalled from this view and not given back since, by what it was told. */
  #recalled: Region[] = [];
  /** Tokens of grants that are being answered, by lock id. */
  readonly #tokens = new Map<string, number>();

  constructor(world: World, name: string, actors: number, delegation: boolean) {
    this.#world = world;
    this.name = name;
    this.process = new Process(world.kernel);
    world.processes.add(this.process);
    const { process } = this;
    this.#authority = new Authority(process, world.times.sessionTtlMs);
    this.#toMain = new Thread<FromReactor>(world, process, (message) => {
      if (message.t === 'returned' || message.t === 'taken')
        world.checker.note(`  ${name} says ${JSON.stringify(message)}`);
      this.#relay!.handle(message);
    });
    const toReactor = new Thread<ToReactor>(world, process, (message) => this.#fromMain(message));
    this.#port = new MessageLockPort((message) => this.#toMain.post(message));
    const clock = { nowMs: () => process.clock.nowMs(), after: process.clock.after };
    this.#locks = new DelegatedLocks(this.#port, clock, () => process.bootMs() < this.#authorityEndsMs);
    const locks = this.#locks;
    this.#seen = {
      tryNow: (request) => locks.tryNow(request),
      acquire: (request, answers) =>
        locks.acquire(request, {
          ...answers,
          granted: (lockId, token) => {
            this.#tokens.set(lockId, token);
            answers.granted(lockId, token);
            this.#tokens.delete(lockId);
          },
        }),
      cancel: (requestId) => locks.cancel(requestId),
      release: (lockId, owner) => locks.release(lockId, owner),
      move: (from, to, tree) => locks.move(from, to, tree),
      exchange: (x, y, tree) => locks.exchange(x, y, tree),
      detach: (path, tree) => locks.detach(path, tree),
      addTarget: (lockId, target) => locks.addTarget(lockId, target),
    };
    const keeper = new SessionKeeper(
      {
        socket: 'the broker',
        kind: 'mount',
        clock: process.clock,
        bootMs: () => process.bootMs(),
        connectMs: 1e9,
        dial: world.network.dialer(process, this.#authority),
      },
      { root: '/repo', mount: `/mnt/${name}`, dev: '1', ino: '2' },
      silentLog,
    );
    keeper.open().then(
      () => {
        world.volume ??= keeper.volume;
        const { session, volume } = keeper;
        const send = (message: ToReactor) => toReactor.post(message);
        const { clock } = process;
        const relay = new Relay(session, volume, send, ANNOUNCER, LOOKOUT, silentLog, clock, delegation);
        this.#relay = relay;
        keeper.onLost = () => {
          world.counts.sessionsLost++;
          relay.lost();
        };
        keeper.onNew = (next) => relay.use(next);
        for (let i = 0; i < actors; i++)
          this.#live(`${name}.${'abcdefgh'[i]}`).catch((error) => world.fail(error));
      },
      (error) => {
        // A mount that cannot begin ends.
        if (error instanceof GateError) world.kill(process);
        else world.fail(error);
      },
    );
  }

  // ------------------------------------------------------------ the reactor's thread (mount/reactor.ts)

  #fromMain(message: ToReactor): void {
    if (message.t !== 'authority')
      this.#world.checker.note(`  ${this.name} hears ${JSON.stringify(message)}`);
    switch (message.t) {
      case 'granted':
      case 'queued':
      case 'refused':
        this.#port.answered(message);
        break;
      case 'hold_lost':
        this.#holdLost(message.lockId);
        break;
      case 'session_lost':
        this.#locks.end();
        for (const handle of [...this.#handles]) this.#over(handle);
        this.#port.lost();
        this.#recalled = [];
        break;
      case 'authority':
        this.#authorityEndsMs = message.untilMs;
        break;
      case 'delegated':
        this.#recalled = [...message.delegation.out];
        this.#locks.begin(message.delegation);
        break;
      case 'recall':
        this.#recalled.push(message.region);
        this.#locks.recall(message.epoch, message.region);
        break;
      case 'give': {
        const { region } = message;
        this.#recalled = this.#recalled.filter(
          (one) => one.path !== region.path && !(region.scope === 'tree' && within(one.path, region.path)),
        );
        this.#locks.give(message);
        break;
      }
      case 'report':
        this.#locks.report(message.report, message.region);
        break;
    }
  }

  #holdLost(lockId: string): void {
    const { checker } = this.#world;
    for (const handle of [...this.#handles]) {
      if (handle.lockId !== lockId) continue;
      if (!handle.over && !checker.breakable.has(lockId) && !checker.amnesia)
        checker.fail(`${handle.owner} was told that it lost ${lockId}, and nobody had broken it`);
      this.#over(handle);
    }
  }

  #over(handle: Handle): void {
    this.#handles.delete(handle);
    this.#world.checker.ends(handle);
  }

  // ------------------------------------------------------------ asking

  /** Asks as the view does, and resolves with the grant; null when it was refused or interrupted. */
  #ask(owner: string, kind: Kind, targets: readonly Target[], interruptible: boolean): Promise<Taken | null> {
    const world = this.#world;
    const { chance } = world;
    const requestId = `${this.name}-${this.process.clock.wallMs()}-${this.#nextRequest++}`;
    const waitMs = world.waitMs();
    const request = { requestId, owner, kind, targets, waitMs, who: {}, tid: 0 };
    if (!interruptible || chance.oneIn(4)) {
      const got = this.#locks.tryNow(request);
      if (got !== null) {
        this.#checkLocal(targets, got.lockId, owner);
        return Promise.resolve({
          grant: new Grant(this.#seen, got.lockId, owner, targets),
          token: got.token,
        });
      }
    }
    const token = world.asked(this.process, `${owner} asks for ${JSON.stringify(targets)} ${requestId}`);
    return new Promise((resolve) => {
      let done = false;
      const end = (taken: Taken | null) => {
        done = true;
        world.answered(token);
        resolve(taken);
      };
      let local = true;
      const answers = {
        granted: (grant: Grant) => {
          if (local) this.#checkLocal(targets, grant.lockId, owner);
          end({ grant, token: this.#tokens.get(grant.lockId) ?? 0 });
        },
        refused: (code: string) => {
          world.refused(code);
          end(null);
        },
      };
      const pending = new Pending(this.#seen, request, answers, (_over, done) => done(null));
      local = false;
      if (done || !interruptible || !chance.oneIn(6)) return;
      this.process.clock.after(chance.delayMs(30, 300), () => {
        if (done) return;
        pending.cancel();
        end(null);
      });
    });
  }

  /** Granted here without a word to the broker: then nothing of it may have been recalled. */
  #checkLocal(targets: readonly Target[], lockId: string, owner: string): void {
    for (const region of this.#recalled)
      for (const target of targets)
        if (touch(region, target))
          this.#world.checker.fail(
            `the delegate granted ${lockId} to ${owner} on '${target.path}', and '${region.path}' had been recalled`,
          );
  }

  #begin(taken: Taken, owner: string, kind: Kind, targets: readonly Target[], inode: Inode | null): Handle {
    const { checker } = this.#world;
    const { lockId } = taken.grant;
    const local = lockId.includes('.') && !checker.holds.has(lockId);
    const handle = this.#world.handle({
      owner,
      kind,
      targets,
      lockId,
      token: taken.token,
      inode,
      mayAct: this.#authority.mayAct(),
    });
    this.#handles.add(handle);
    checker.begins(handle, local);
    return handle;
  }

  // ------------------------------------------------------------ what programs do

  async #live(owner: string): Promise<void> {
    const world = this.#world;
    const { chance } = world;
    const { clock } = this.process;
    while (!world.closing) {
      if (chance.oneIn(4)) await this.#changeNames(owner);
      else {
        const open = [await this.#open(owner)];
        await clock.delay(chance.delayMs(10, 200));
        if (chance.oneIn(5) && !world.closing) open.push(await this.#open(owner));
        await clock.delay(chance.delayMs(5, 100));
        for (const close of open) close?.();
      }
      await clock.delay(chance.delayMs(15, 250));
    }
  }

  /** Opens or creates; returns what closes it. */
  async #open(owner: string): Promise<(() => void) | null> {
    const world = this.#world;
    const path = world.chance.pick(FILES);
    const wanted = world.inodeAt(path);
    const mode = wanted === null || world.chance.oneIn(2) ? 'write' : 'read';
    const targets: Target[] = [{ path, mode, scope: 'file' }];
    const taken = await this.#ask(owner, 'handle', targets, wanted !== null);
    if (taken === null) return null;
    if (!this.#authority.lives) return this.#drop(taken);
    if (wanted === null && world.inodeAt(path) === null) world.create(path);
    else if (world.inodeAt(path) !== wanted) return this.#openAgain(owner, path, mode, taken);
    return this.#opened(taken, owner, targets, world.inodeAt(path)!);
  }

  /** The name led elsewhere after the grant: the second arrival, for what stands there now (view/opening.ts). */
  async #openAgain(
    owner: string,
    path: string,
    mode: 'read' | 'write',
    kept: Taken,
  ): Promise<(() => void) | null> {
    const inode = this.#world.inodeAt(path);
    for (let at: string | null = path; inode !== null && at !== null; at = inode.path) {
      const targets: Target[] = [{ path: at, mode, scope: 'file' }];
      const taken = await this.#ask(owner, 'handle', targets, true);
      kept.grant.release();
      if (taken === null) return null;
      if (!this.#authority.lives) return this.#drop(taken);
      if (inode.path === at) return this.#opened(taken, owner, targets, inode);
      kept = taken;
    }
    return this.#drop(kept);
  }

  #opened(taken: Taken, owner: string, targets: readonly Target[], inode: Inode): () => void {
    const handle = this.#begin(taken, owner, 'handle', targets, inode);
    return () => {
      this.#over(handle);
      taken.grant.release();
    };
  }

  #drop(taken: Taken): null {
    taken.grant.release();
    return null;
  }

  async #changeNames(owner: string): Promise<void> {
    const world = this.#world;
    const { chance } = world;
    const what = chance.pick(['rename', 'rename', 'unlink', 'exchange', 'renameTree'] as const);
    const tree = what === 'renameTree';
    const [a, b] = tree
      ? chance.pick([['d', 'e'] as const, ['e', 'd'] as const])
      : [chance.pick(FILES), chance.pick(FILES)];
    if (a === b) return;
    const scope = tree ? 'tree' : 'file';
    const targets: Target[] = (what === 'unlink' ? [a] : [a, b]).map((path) => ({
      path,
      mode: 'replace',
      scope,
    }));
    const taken = await this.#ask(owner, 'name', targets, false);
    if (taken === null) return;
    if (!this.#authority.lives) {
      this.#drop(taken);
      return;
    }
    const handle = this.#begin(taken, owner, 'name', targets, null);
    world.counts.moves++;
    let moved: readonly Inode[] = [];
    if (what === 'unlink') {
      world.unlink(a);
      this.#locks.detach(a, false);
    } else if (what === 'exchange') {
      moved = world.exchange(a, b);
      if (moved.length > 0) this.#locks.exchange(a, b, false);
    } else if (tree) {
      moved = world.renameTree(a, b);
      this.#locks.move(a, b, true);
    } else if (world.inodeAt(a) !== null) {
      moved = world.rename(a, b);
      this.#locks.move(a, b, false);
    }
    world.checker.note(
      `  ${this.name} does ${what} '${a}' '${b}', which moves inodes ${moved.map(({ id }) => id).join(' ') || '-'}`,
    );
    world.checker.checkAll();
    this.#over(handle);
    taken.grant.release();
  }
}
