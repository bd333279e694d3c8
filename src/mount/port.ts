import type { ErrorCode } from '../base/errors.ts';
import type { Hold, Region, Target } from '../lock/index.ts';
import type { DelegateActivity, DelegationPort } from '../view/delegate.ts';
import type { LockAnswers, LockRequest } from '../view/locks.ts';
import type { FromReactor, ToReactor } from './messages.ts';

/** The view's lock port on the reactor's thread: messages to the main thread, which has the session with the broker. */
export class MessageLockPort implements DelegationPort {
  readonly #post: (message: FromReactor) => void;
  readonly #waiting = new Map<string, LockAnswers>();

  constructor(post: (message: FromReactor) => void) {
    this.#post = post;
  }

  tryNow(): null {
    return null;
  }

  acquire(request: LockRequest, answers: LockAnswers): void {
    this.#waiting.set(request.requestId, answers);
    this.#post({ t: 'acquire', request });
  }

  cancel(requestId: string): void {
    this.#waiting.delete(requestId);
    this.#post({ t: 'cancel', requestId });
  }

  release(lockId: string, owner: string): void {
    this.#post({ t: 'release', lockId, owner });
  }

  move(from: string, to: string, tree: boolean): void {
    this.#post({ t: 'move', from, to, tree });
  }

  exchange(a: string, b: string, tree: boolean): void {
    this.#post({ t: 'exchange', a, b, tree });
  }

  detach(path: string, tree: boolean): void {
    this.#post({ t: 'detach', path, tree });
  }

  addTarget(lockId: string, target: Target): void {
    this.#post({ t: 'add_target', lockId, target });
  }

  returned(epoch: string, regions: readonly Region[], holds: readonly Hold[]): void {
    this.#post({ t: 'returned', epoch, regions, holds });
  }

  taken(epoch: string, give: string, region: Region, yes: boolean): void {
    this.#post({ t: 'taken', epoch, give, region, yes });
  }

  reported(report: number, holds: readonly Hold[]): void {
    this.#post({ t: 'reported', report, holds });
  }

  activity(entries: readonly DelegateActivity[]): void {
    this.#post({ t: 'activity', entries });
  }

  /** An answer arrived. One for a request that was cancelled is dropped: the main thread gives such a grant back. */
  answered(message: Extract<ToReactor, { requestId: string }>): void {
    const answers = this.#waiting.get(message.requestId);
    if (answers === undefined) return;
    if (message.t === 'join') {
      answers.join?.(message.owner);
      return;
    }
    if (message.t === 'queued') {
      answers.queued?.(message.blockers);
      return;
    }
    this.#waiting.delete(message.requestId);
    if (message.t === 'granted') answers.granted(message.lockId, message.token);
    else answers.refused(message.code, message.message);
  }

  /** The session is lost: nothing that waits will be answered by it. */
  lost(): void {
    this.#post({ t: 'session_lost_heard' });
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const answers of waiting)
      answers.refused('unavailable' satisfies ErrorCode, 'the session with the broker was lost');
  }
}
