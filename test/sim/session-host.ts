/** A program with a session of the client's library, and several owners in it that come and go. */
import { connect, type GateSession } from '../../src/client/index.ts';
import type { Hold } from '../../src/lock/types.ts';
import type { Handle } from './checker.ts';
import { Process } from './kernel.ts';
import { Authority, type World } from './world.ts';

export class SessionHost {
  readonly #world: World;
  readonly name: string;
  readonly process: Process;
  readonly #handles = new Set<Handle>();
  #session: GateSession | null = null;
  #authority: Authority;

  constructor(world: World, name: string, owners: number) {
    this.#world = world;
    this.name = name;
    this.process = new Process(world.kernel);
    world.processes.add(this.process);
    this.#authority = new Authority(this.process, world.times.sessionTtlMs);
    void this.#connect();
    for (let i = 0; i < owners; i++) {
      const owner = `${name}.${'abcdefgh'[i]}`;
      this.process.clock.after(world.chance.between(0, 200), () => {
        this.#live(owner).catch((error) => world.fail(error));
      });
    }
  }

  async #connect(): Promise<void> {
    const { process } = this;
    const world = this.#world;
    while (process.alive && !world.closing) {
      this.#authority = new Authority(process, world.times.sessionTtlMs);
      try {
        const session = await connect({
          socket: 'the broker',
          kind: 'sdk',
          clock: process.clock,
          bootMs: () => process.bootMs(),
          dial: world.network.dialer(process, this.#authority),
        });
        session.onLost = () => {
          world.counts.sessionsLost++;
          this.#session = null;
          for (const handle of [...this.#handles]) this.#over(handle);
          void this.#connect();
        };
        session.onHoldLost = (lockId, reason) => this.#holdLost(lockId, reason);
        this.#session = session;
        return;
      } catch {
        await process.clock.delay(world.chance.between(10, 300));
      }
    }
  }

  #holdLost(lockId: string, reason: string): void {
    const { checker } = this.#world;
    for (const handle of [...this.#handles]) {
      if (handle.lockId !== lockId) continue;
      if (!handle.over && !checker.breakable.has(lockId) && !checker.amnesia)
        checker.fail(`${handle.owner} was told that it lost ${lockId} (${reason}), and nobody had broken it`);
      this.#over(handle);
    }
  }

  #over(handle: Handle): void {
    this.#handles.delete(handle);
    this.#world.checker.ends(handle);
  }

  async #live(owner: string): Promise<void> {
    const world = this.#world;
    const { chance } = world;
    const { clock } = this.process;
    while (!world.closing) {
      const session = this.#session;
      if (session === null || world.volume === null) {
        await clock.delay(30);
        continue;
      }
      const held = [await this.#take(session, owner)];
      await clock.delay(chance.delayMs(30, 300));
      // Another one while it has the first: so it is re-entrant, or a circle.
      if (chance.oneIn(4) && !world.closing) {
        held.push(await this.#take(session, owner));
        await clock.delay(chance.delayMs(10, 100));
      }
      if (chance.oneIn(40)) this.#breakSomebody(session);
      for (const handle of chance.oneIn(2) ? held : held.reverse())
        if (handle) await this.#giveBack(session, handle);
      await clock.delay(world.pace * chance.delayMs(40, 300));
    }
  }

  async #take(session: GateSession, owner: string): Promise<Handle | null> {
    const world = this.#world;
    const { chance, checker } = world;
    const targets = world.targets();
    const waitMs = world.waitMs();
    const holdCapMs = chance.oneIn(6) ? chance.between(20, 400) : null;
    const abort = chance.oneIn(6) ? new AbortController() : null;
    if (abort) this.process.clock.after(chance.delayMs(30, 300), () => abort.abort());
    const requestId = session.newRequestId();
    const retarget = chance.oneIn(8);
    const token = world.asked(this.process, `${owner} asks for ${JSON.stringify(targets)} ${requestId}`);
    const sentMs = this.process.bootMs();
    const mayAct = this.#authority.mayAct();
    let hold: Hold;
    try {
      hold = await session.acquire(
        { owner, volume: world.volume!, targets, waitMs, holdCapMs, kind: 'name', requestId },
        {
          signal: abort?.signal,
          onQueued: () => {
            if (retarget) session.retarget(requestId, world.targets()).catch(() => {});
          },
        },
      );
    } catch (error) {
      world.answered(token);
      const { code } = error as { code: string };
      world.refused(code);
      this.#checkRefusal(code, waitMs, this.process.bootMs() - sentMs, requestId);
      return null;
    }
    world.answered(token);
    if (holdCapMs !== null) checker.breakable.add(hold.lockId);
    // Where it was retargeted the answer does not say so; the row does.
    const row = checker.holds.get(hold.lockId);
    const handle = world.handle({
      owner,
      kind: 'name',
      targets: row?.targets ?? hold.targets,
      lockId: hold.lockId,
      token: hold.token,
      inode: null,
      mayAct,
    });
    if (row === undefined && checker.breakable.has(hold.lockId)) return null;
    this.#handles.add(handle);
    checker.begins(handle, false);
    return handle;
  }

  #checkRefusal(code: string, waitMs: number | null, elapsedMs: number, requestId: string): void {
    if (code !== 'timeout') return;
    // Clocks drift, and broker time is whole milliseconds.
    if (waitMs === null || elapsedMs * 1.01 + 2 < waitMs)
      this.#world.checker.fail(`${requestId} was refused for time after ${elapsedMs} ms; it had ${waitMs}`);
  }

  async #giveBack(session: GateSession, handle: Handle): Promise<void> {
    const world = this.#world;
    if (!this.#handles.has(handle)) return;
    this.#over(handle);
    const token = world.asked(this.process, `${handle.owner} gives back ${handle.lockId}`);
    try {
      await session.release(handle);
    } catch (error) {
      if ((error as { code: string }).code === 'not_found' && handle.mayAct())
        world.checker.unknownAtRelease(handle);
    }
    world.answered(token);
  }

  #breakSomebody(session: GateSession): void {
    const { chance, checker } = this.#world;
    const victims = [...checker.live];
    if (victims.length === 0) return;
    const { lockId } = chance.pick(victims);
    checker.breakable.add(lockId);
    this.#world.counts.breaks++;
    session.break(lockId).catch(() => {});
  }
}
