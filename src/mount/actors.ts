import type { MessagePort } from 'node:worker_threads';
import * as sys from '../sys/index.ts';
import type { Actor, ActorSource, Caller } from '../view/actors.ts';
import type { FromProber, ToProber } from './messages.ts';
import { groupsOf, runsIn, startStackIn } from './proc.ts';

type ProberAnswer = Extract<FromProber, { readonly id: number }>;

const CACHE_MAX = 1024;

interface Known {
  readonly actor: Actor;
  /** Descriptor of /proc/TID/stat: reading it fails once that very thread is gone, whoever has its number then. */
  readonly statFd: number;
  /** As `startStackIn` gives it. */
  readonly startStack: number;
}

/** Actors by thread id. A known one is checked before it is trusted: it may have exited, or called exec. */
export class Actors implements ActorSource {
  readonly #prober: MessagePort;
  readonly #mountDev: number;
  readonly #owner: string | undefined;
  readonly #known = new Map<number, Known>();
  readonly #waiting = new Map<number, (answer: ProberAnswer) => void>();
  readonly #resolving = new Map<number, ((actor: Actor) => void)[]>();
  readonly #buffer = Buffer.alloc(1024);
  #next = 1;

  /** `owner`: everybody's, instead of an actor for each process. */
  constructor(prober: MessagePort, mountDev: number, owner: string | undefined) {
    this.#prober = prober;
    this.#mountDev = mountDev;
    this.#owner = owner;
  }

  known(caller: Caller): Actor | null {
    const known = this.#known.get(caller.tid);
    if (known === undefined) return null;
    if (this.#startStack(known.statFd) === known.startStack) return known.actor;
    this.#forget(caller.tid, known);
    return null;
  }

  resolve(caller: Caller, done: (actor: Actor) => void): void {
    if (caller.tid === 0)
      return done({ owner: `${caller.uid}/invisible:${this.#next++}`, pid: 0, who: { uid: caller.uid } });
    const others = this.#resolving.get(caller.tid);
    if (others !== undefined) {
      others.push(done);
      return;
    }
    this.#resolving.set(caller.tid, [done]);
    const statFd = sys.openat(sys.AT_FDCWD, `/proc/${caller.tid}/stat`, sys.O_RDONLY | sys.O_CLOEXEC);
    const startStack = statFd < 0 ? -1 : this.#startStack(statFd);
    this.#ask({ t: 'actor', id: this.#next++, tid: caller.tid, uid: caller.uid }, (answer) => {
      if (answer.t !== 'actor') return;
      const actor = this.#owner === undefined ? answer.actor : { ...answer.actor, owner: this.#owner };
      // The same stack before and after the look: what was read belongs to this program.
      if (startStack >= 0 && this.#startStack(statFd) === startStack)
        this.#remember(caller.tid, { actor, statFd, startStack });
      else if (statFd >= 0) sys.close(statFd);
      const waiting = this.#resolving.get(caller.tid) ?? [];
      this.#resolving.delete(caller.tid);
      for (const use of waiting) use(actor);
    });
  }

  inGroup(caller: Caller, gid: number): boolean {
    return caller.gid === gid || groupsOf(caller.tid).includes(gid);
  }

  isOnItsWay(tid: number): boolean {
    const fd = sys.openat(sys.AT_FDCWD, `/proc/${tid}/stat`, sys.O_RDONLY | sys.O_CLOEXEC);
    if (fd < 0) return false;
    const length = sys.pread(fd, this.#buffer, 0);
    sys.close(fd);
    return runsIn(this.#buffer, length);
  }

  ancestorsWithOpen(caller: Caller, ino: number | bigint, done: (pids: readonly number[]) => void): void {
    if (caller.tid === 0) return done([]);
    this.#ask(
      { t: 'ancestors', id: this.#next++, tid: caller.tid, dev: this.#mountDev, ino: String(ino) },
      (answer) => {
        if (answer.t === 'ancestors') done(answer.pids);
      },
    );
  }

  /** An answer of the prober arrived. */
  answered(answer: ProberAnswer): void {
    const use = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    use?.(answer);
  }

  #ask(message: ToProber, use: (answer: ProberAnswer) => void): void {
    this.#waiting.set(message.id, use);
    this.#prober.postMessage(message);
  }

  /** -1: the thread is gone. */
  #startStack(fd: number): number {
    return startStackIn(this.#buffer, sys.pread(fd, this.#buffer, 0));
  }

  #remember(tid: number, known: Known): void {
    const before = this.#known.get(tid);
    if (before !== undefined) this.#forget(tid, before);
    this.#known.set(tid, known);
    if (this.#known.size <= CACHE_MAX) return;
    const [oldest, entry] = this.#known.entries().next().value!;
    this.#forget(oldest, entry);
  }

  #forget(tid: number, known: Known): void {
    this.#known.delete(tid);
    sys.close(known.statFd);
  }
}
