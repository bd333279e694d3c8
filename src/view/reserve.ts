import type { ErrorCode } from '../base/errors.ts';
import type { Actor, Caller } from './actors.ts';
import type { Grant, Pending } from './locks.ts';
import { STANDSTILL } from './opening.ts';
import type { Plan } from './targets.ts';
import type { View } from './view.ts';

/**
 * A path operation's place in the queue: asked for at its first arrival, used when it is carried out. Whoever
 * has one must end it, by `take` or by `drop`.
 */
export class Reservation {
  readonly plan: Plan;
  readonly #view: View;
  readonly #on: { settled(): void; queued(): void };
  readonly #waitMs: number | null;
  #pending: Pending | null = null;
  #grant: Grant | null = null;
  #ended = false;
  actor: Actor | null = null;
  /** Why it was refused. */
  refusal: { readonly code: ErrorCode; readonly message: string } | null = null;

  /** `kind`: `handle` when the grant will belong to an open file (create), else `name`. `waitMs`: 0: not at all; null: no limit. */
  constructor(
    view: View,
    caller: Caller,
    plan: Plan,
    kind: 'name' | 'handle',
    on: { settled(): void; queued(): void },
    waitMs: number | null = view.options.waitMs,
  ) {
    this.#view = view;
    this.plan = plan;
    this.#on = on;
    this.#waitMs = waitMs;
    view.withActor(caller, (actor) => {
      if (this.#ended) return;
      this.actor = actor;
      this.#ask(caller, actor, kind, actor.owner);
    });
  }

  #ask(caller: Caller, actor: Actor, kind: 'name' | 'handle', owner: string): void {
    const view = this.#view;
    this.#pending = view.request(caller, owner, actor, kind, this.plan.targets, this.#waitMs, {
      granted: (grant) => this.#settle(grant, null),
      queued: () => {
        if (!this.#ended) this.#on.queued();
      },
      join: (holder) => {
        this.#pending!.cancel();
        if (owner === actor.owner && view.holds(holder)) this.#ask(caller, actor, kind, holder);
        else this.#settle(null, { code: 'deadlock', message: STANDSTILL });
      },
      refused: (code, message) => this.#settle(null, { code, message }),
    });
  }

  get settled(): boolean {
    return this.#grant !== null || this.refusal !== null;
  }

  /** The grant, which belongs to the caller from here; null when there is none (yet). */
  take(): Grant | null {
    const grant = this.#grant;
    this.#grant = null;
    this.drop();
    return grant;
  }

  /** Leaves the queue, or gives the grant back. */
  drop(): void {
    this.#ended = true;
    this.#pending?.cancel();
    this.#grant?.release();
    this.#grant = null;
  }

  #settle(grant: Grant | null, refusal: { code: ErrorCode; message: string } | null): void {
    if (this.#ended) {
      grant?.release();
      return;
    }
    this.#grant = grant;
    this.refusal = refusal;
    if (refusal !== null) this.#view.refused(this.actor, this.plan.targets, refusal.code, refusal.message);
    this.#on.settled();
  }
}
