/** Scripts with curl: each takes a lock with a lease, renews it now and then, gives it back or forgets to. */
import type { Handle } from './checker.ts';
import { HttpClient } from './http-client.ts';
import { Process } from './kernel.ts';
import type { World } from './world.ts';

/** Of its lease a careful holder uses so much: clocks differ. */
const USABLE_SHARE = 0.98;

export class HttpHost {
  readonly #world: World;
  readonly process: Process;
  readonly #client: HttpClient;

  constructor(world: World, name: string, owners: number) {
    this.#world = world;
    this.process = new Process(world.kernel);
    world.processes.add(this.process);
    this.#client = new HttpClient(world.broker, this.process);
    for (let i = 0; i < owners; i++)
      this.process.clock.after(world.chance.between(0, 300), () => {
        this.#live(`${name}.${'abcdefgh'[i]}`).catch((error) => world.fail(error));
      });
  }

  async #live(owner: string): Promise<void> {
    const world = this.#world;
    const { chance } = world;
    const { clock } = this.process;
    for (let round = 0; !world.closing; round++) {
      if (world.volume !== null) await this.#once(owner, `${owner}-${round}`);
      await clock.delay(world.pace * chance.delayMs(80, 400));
    }
  }

  async #once(owner: string, id: string): Promise<void> {
    const world = this.#world;
    const { chance, checker } = world;
    const { clock } = this.process;
    const leaseMs = chance.pick([200, 1000, 3000]);
    const targets = world.targets();
    const body = {
      volume: world.volume,
      targets,
      owner,
      lease_ms: leaseMs,
      timeout_ms: world.waitMs() ?? undefined,
      ...(chance.oneIn(2) && { request_id: id }),
    };
    const usableMs = leaseMs * USABLE_SHARE;
    const firstSentMs = this.process.bootMs();
    let lock: { lock_id: string; fencing_token: number } | undefined;
    for (let tries = 0; tries < 4 && lock === undefined; tries++) {
      const token = world.asked(this.process, `${owner} asks by HTTP for ${JSON.stringify(targets)}`);
      const { answer, abort } = this.#client.request('acquire', body);
      if (chance.oneIn(5)) clock.after(chance.delayMs(50, 500), abort);
      const { status, json } = await answer;
      world.answered(token);
      if (status === 200) lock = json.lock;
      else if (status !== null) world.refused(`http ${status}`);
      if (status !== null || body.request_id === undefined || world.closing) break;
      await clock.delay(chance.between(1, 50));
    }
    if (lock === undefined) return;
    let endsMs = firstSentMs + usableMs;
    const handle: Handle = world.handle({
      owner: `http:${owner}`,
      kind: 'name',
      targets,
      lockId: lock.lock_id,
      token: lock.fencing_token,
      inode: null,
      mayAct: () => this.process.alive && this.process.bootMs() < endsMs,
    });
    checker.begins(handle, false);
    while (chance.oneIn(2)) {
      await clock.delay(chance.between(0, leaseMs / 3));
      const sentMs = this.process.bootMs();
      const { status } = await this.#client.request('heartbeat', { lock_id: lock.lock_id, owner }).answer;
      if (status === 200) endsMs = sentMs + usableMs;
      else if (status === 404 && handle.mayAct()) checker.unknownAtRelease(handle);
    }
    await clock.delay(chance.delayMs(30, leaseMs));
    if (chance.oneIn(10)) return;
    const couldAct = handle.mayAct();
    checker.ends(handle);
    const { status } = await this.#client.request('release', { lock_id: lock.lock_id, owner }).answer;
    if (status === 404 && couldAct && handle.mayAct()) checker.unknownAtRelease(handle);
  }
}
