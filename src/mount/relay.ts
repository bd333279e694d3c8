import type { Clock } from '../base/clock.ts';
import { isErrorCode } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Delegated, GateSession, Grant, Push } from '../client/index.ts';
import type { Announcer } from './announce.ts';
import type { Lookout } from './lookout.ts';
import type { FromReactor, ToReactor } from './messages.ts';
import { TIDS } from './remote-actors.ts';
import type { Verdict } from './standstill.ts';

/** Between two tries to get the delegation that another view has. */
const DELEGATION_AGAIN_MS = 30_000;
/** How often in a TTL the reactor is told of the session's authority. */
const AUTHORITY_SHARE = 6;

/**
 * The main thread's end: passes the view's lock requests on to the broker, in the order in which they came, and the
 * answers back. A grant for a request that the view has cancelled is given back here.
 */
export class Relay {
  readonly #volume: string;
  readonly #toReactor: (message: ToReactor) => void;
  readonly #announcer: Announcer;
  readonly #lookout: Lookout;
  readonly #clock: Clock;
  readonly #delegation: boolean;
  readonly #log: Logger;
  /** Requests without an answer. */
  readonly #open = new Set<string>();
  /** The end of the session's authority that the reactor knows. */
  #toldMs = 0;
  #session: GateSession;
  /** Losses of a session that the reactor has not heard of yet: it refuses by itself all that it asked for before. */
  #unheardLosses = 0;

  constructor(
    session: GateSession,
    volume: string,
    toReactor: (message: ToReactor) => void,
    announcer: Announcer,
    lookout: Lookout,
    log: Logger,
    clock: Clock,
    delegation: boolean,
  ) {
    this.#clock = clock;
    this.#delegation = delegation;
    this.#session = session;
    this.#volume = volume;
    this.#toReactor = toReactor;
    this.#announcer = announcer;
    this.#lookout = lookout;
    this.#log = log;
    this.use(session);
  }

  /** Goes on with this session, a new one after the old was lost. */
  use(session: GateSession): void {
    this.#session = session;
    session.onHoldLost = (lockId) => this.#toReactor({ t: 'hold_lost', lockId });
    session.onPush = (push) => this.#pushed(push);
    if (this.#delegation) this.#askDelegation(session);
    this.#tellAuthority(session);
  }

  #pushed(push: Push): void {
    switch (push.push) {
      case 'queued': {
        const { requestId, blockers } = push;
        if (!this.#open.has(requestId)) return;
        this.#announcer.queued(requestId);
        this.#lookout.queued(requestId);
        return this.#toReactor({ t: 'queued', requestId, blockers });
      }
      case 'recall':
        return this.#toReactor({ t: 'recall', epoch: push.epoch, region: push.region });
      case 'give': {
        const { epoch, region, give, tokens } = push;
        return this.#toReactor({ t: 'give', epoch, region, give, tokens });
      }
      case 'unclean':
        return this.#toReactor({ t: 'unclean', paths: push.paths, all: false });
      case 'report':
        return this.#toReactor({ t: 'report', report: push.report, region: push.region });
    }
  }

  /** Asks to decide the volume's locks here; again and again while another view does. */
  #askDelegation(session: GateSession): void {
    session.send({ op: 'delegate', volume: this.#volume }, (answer) => {
      if (answer === undefined || session !== this.#session) return;
      if ('error' in answer) {
        if (answer.error.code === 'conflict')
          this.#clock.after(DELEGATION_AGAIN_MS, () => {
            if (session === this.#session && !session.ended) this.#askDelegation(session);
          });
        else this.#log.warn(`no delegation: ${answer.error.message}`);
        return;
      }
      const { epoch, tokens, out, unclean } = answer.ok as Delegated;
      this.#toReactor({ t: 'unclean', paths: unclean ?? [], all: true });
      const delegation = { volume: this.#volume, session: session.id, epoch, tokens, out };
      this.#toReactor({ t: 'delegated', delegation });
    });
  }

  /** Keeps the reactor told until when the session surely lives: it grants nothing by itself after that. */
  #tellAuthority(session: GateSession): void {
    if (session !== this.#session || session.ended) return;
    this.#tellEnd(session);
    this.#clock.after(session.ttlMs / AUTHORITY_SHARE, () => this.#tellAuthority(session));
  }

  #tellEnd(session: GateSession): void {
    const untilMs = session.authorityEndsMs();
    if (untilMs === this.#toldMs) return;
    this.#toldMs = untilMs;
    this.#toReactor({ t: 'authority', untilMs });
  }

  /** The session is lost: all that waited or was held is gone. */
  lost(): void {
    for (const requestId of this.#open) this.#over(requestId);
    this.#open.clear();
    this.#unheardLosses++;
    this.#toReactor({ t: 'session_lost' });
  }

  /** A request does not wait any more. */
  #over(requestId: string): void {
    this.#announcer.ended(requestId);
    this.#lookout.ended(requestId);
  }

  /** A wait that would never end. */
  standstill({ requestId, join }: Verdict): void {
    if (!this.#open.has(requestId)) return;
    if (join !== null) return this.#toReactor({ t: 'join', requestId, owner: join });
    this.handle({ t: 'cancel', requestId });
    const message = 'Waiting would never end: processes wait for each other, and for locks.';
    this.#toReactor({ t: 'refused', requestId, code: 'deadlock', message });
  }

  handle(message: FromReactor): void {
    switch (message.t) {
      case 'acquire':
        // Granted by the next session it would stay with nobody.
        if (this.#unheardLosses > 0) return;
        return this.#acquire(message);
      case 'session_lost_heard':
        this.#unheardLosses--;
        return;
      case 'cancel':
        this.#over(message.requestId);
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
      case 'returned': {
        const { epoch, regions, holds } = message;
        return this.#tell({ op: 'returned', volume: this.#volume, epoch, regions, holds });
      }
      case 'taken':
        return this.#tell({
          op: 'taken',
          volume: this.#volume,
          epoch: message.epoch,
          give: message.give,
          region: message.region,
          yes: message.yes,
        });
      case 'reported':
        return this.#tell({ op: 'reported', report: message.report, holds: message.holds });
      case 'activity':
        return this.#tell({ op: 'activity', volume: this.#volume, entries: message.entries });
      case 'clean':
        return this.#tell({ op: 'clean', volume: this.#volume, ids: message.ids, still: message.still });
      case 'note':
        return this.#tell({
          op: 'note',
          volume: this.#volume,
          path: message.path,
          what: message.what,
          // Whose it was may be unknown.
          ...(message.owner !== '' && { owner: message.owner }),
          message: message.message,
          whose: message.whose,
        });
    }
  }

  #acquire(message: FromReactor & { t: 'acquire' }): void {
    const { request } = message;
    const { requestId, owner, kind, targets, waitMs, who } = request;
    // Another machine's threads are not in our /proc.
    const tid = request.tid < TIDS ? request.tid : 0;
    const session = this.#session;
    this.#open.add(requestId);
    this.#announcer.asked(requestId, tid, targets[0]!.path, targets[0]!.mode);
    this.#lookout.asked({ ...request, tid });
    session.send(
      { op: 'acquire', requestId, owner, volume: this.#volume, kind, targets, waitMs, who },
      (answer) => {
        this.#over(requestId);
        if (!this.#open.delete(requestId)) return; // cancelled: the broker gives a late grant back itself
        if (answer === undefined)
          this.#toReactor({ t: 'refused', requestId, code: 'unavailable', message: 'the broker is away' });
        else if ('error' in answer) {
          const code = isErrorCode(answer.error.code) ? answer.error.code : 'internal';
          this.#toReactor({ t: 'refused', requestId, code, message: answer.error.message });
        } else {
          const grant = answer.ok as Grant;
          // After a reconnect the reactor may not know yet that the session goes on.
          this.#tellEnd(session);
          if (grant.unclean) this.#toReactor({ t: 'unclean', paths: grant.unclean, all: false });
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
