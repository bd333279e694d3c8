import { isErrorCode } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { GateSession } from '../client/index.ts';
import type { Announcer } from './announce.ts';
import type { FromReactor, ToReactor } from './messages.ts';

/**
 * The main thread's end: passes the view's lock requests on to the broker, in the order in which they came, and the
 * answers back. A grant for a request that the view has cancelled is given back here.
 */
export class Relay {
  readonly #volume: string;
  readonly #toReactor: (message: ToReactor) => void;
  readonly #announcer: Announcer;
  readonly #log: Logger;
  /** Requests without an answer. */
  readonly #open = new Set<string>();
  #session: GateSession;

  constructor(
    session: GateSession,
    volume: string,
    toReactor: (message: ToReactor) => void,
    announcer: Announcer,
    log: Logger,
  ) {
    this.#session = session;
    this.#volume = volume;
    this.#toReactor = toReactor;
    this.#announcer = announcer;
    this.#log = log;
    this.use(session);
  }

  /** Goes on with this session, a new one after the old was lost. */
  use(session: GateSession): void {
    this.#session = session;
    session.onHoldLost = (lockId) => this.#toReactor({ t: 'hold_lost', lockId });
    session.onPush = (push) => {
      if (push.push !== 'queued' || !this.#open.has(push.requestId)) return;
      this.#announcer.queued(push.requestId);
      this.#toReactor({
        t: 'queued',
        requestId: push.requestId,
        blockers: push.blockers,
      });
    };
  }

  /** The session is lost: all that waited or was held is gone. */
  lost(): void {
    for (const requestId of this.#open) this.#announcer.ended(requestId);
    this.#open.clear();
    this.#toReactor({ t: 'session_lost' });
  }

  handle(message: FromReactor): void {
    switch (message.t) {
      case 'acquire':
        return this.#acquire(message);
      case 'cancel':
        this.#announcer.ended(message.requestId);
        this.#open.delete(message.requestId);
        return this.#tell({ op: 'cancel', requestId: message.requestId });
      case 'release':
        return this.#tell({ op: 'release', lockId: message.lockId, owner: message.owner });
      case 'move':
        return this.#tell({
          op: 'move',
          volume: this.#volume,
          from: message.from,
          to: message.to,
          tree: message.tree,
        });
      case 'exchange':
        return this.#tell({
          op: 'exchange',
          volume: this.#volume,
          a: message.a,
          b: message.b,
          tree: message.tree,
        });
      case 'detach':
        return this.#tell({ op: 'detach', volume: this.#volume, path: message.path, tree: message.tree });
      case 'add_target':
        return this.#tell({ op: 'add_target', lockId: message.lockId, target: message.target });
      case 'note':
        return this.#tell({
          op: 'note',
          volume: this.#volume,
          path: message.path,
          what: message.what,
          owner: message.owner,
          message: message.message,
        });
    }
  }

  #acquire(message: FromReactor & { t: 'acquire' }): void {
    const { request } = message;
    const { requestId, owner, kind, targets, waitMs, who, tid } = request;
    const session = this.#session;
    this.#open.add(requestId);
    this.#announcer.asked(requestId, tid, targets[0]!.path, targets[0]!.mode);
    session.send(
      { op: 'acquire', requestId, owner, volume: this.#volume, kind, targets, waitMs, who },
      (answer) => {
        this.#announcer.ended(requestId);
        if (!this.#open.delete(requestId)) return; // cancelled: the broker gives a late grant back itself
        if (answer === undefined)
          this.#toReactor({ t: 'refused', requestId, code: 'unavailable', message: 'the broker is away' });
        else if ('error' in answer) {
          const code = isErrorCode(answer.error.code) ? answer.error.code : 'internal';
          this.#toReactor({ t: 'refused', requestId, code, message: answer.error.message });
        } else {
          const grant = answer.ok as { lockId: string; token: number };
          this.#toReactor({ t: 'granted', requestId, lockId: grant.lockId, token: grant.token });
        }
      },
    );
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
