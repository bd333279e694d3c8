import type { Actor, ActorSource, Caller } from '../view/actors.ts';

/**
 * Who asks, over SFTP: the processes behind a connection are not visible, so each open file is an actor of its own, and what is done by
 * path is the connection's. A request's `tid` is a number that we gave, never a thread.
 */
export class SftpActors implements ActorSource {
  readonly #byNumber = new Map<number, Actor>();
  #next = 1;

  add(actor: Actor): number {
    const number = this.#next++;
    this.#byNumber.set(number, actor);
    return number;
  }

  remove(number: number): void {
    this.#byNumber.delete(number);
  }

  known(caller: Caller): Actor | null {
    return this.#byNumber.get(caller.tid) ?? null;
  }

  resolve(_caller: Caller, done: (actor: Actor) => void): void {
    done({ owner: 'sftp', pid: 0, who: { command: 'sftp' } });
  }

  inGroup(caller: Caller, gid: number): boolean {
    return caller.gid === gid;
  }

  ancestorsWithOpen(_caller: Caller, _ino: number | bigint, done: (pids: readonly number[]) => void): void {
    done([]);
  }
}
