import type { ActorFrame, Answer, Ask } from '../remote/wire.ts';
import type { Actor, ActorSource, Caller } from '../view/actors.ts';

/** Thread ids of one machine lie below this; those of the n-th remote kernel at n times this and above. */
export const TIDS = 2 ** 32;
const NUMBERS_MAX = 4096;
const THREADS_MAX = 16_384;
const TEXT_MAX = 300;

/** Finds the source of a caller's machine. */
export class AllActors implements ActorSource {
  readonly #local: ActorSource;
  readonly remote = new Map<number, RemoteActors>();

  constructor(local: ActorSource) {
    this.#local = local;
  }

  #of(caller: Caller): ActorSource {
    return this.remote.get(Math.floor(caller.tid / TIDS)) ?? this.#local;
  }

  known(caller: Caller): Actor | null {
    return this.#of(caller).known(caller);
  }

  resolve(caller: Caller, done: (actor: Actor) => void): void {
    this.#of(caller).resolve(caller, done);
  }

  inGroup(caller: Caller, gid: number): boolean {
    return this.#of(caller).inGroup(caller, gid);
  }

  /** Of another machine's threads nobody can tell. */
  isOnItsWay(tid: number): boolean {
    return tid < TIDS && (this.#local.isOnItsWay?.(tid) ?? false);
  }

  ancestorsWithOpen(caller: Caller, ino: number | bigint, done: (pids: readonly number[]) => void): void {
    this.#of(caller).ancestorsWithOpen(caller, ino, done);
  }
}

interface Told {
  readonly actor: Actor;
  readonly groups: readonly number[];
}

/** Actors of another machine, as its client tells of them with their requests. */
export class RemoteActors implements ActorSource {
  readonly #host: string;
  /** Added to thread and process ids. */
  readonly #base: number;
  readonly #ask: (question: Ask) => void;
  readonly #mapGid: (gid: number) => number;
  readonly #byNumber = new Map<number, Told>();
  readonly #byThread = new Map<number, Told>();
  readonly #asked = new Map<number, (pids: readonly number[]) => void>();
  #next = 1;

  constructor(host: string, base: number, mapGid: (gid: number) => number, ask: (question: Ask) => void) {
    this.#host = host;
    this.#base = base;
    this.#mapGid = mapGid;
    this.#ask = ask;
  }

  /** From now on this number stands for that actor. False: it is none. */
  tell(frame: Record<string, unknown>): boolean {
    const { number, owner, pid, groups, who, agent } = frame as Partial<ActorFrame>;
    if (!isId(number) || number === 0 || number > NUMBERS_MAX || !isText(owner) || !isId(pid)) return false;
    if (!Array.isArray(groups) || groups.length > 65_536 || !groups.every(isId)) return false;
    const names = agent?.names ?? [];
    if (!Array.isArray(names) || names.length > 256 || !names.every((name) => typeof name === 'string'))
      return false;
    this.#byNumber.set(number, {
      actor: {
        owner: `${this.#host}:${owner}`,
        pid: pid === 0 ? 0 : pid + this.#base,
        who: {
          ...(isId(who?.pid) && { pid: who.pid }),
          ...(isId(who?.uid) && { uid: who.uid }),
          ...(isText(who?.command) && { command: who.command }),
          host: this.#host,
        },
        ...(agent !== undefined && { agent: { main: agent.main === true, names } }),
      },
      groups: groups.map((gid) => this.#mapGid(gid)),
    });
    return true;
  }

  /** This thread acts for the actor with that number. False: there is none. */
  acts(tid: number, number: number): boolean {
    const told = this.#byNumber.get(number);
    if (told === undefined) return false;
    this.#byThread.delete(tid);
    this.#byThread.set(tid, told);
    if (this.#byThread.size > THREADS_MAX) this.#byThread.delete(this.#byThread.keys().next().value!);
    return true;
  }

  known(caller: Caller): Actor | null {
    return this.#byThread.get(caller.tid)?.actor ?? null;
  }

  resolve(caller: Caller, done: (actor: Actor) => void): void {
    const owner = `${this.#host}:${caller.uid}/invisible:${this.#next++}`;
    done(this.known(caller) ?? { owner, pid: 0, who: { uid: caller.uid, host: this.#host } });
  }

  inGroup(caller: Caller, gid: number): boolean {
    return caller.gid === gid || (this.#byThread.get(caller.tid)?.groups.includes(gid) ?? false);
  }

  ancestorsWithOpen(caller: Caller, ino: number | bigint, done: (pids: readonly number[]) => void): void {
    const id = this.#next++;
    this.#asked.set(id, done);
    this.#ask({ id, tid: caller.tid - this.#base, ino: String(ino) });
  }

  /** The client's answer to a question. */
  answered(frame: Record<string, unknown>): boolean {
    const { id, pids } = frame as Partial<Answer>;
    if (!isId(id) || !Array.isArray(pids) || !pids.every(isId)) return false;
    const done = this.#asked.get(id);
    this.#asked.delete(id);
    done?.(pids.map((pid) => pid + this.#base));
    return true;
  }
}

function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < TIDS;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= TEXT_MAX && !/\p{Cc}/u.test(value);
}
