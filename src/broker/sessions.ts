/**
 * Sessions: what a client's locks live by. A session has a secret and a time to live (TTL), and stays while anything is
 * heard of it. When its connection breaks it may come back within the TTL, with its secret, over a new one.
 *
 * - The broker frees a session's locks a margin after the TTL, because the client counts from when it *sent*
 *   its last renewal and stops by itself at the TTL.
 * - Sessions are durable. After a restart of the broker each has one TTL to come back (the grace): they are loaded as
 *   heard of just now, so nothing else needs to be special.
 * - A broker that finds that it was stopped itself (suspended, SIGSTOP, a busy disk) could not hear anybody: it renews
 *   everybody first.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { GateError } from '../base/errors.ts';
import { newId, newSecret } from '../base/ids.ts';
import { isBelow } from '../lock/paths.ts';
import type { Effect, Mover } from '../lock/types.ts';
import type { Batch, SessionRow } from '../store/types.ts';
import { shownOwner } from './owners.ts';
import type { BrokerState } from './state.ts';
import { CLOSE, type ClientInfo, DELEGATE_OWNER, type Grant, HTTP_SESSION, type Push } from './wire.ts';

/** What a session needs of the connection it uses at the moment. */
export interface Outlet {
  answer(id: number, ok: unknown): void;
  fail(id: number, error: GateError): void;
  push(push: Push): void;
  /** After what was said so far has gone out. */
  close(code: number, why: string): void;
}

export interface Session {
  readonly id: string;
  readonly secretHash: string;
  readonly client: ClientInfo;
  readonly startedAtMs: number;
  lastId: number;
  heardMs: number;
  /** Why it is not renewed any more, if it is not (`doom`). */
  doomed: string | undefined;
  outlet: Outlet | undefined;
  /** Request id to message id of the acquires that this connection waits to be answered. */
  readonly pending: Map<string, number>;
  /** Of a reassertion in parts: what was named so far. */
  /** Volumes whose locks it decides itself. */
  readonly delegated: { volume: string; epoch: string }[];
  reasserted: { readonly locks: Set<string>; readonly requests: Set<string> } | undefined;
}

/** Share of the TTL that the broker waits longer than the holder, at most `MARGIN_MS_MAX`. */
const MARGIN_SHARE = 0.2;
const MARGIN_MS_MAX = 2000;
/** Share of the TTL between two looks at the sessions. A look that is later by a third of the TTL means sleep. */
const LOOK_SHARE = 0.1;
const LOOK_MS_MAX = 1000;
const SLEPT_SHARE = 1 / 3;

function hash(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

export function grantOf(effect: Extract<Effect, { type: 'granted' }>): Grant {
  const { hold } = effect;
  return {
    lockId: hold.lockId,
    token: hold.token,
    ticket: hold.ticket,
    count: hold.count,
    grantedAtMs: hold.grantedAtMs,
    coveredSinceMs: hold.coveredSinceMs,
    leaseExpiresAtMs: hold.leaseExpiresAtMs,
    again: effect.again,
    waited: effect.waited,
  };
}

export class Sessions {
  readonly #state: BrokerState;
  readonly #ttlMs: number;
  readonly #sessions = new Map<string, Session>();
  /** A session goes on over a new connection; a session is over. */
  onResume: (session: Session) => void = () => {};
  onEnd: (session: Session) => void = () => {};
  /** Rows to be written with this turn. */
  readonly #dirty = new Set<Session>();
  #lookedMs: number;
  #ended = false;

  constructor(state: BrokerState) {
    this.#state = state;
    this.#ttlMs = state.parts.settings.sessionTtlMs;
    this.#lookedMs = state.nowMs();
    for (const [id, row] of state.parts.store.rows('session')) this.#sessions.set(id, this.#revive(row));
    state.beforeCommit = (batch) => this.#putRows(batch);
    this.#lookLater();
  }

  get size(): number {
    return this.#sessions.size;
  }

  has(id: string): boolean {
    return this.#sessions.has(id);
  }

  list(): Session[] {
    return [...this.#sessions.values()];
  }

  #revive(row: SessionRow): Session {
    return {
      ...row,
      heardMs: this.#state.nowMs(),
      doomed: undefined,
      outlet: undefined,
      pending: new Map(),
      reasserted: undefined,
      delegated: [...(row.delegated ?? [])],
    };
  }

  /** A new session. Throws `limit`. */
  start(client: ClientInfo, outlet: Outlet): { session: Session; secret: string } {
    const { limits } = this.#state.parts.settings;
    if (this.#sessions.size >= limits.sessions)
      throw new GateError('limit', `The broker has ${limits.sessions} sessions already.`);
    const secret = newSecret();
    const startedAtMs = this.#state.nowMs();
    const row = { id: newId('ses'), secretHash: hash(secret), client, startedAtMs, lastId: 0 };
    const session = this.#revive(row);
    session.outlet = outlet;
    this.#sessions.set(session.id, session);
    this.touch(session);
    this.#event('session_started', session);
    return { session, secret };
  }

  /** Takes a session up on a new connection; the old one, if it still seems to live, is closed. Throws `session_lost`. */
  resume(id: string, secret: string, outlet: Outlet): Session {
    const session = this.#sessions.get(id);
    if (session?.doomed !== undefined) throw new GateError('session_lost', session.doomed);
    if (!session)
      throw new GateError(
        'session_lost',
        `The session ${id} is over: it was not heard of for ${this.#ttlMs} ms.`,
      );
    if (!timingSafeEqual(Buffer.from(hash(secret)), Buffer.from(session.secretHash)))
      throw new GateError('unauthorized', 'secret: it is not the one of this session', { field: 'secret' });
    session.outlet?.close(CLOSE.replaced, 'the session goes on over another connection');
    session.outlet = outlet;
    session.pending.clear();
    session.reasserted = undefined;
    this.heard(session);
    this.#state.apply({ type: 'away', sessions: [session.id], away: false });
    this.#event('session_resumed', session);
    this.onResume(session);
    return session;
  }

  /** Anything from a session renews it. */
  heard(session: Session): void {
    this.look();
    if (session.doomed === undefined) session.heardMs = this.#state.nowMs();
  }

  /** Has the session's row written with this turn. */
  touch(session: Session): void {
    if (this.#dirty.size === 0) this.#state.change(() => {});
    this.#dirty.add(session);
  }

  /** Its connection broke. What it holds and waits for stays, for the TTL. */
  detach(session: Session, outlet: Outlet): void {
    if (session.outlet !== outlet) return;
    session.outlet = undefined;
    // A broker that stops decides nothing more.
    if (!this.#ended) this.#state.apply({ type: 'away', sessions: [session.id], away: true });
  }

  /**
   * Has a session end as one that is not heard of any more: its holder is told, but may not hear it, and may go on by its own clock until
   * its time is over. Only then is freed what it holds.
   */
  doom(session: Session, message: string): void {
    session.doomed = message;
    session.outlet?.push({ push: 'session_lost', message });
    session.outlet?.close(CLOSE.sessionLost, 'session lost');
    session.outlet = undefined;
  }

  /** Ends a session and all that it holds. */
  end(session: Session, reason: 'released' | 'session_lost', message: string): void {
    // Before its holds go, so that whoever is let in by that is told.
    if (reason === 'session_lost') {
      for (const { volume } of session.delegated) this.#state.unclean.whole(volume, session.id, reason);
      this.#namesMayHaveChanged(session);
    }
    this.#state.apply({ type: 'end_session', session: session.id, reason });
    this.#sessions.delete(session.id);
    this.#dirty.delete(session);
    this.#state.change((batch) => batch.delete('session', session.id));
    this.#event(reason === 'released' ? 'session_ended' : 'session_lost', session, message);
    this.onEnd(session);
    if (reason !== 'session_lost') return;
    session.outlet?.push({ push: 'session_lost', message });
    session.outlet?.close(CLOSE.sessionLost, 'session lost');
    session.outlet = undefined;
  }

  /** Who died while it changed names cannot tell any more: other sessions' open files stand where they stood, or at the other name. */
  #namesMayHaveChanged({ id }: Session): void {
    const { core } = this.#state.parts;
    for (const { volume, targets } of [...core.holdsOf(id)]) {
      const names = targets.filter(({ mode }) => mode === 'replace');
      for (const [i, { path: a, scope }] of names.entries())
        for (const { path: b } of names.slice(i + 1)) {
          if (isBelow(a, b) || isBelow(b, a)) continue;
          const by: Mover = { session: id, sinceMs: 0, lost: true };
          this.#state.apply({ type: 'exchange', volume, a, b, tree: scope === 'tree', by });
        }
    }
  }

  /** Stops looking; sessions stay as they are, in the store. */
  stop(): void {
    this.#ended = true;
    for (const session of this.#sessions.values()) session.outlet?.close(CLOSE.shutdown, 'the broker stops');
  }

  /** Hands an effect of the core to the session that it concerns. */
  deliver(effect: Effect): void {
    switch (effect.type) {
      case 'queued': {
        const { request, ticket } = effect.waiter;
        const outlet = this.#sessions.get(request.session)?.outlet;
        const blockers = effect.blockers
          .filter((owner) => owner !== DELEGATE_OWNER)
          .map((owner) => shownOwner(owner).owner);
        // Behind a delegate only: it is told again when the recall is answered, if it still waits.
        if (blockers.length === 0 && effect.blockers.length > 0) return;
        outlet?.push({ push: 'queued', requestId: request.requestId, ticket, blockers });
        return;
      }
      case 'granted': {
        const session = this.#sessions.get(effect.hold.session);
        const id = session?.pending.get(effect.requestId);
        if (id === undefined) return;
        session!.pending.delete(effect.requestId);
        const { volume, targets } = effect.hold;
        const unclean = this.#state.unclean.touching(volume, targets);
        session!.outlet?.answer(id, { ...grantOf(effect), ...(unclean && { unclean }) });
        return;
      }
      case 'refused': {
        const session = this.#sessions.get(effect.request.session);
        const id = session?.pending.get(effect.request.requestId);
        if (id === undefined) return;
        session!.pending.delete(effect.request.requestId);
        const details = effect.cycle ? { cycle: effect.cycle } : undefined;
        session!.outlet?.fail(id, new GateError(effect.reason, effect.message, details));
        return;
      }
      case 'released': {
        if (effect.reason === 'released' || !effect.gone) return;
        const { session, lockId } = effect.hold;
        this.#sessions.get(session)?.outlet?.push({ push: 'lost', lockId, reason: effect.reason });
        return;
      }
    }
  }

  /**
   * Who changes names, for the core: a session hears of a grant within a TTL of its telling or never, because it would not be alive by its own
   * clock; and lets its holder in within `admitMs` of that, or asks again.
   */
  mover(session: Session): Mover {
    const { limits } = this.#state.parts.settings;
    const unheardMs = this.#ttlMs + this.#marginMs + limits.admitMs;
    return { session: session.id, sinceMs: this.#state.nowMs() - unheardMs };
  }

  get #marginMs(): number {
    return Math.min(MARGIN_MS_MAX, this.#ttlMs * MARGIN_SHARE);
  }

  /** Looks for sleep, and for sessions whose time is over. */
  look(): void {
    const nowMs = this.#state.nowMs();
    const sinceMs = nowMs - this.#lookedMs;
    if (sinceMs < this.#lookEveryMs) return;
    this.#lookedMs = nowMs;
    if (sinceMs > this.#lookEveryMs + this.#ttlMs * SLEPT_SHARE) this.#renewEverybody(nowMs, sinceMs);
    for (const session of this.#sessions.values())
      if (nowMs - session.heardMs > this.#ttlMs + this.#marginMs)
        this.end(
          session,
          'session_lost',
          session.doomed ?? `Not heard of for ${Math.round(nowMs - session.heardMs)} ms.`,
        );
  }

  #renewEverybody(nowMs: number, sleptMs: number): void {
    for (const session of this.#sessions.values()) session.heardMs = nowMs;
    for (const hold of this.#state.parts.core.holdsOf(HTTP_SESSION))
      if (hold.leaseMs !== null)
        this.#state.apply({
          type: 'heartbeat',
          lockId: hold.lockId,
          owner: hold.owner,
          leaseMs: hold.leaseMs,
        });
    this.#state.event({
      type: 'broker_slept',
      message: `The broker did not run for ${Math.round(sleptMs)} ms.`,
    });
    this.#state.parts.settings.log.warn('the broker did not run for a while; everybody is renewed', {
      sleptMs,
    });
  }

  get #lookEveryMs(): number {
    return Math.min(LOOK_MS_MAX, this.#ttlMs * LOOK_SHARE);
  }

  #lookLater(): void {
    this.#state.parts.settings.clock.after(this.#lookEveryMs, () => {
      if (this.#ended) return;
      try {
        this.look();
      } catch (error) {
        // The state has stopped (`onFatal`): nothing is left to look at.
        this.#state.parts.settings.log.debug('no look at the sessions', { error: String(error) });
        return;
      }
      this.#lookLater();
    });
  }

  #putRows(batch: Batch): void {
    for (const session of this.#dirty) {
      const { id, secretHash, client, startedAtMs, lastId, delegated } = session;
      batch.put('session', id, { id, secretHash, client, startedAtMs, lastId, delegated: [...delegated] });
    }
    this.#dirty.clear();
  }

  #event(type: string, session: Session, message?: string): void {
    this.#state.event({
      type,
      session: session.id,
      who: session.client,
      reason: session.client.kind,
      message,
    });
  }
}
