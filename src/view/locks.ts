/**
 * The view's side of the lock core: what it asks of whoever decides (a broker, or a stand-in in a test), and the
 * grants that it keeps. Everything is a callback, because the view runs on a reactor's thread that has no promises.
 */
import type { ErrorCode } from '../base/errors.ts';
import type { Kind, Target, Who } from '../lock/types.ts';

export interface LockRequest {
  readonly requestId: string;
  readonly owner: string;
  readonly kind: Kind;
  readonly targets: readonly Target[];
  /** 0: do not wait; null: as long as it takes. */
  readonly waitMs: number | null;
  readonly who: Who;
  /** Thread that waits, for the line on its terminal. 0: nobody to tell. */
  readonly tid: number;
}

export interface LockAnswers {
  granted(lockId: string, token: number): void;
  /** It waits behind `blockers` (owners). At most once, before `granted` or `refused`. */
  queued?(blockers: readonly string[]): void;
  /**
   * This owner's process, whose hold is in the way, waits for the asker, and can do nothing before it: the asker is to ask again in
   * that owner's name. More than once, until `granted` or `refused`.
   */
  join?(owner: string): void;
  refused(code: ErrorCode, message: string): void;
}

/** Who decides. One implementation talks to the broker; tests have their own. */
export interface LockPort {
  /** A grant that can be decided here and now; null: it cannot, and nothing has changed. Never waits. */
  tryNow(request: LockRequest): { readonly lockId: string; readonly token: number } | null;
  acquire(request: LockRequest, answers: LockAnswers): void;
  /** Leaves the queue, or gives the grant back if it is on its way. No answer follows. */
  cancel(requestId: string): void;
  release(lockId: string, owner: string): void;
  /** Handle holds follow their inode (lock/types.ts, `move`, `exchange`, `detach`, `add_target`). */
  move(from: string, to: string, tree: boolean): void;
  exchange(a: string, b: string, tree: boolean): void;
  detach(path: string, tree: boolean): void;
  addTarget(lockId: string, target: Target): void;
}

/** A grant that the view keeps until it gives it back. */
export class Grant {
  readonly lockId: string;
  readonly owner: string;
  readonly targets: readonly Target[];
  readonly #port: LockPort;
  #over = false;

  constructor(port: LockPort, lockId: string, owner: string, targets: readonly Target[]) {
    this.#port = port;
    this.lockId = lockId;
    this.owner = owner;
    this.targets = targets;
  }

  release(): void {
    if (this.#over) return;
    this.#over = true;
    this.#port.release(this.lockId, this.owner);
  }
}

/**
 * Looks at what was granted before its holder is let in: null lets it in; `late`: it took so long that it is to be asked for again
 * (`LIMITS.admitMs`). `over`: the asker has given up.
 */
export type Admit = (
  over: () => boolean,
  done: (refusal: { code: ErrorCode; message: string } | 'late' | null) => void,
) => void;

/** A request on its way. Ends exactly once: by its answer, or by `cancel`. */
export class Pending {
  readonly requestId: string;
  readonly owner: string;
  readonly #port: LockPort;
  #open = true;
  /** Granted, and not let in yet. */
  #grant: Grant | null = null;

  constructor(
    port: LockPort,
    request: LockRequest,
    answers: {
      granted(grant: Grant): void;
      queued?(blockers: readonly string[]): void;
      join?(owner: string): void;
      refused(code: ErrorCode, message: string): void;
    },
    admit: Admit,
  ) {
    this.requestId = request.requestId;
    this.owner = request.owner;
    this.#port = port;
    const ask = () =>
      port.acquire(request, {
        granted: (lockId) => {
          if (!this.#open) return;
          const grant = new Grant(port, lockId, request.owner, request.targets);
          this.#grant = grant;
          admit(
            () => !this.#open,
            (refusal) => {
              if (!this.#open) return;
              if (refusal === 'late') {
                this.#grant = null;
                grant.release();
                return ask();
              }
              this.#open = false;
              if (refusal === null) return answers.granted(grant);
              grant.release();
              answers.refused(refusal.code, refusal.message);
            },
          );
        },
        queued: (blockers) => {
          if (this.#open) answers.queued?.(blockers);
        },
        join: (owner) => {
          if (this.#open) answers.join?.(owner);
        },
        refused: (code, message) => {
          if (!this.#open) return;
          this.#open = false;
          answers.refused(code, message);
        },
      });
    ask();
  }

  /** Nobody has granted or refused it yet. */
  get waits(): boolean {
    return this.#open && this.#grant === null;
  }

  cancel(): void {
    if (!this.#open) return;
    this.#open = false;
    if (this.#grant !== null) this.#grant.release();
    else this.#port.cancel(this.requestId);
  }
}
