import type { ErrorCode } from '../base/errors.ts';
import type { Target } from '../lock/types.ts';
import type { LockAnswers, LockPort, LockRequest } from '../view/locks.ts';
import type { FromReactor, ToReactor } from './messages.ts';

/** The view's lock port on the reactor's thread: messages to the main thread, which has the session with the broker. */
export class MessageLockPort implements LockPort {
  readonly #post: (message: FromReactor) => void;
  readonly #waiting = new Map<string, LockAnswers>();

  constructor(post: (message: FromReactor) => void) {
    this.#post = post;
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

  /** An answer arrived. One for a request that was cancelled is dropped: the main thread gives such a grant back. */
  answered(message: Extract<ToReactor, { requestId: string }>): void {
    const answers = this.#waiting.get(message.requestId);
    if (answers === undefined) return;
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
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const answers of waiting)
      answers.refused('unavailable' satisfies ErrorCode, 'the session with the broker was lost');
  }
}
