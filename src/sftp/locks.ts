import { isErrorCode } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { GateSession, Grant, Push, UncleanPath } from '../client/index.ts';
import type { Target } from '../lock/types.ts';
import type { LockAnswers, LockPort, LockRequest } from '../view/locks.ts';

/** What the session tells that is not an answer. */
export interface LockNews {
  /** The request that was made with this `tid` has to wait. */
  queued(tid: number): void;
  holdLost(lockId: string): void;
  unclean(paths: readonly UncleanPath[]): void;
}

/** The view's locks, each asked of the broker: there is no delegation here, so nothing is ever recalled. */
export class SessionLocks implements LockPort {
  readonly #volume: string;
  readonly #news: LockNews;
  readonly #log: Logger;
  readonly #waiting = new Map<string, { readonly tid: number; readonly answers: LockAnswers }>();
  #session: GateSession;

  constructor(session: GateSession, volume: string, news: LockNews, log: Logger) {
    this.#session = session;
    this.#volume = volume;
    this.#news = news;
    this.#log = log;
    this.use(session);
  }

  /** Goes on with this session, a new one after the old was lost. */
  use(session: GateSession): void {
    this.#session = session;
    session.onHoldLost = (lockId) => this.#news.holdLost(lockId);
    session.onPush = (push) => this.#pushed(push);
  }

  /** The session is lost: nothing that waits will be answered by it. */
  lost(): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { answers } of waiting) answers.refused('unavailable', 'the session with the broker was lost');
  }

  #pushed(push: Push): void {
    if (push.push === 'unclean') this.#news.unclean(push.paths);
    if (push.push !== 'queued') return;
    const waiting = this.#waiting.get(push.requestId);
    if (waiting === undefined) return;
    waiting.answers.queued?.(push.blockers);
    this.#news.queued(waiting.tid);
  }

  tryNow(): null {
    return null;
  }

  acquire(request: LockRequest, answers: LockAnswers): void {
    const { requestId, owner, kind, targets, waitMs, who, tid } = request;
    this.#waiting.set(requestId, { tid, answers });
    this.#session.send(
      { op: 'acquire', requestId, owner, volume: this.#volume, kind, targets, waitMs, who },
      (answer) => {
        // Cancelled meanwhile: the broker gives a late grant back itself.
        if (!this.#waiting.delete(requestId)) return;
        if (answer === undefined) answers.refused('unavailable', 'the broker is away');
        else if ('error' in answer) {
          const { code, message } = answer.error;
          answers.refused(isErrorCode(code) ? code : 'internal', message);
        } else {
          const { lockId, token, unclean } = answer.ok as Grant;
          if (unclean) this.#news.unclean(unclean);
          answers.granted(lockId, token);
        }
      },
    );
  }

  cancel(requestId: string): void {
    this.#waiting.delete(requestId);
    this.#tell({ op: 'cancel', requestId });
  }

  release(lockId: string, owner: string): void {
    this.#tell({ op: 'release', lockId, owner });
  }

  move(from: string, to: string, tree: boolean): void {
    this.#tell({ op: 'move', volume: this.#volume, from, to, tree });
  }

  exchange(a: string, b: string, tree: boolean): void {
    this.#tell({ op: 'exchange', volume: this.#volume, a, b, tree });
  }

  detach(path: string, tree: boolean): void {
    this.#tell({ op: 'detach', volume: this.#volume, path, tree });
  }

  addTarget(lockId: string, target: Target): void {
    this.#tell({ op: 'add_target', lockId, target });
  }

  clean(ids: readonly string[], still: readonly string[]): void {
    this.#tell({ op: 'clean', volume: this.#volume, ids, still });
  }

  note(path: string, what: string, owner: string, message: string, whose: string | undefined): void {
    const named = owner === '' ? {} : { owner };
    this.#tell({ op: 'note', volume: this.#volume, path, what, ...named, message, whose });
  }

  /** A message whose answer matters only when it is an error. */
  #tell(message: Parameters<GateSession['send']>[0]): void {
    this.#session.send(message, (answer) => {
      if (answer === undefined || !('error' in answer)) return;
      const expected = message.op === 'cancel' || answer.error.code === 'not_found';
      this.#log[expected ? 'debug' : 'warn'](`${message.op} was refused: ${answer.error.message}`);
    });
  }
}
