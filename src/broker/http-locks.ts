/**
 * Locks over plain HTTP: one request, one answer, for anybody with curl.
 *
 * They live in the pseudo-session `http` and have a lease each. A waiting request lives by its connection: when
 * that breaks it leaves the queue. A grant whose answer could not be written is given back, unless the client sent a
 * `request_id`, with which it can ask again. "Written" means handed to the kernel: nobody can know more.
 */
import type { FastifyReply } from 'fastify';
import { GateError } from '../base/errors.ts';
import { newId } from '../base/ids.ts';
import type { Effect, Hold, Target, Who } from '../lock/types.ts';
import type { Delegations } from './delegation.ts';
import { httpOwner, httpRequestId, shownOwner } from './owners.ts';
import type { BrokerState } from './state.ts';
import type { Key, Volumes } from './volumes.ts';
import { HTTP_SESSION } from './wire.ts';

export interface AcquireBody {
  readonly path?: string;
  readonly mode?: Target['mode'];
  readonly scope?: Target['scope'];
  readonly targets?: readonly {
    readonly path: string;
    readonly mode: Target['mode'];
    readonly scope?: Target['scope'];
  }[];
  readonly owner: string;
  readonly volume?: string;
  readonly timeout_ms?: number;
  readonly lease_ms?: number;
  readonly max_hold_ms?: number;
  readonly request_id?: string;
  readonly reason?: string;
}

type Settle = (effect: Extract<Effect, { type: 'granted' | 'refused' }>) => void;

export class HttpLocks {
  readonly #state: BrokerState;
  readonly #volumes: Volumes;
  readonly #delegations: Delegations;
  /** Connections that wait for each request: more than one when a client repeated its id. */
  readonly #waiting = new Map<string, Set<Settle>>();

  constructor(state: BrokerState, volumes: Volumes, delegations: Delegations) {
    this.#delegations = delegations;
    this.#state = state;
    this.#volumes = volumes;
  }

  /** Answers `reply` once the request is granted or refused. Throws GateError when it cannot even wait. */
  async acquire(body: AcquireBody, reply: FastifyReply, who: Who): Promise<unknown> {
    const asked = body.targets ?? [{ path: body.path!, mode: body.mode!, scope: body.scope }];
    const keys = asked.map(({ path }, i) =>
      this.#volumes.keyOf(body.targets ? `targets[${i}].path` : 'path', path, body.volume),
    );
    const volume = keys[0]!.volume;
    if (keys.some((key) => key.volume !== volume))
      throw new GateError('invalid_request', 'targets: all must lie in one volume', { field: 'targets' });
    const targets = asked.map(
      ({ mode, scope }, i) => ({ path: keys[i]!.path, mode, scope: scope ?? 'file' }) as Target,
    );
    const owner = httpOwner(body.owner);
    // Owners do not share request ids.
    const requestId = body.request_id === undefined ? newId('req') : httpRequestId(body.request_id, owner);
    const effect = await this.#wait(requestId, body.request_id !== undefined, reply, () =>
      this.#command(body, requestId, owner, volume, targets, who),
    );
    if (effect.type === 'granted') {
      const unclean = this.#state.unclean
        .touching(volume, targets)
        ?.map(({ path, scope, sinceMs, why, owner }) => {
          return { path, scope, since: this.seconds(sinceMs), why, owner };
        });
      const lock = this.#shown(effect.hold, asked[0]!.path, keys[0]!);
      return { status: 'granted', lock, ...(unclean && { unclean }) };
    }
    if (effect.reason === 'timeout') {
      reply.code(408);
      return { status: 'timeout', message: effect.message };
    }
    throw new GateError(
      effect.reason,
      effect.message,
      effect.cycle && { cycle: effect.cycle.map((one) => shownOwner(one).owner) },
    );
  }

  #command(
    body: AcquireBody,
    requestId: string,
    owner: string,
    volume: string,
    targets: readonly Target[],
    who: Who,
  ): void {
    const { settings } = this.#state.parts;
    const capMs = targets.some((target) => target.mode !== 'read')
      ? settings.maxHoldWriteMs
      : settings.maxHoldReadMs;
    this.#state.apply({
      type: 'acquire',
      request: {
        requestId,
        session: HTTP_SESSION,
        volume,
        owner,
        kind: 'name',
        targets,
        waitMs: body.timeout_ms ?? settings.acquireTimeoutMs,
        leaseMs: body.lease_ms ?? settings.defaultLeaseMs,
        holdCapMs: body.max_hold_ms ?? capMs,
        who: body.reason === undefined ? who : { ...who, reason: body.reason },
      },
    });
  }

  /** Runs `start`, and resolves after the commit of what ended the wait. Undoes it when the client goes away. */
  #wait(requestId: string, repeatable: boolean, reply: FastifyReply, start: () => void) {
    return new Promise<Parameters<Settle>[0]>((resolve, reject) => {
      const settles = this.#waiting.get(requestId) ?? new Set<Settle>();
      this.#waiting.set(requestId, settles);
      let granted = false;
      const forget = () => {
        settles.delete(settle);
        if (settles.size === 0 && this.#waiting.get(requestId) === settles) this.#waiting.delete(requestId);
      };
      const settle: Settle = (effect) => {
        forget();
        granted = effect.type === 'granted';
        this.#state.afterCommit(() => resolve(effect));
      };
      settles.add(settle);
      reply.raw.on('close', () => {
        if (reply.raw.writableFinished) return;
        forget();
        const wanted = granted ? repeatable : this.#waiting.has(requestId);
        if (!wanted) this.#undo(requestId);
      });
      try {
        if (reply.raw.destroyed) throw new GateError('cancelled', 'The client went away.');
        start();
      } catch (error) {
        forget();
        reject(error as Error);
      }
    });
  }

  /** Leaves the queue, or gives back what was granted meanwhile. */
  #undo(requestId: string): void {
    try {
      this.#state.apply({ type: 'cancel', requestId, session: HTTP_SESSION });
    } catch (error) {
      // It is over already, or the broker stops.
      if (!(error instanceof GateError)) throw error;
    }
  }

  /** Hands an effect of the core to the requests that wait for it. */
  deliver(effect: Effect): void {
    if (this.#waiting.size === 0) return;
    if (effect.type === 'granted' && effect.hold.session === HTTP_SESSION)
      this.#settle(effect.requestId, effect);
    else if (effect.type === 'refused' && effect.request.session === HTTP_SESSION)
      this.#settle(effect.request.requestId, effect);
  }

  #settle(requestId: string, effect: Parameters<Settle>[0]): void {
    for (const settle of [...(this.#waiting.get(requestId) ?? [])]) settle(effect);
  }

  release(lockId: string, owner: string): Promise<unknown> {
    this.#state.apply({ type: 'release', lockId, owner: httpOwner(owner), session: HTTP_SESSION });
    return this.#durable({ status: 'released' });
  }

  heartbeat(lockId: string, owner: string, leaseMs: number | undefined): Promise<unknown> {
    const hold = this.#state.parts.core.hold(lockId);
    if (hold?.session !== HTTP_SESSION) throw new GateError('not_found', 'lock not found');
    const wantedMs = leaseMs ?? hold.leaseMs ?? this.#state.parts.settings.defaultLeaseMs;
    this.#state.apply({ type: 'heartbeat', lockId, owner: httpOwner(owner), leaseMs: wantedMs });
    const expiresAtMs = this.#state.parts.core.hold(lockId)?.leaseExpiresAtMs ?? null;
    return this.#durable({ status: 'ok', lease_expires_at: this.seconds(expiresAtMs) });
  }

  async break(lockId: string): Promise<unknown> {
    await this.#delegations.breakHold(lockId);
    return this.#durable({ status: 'broken' });
  }

  #durable<T>(answer: T): Promise<T> {
    return new Promise((resolve) => this.#state.afterCommit(() => resolve(answer)));
  }

  /** Broker time as Unix seconds with a fraction, as the ancestor's `time.time()`. */
  seconds(brokerMs: number | null): number | null {
    return brokerMs === null ? null : this.#state.parts.time.unixSeconds(brokerMs);
  }

  /** A lock as HTTP shows it. The path is the one that was asked for, where it names this key. */
  #shown(hold: Hold, askedPath: string, askedKey: Key) {
    return this.lockOf(hold, (path) => (path === askedKey.path ? askedPath : path));
  }

  lockOf(hold: Hold, shownPath: (path: string) => string) {
    const first = hold.targets[0]!;
    return {
      lock_id: hold.lockId,
      path: shownPath(first.path),
      mode: first.mode,
      ...shownOwner(hold.owner),
      acquired_at: this.seconds(hold.grantedAtMs),
      lease_expires_at: this.seconds(hold.leaseExpiresAtMs),
      max_hold_ms: hold.holdCapMs,
      hold_count: hold.count,
      fencing_token: hold.token,
      volume: hold.volume,
      scope: first.scope,
      kind: hold.kind,
      targets: hold.targets.map((target) => ({ ...target, path: shownPath(target.path) })),
      session: hold.session,
      who: hold.who,
    };
  }
}
