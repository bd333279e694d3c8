/** The calls of a session, as promises over `send`. */
import { GateError } from '../base/errors.ts';
import { newId } from '../base/ids.ts';
import {
  DEFAULT_VOLUME,
  type GateEvent,
  type Grant,
  type Hold,
  type PathStatus,
  type Push,
  type Released,
  type ReleaseReason,
  type Target,
  type VolumeInfo,
  type WaitInfo,
} from '../broker/wire.ts';
import type { AcquireControl, AcquireOptions, Granted, Outgoing, SendCallback } from './types.ts';

type Queued = Extract<Push, { push: 'queued' }>;
type AcquireMessage = Extract<Outgoing, { op: 'acquire' }>;
type LockRef = { readonly lockId: string; readonly owner: string };

interface Listener {
  readonly onEvent: (event: GateEvent) => void;
  readonly onGap: ((missed: number) => void) | undefined;
}

function holdOf(session: string, message: AcquireMessage, grant: Grant): Granted {
  const { requestId, owner, volume, kind, targets, who } = message;
  const { again: _again, waited: _waited, ...granted } = grant;
  return {
    ...granted,
    requestId,
    session,
    owner,
    volume,
    kind,
    targets,
    leaseMs: message.leaseMs ?? null,
    holdCapMs: message.holdCapMs ?? null,
    detached: false,
    who,
  };
}

function messageOf(options: AcquireOptions, requestId: string): AcquireMessage {
  const { path, mode = 'write', scope = 'file' } = options;
  if (options.targets === undefined && path === undefined)
    throw new GateError('invalid_request', 'path: name a path, or targets', { field: 'path' });
  return {
    op: 'acquire',
    requestId,
    owner: options.owner,
    volume: options.volume ?? DEFAULT_VOLUME,
    kind: options.kind ?? 'name',
    targets: options.targets ?? [{ path: path!, mode, scope }],
    waitMs: options.waitMs,
    leaseMs: options.leaseMs,
    holdCapMs: options.holdCapMs,
    who: options.who,
  };
}

export abstract class Calls {
  abstract readonly id: string;
  onPush: ((push: Push) => void) | undefined;
  onHoldLost: ((lockId: string, reason: ReleaseReason) => void) | undefined;
  onLost: ((why: string) => void) | undefined;
  onConnection: ((connected: boolean) => void) | undefined;
  readonly #onQueued = new Map<string, (queued: Queued) => void>();
  readonly #listeners = new Set<Listener>();
  readonly #requestPrefix = newId('r').slice(0, 10);
  #requests = 0;

  abstract send(message: Outgoing, callback: SendCallback): number;
  /** Drops a message that was sent, so that it is neither repeated nor its answer looked at. */
  protected abstract forget(id: number): void;
  /** Why the session ended. */
  protected abstract lostReason(): string;

  newRequestId(): string {
    return `${this.#requestPrefix}${(this.#requests++).toString(36)}`;
  }

  acquire(options: AcquireOptions, control: AcquireControl = {}): Promise<Granted> {
    return new Promise((resolve, reject) => {
      const { signal, onQueued } = control;
      const requestId = options.requestId ?? this.newRequestId();
      const message = messageOf(options, requestId);
      const cancelled = () => new GateError('cancelled', `Gave up waiting for ${message.targets[0]?.path}.`);
      if (signal?.aborted) {
        reject(cancelled());
        return;
      }
      const done = () => {
        signal?.removeEventListener('abort', abort);
        this.#onQueued.delete(requestId);
      };
      const id = this.send(message, (answer) => {
        done();
        if (answer && 'ok' in answer) resolve(holdOf(this.id, message, answer.ok as Grant));
        else reject(this.#errorOf(answer));
      });
      const abort = () => {
        done();
        this.forget(id);
        // Gives the grant back, should it be on its way.
        this.send({ op: 'cancel', requestId }, () => {});
        reject(cancelled());
      };
      signal?.addEventListener('abort', abort);
      if (onQueued) this.#onQueued.set(requestId, onQueued);
    });
  }

  release({ lockId, owner }: LockRef): Promise<Released> {
    return this.#call<Released>({ op: 'release', lockId, owner });
  }

  async withLock<T>(
    options: AcquireOptions,
    run: (hold: Hold) => T | Promise<T>,
    control?: AcquireControl,
  ): Promise<T> {
    const hold = await this.acquire(options, control);
    try {
      return await run(hold);
    } finally {
      // A lock that is lost already was told of by `onHoldLost` or `onLost`.
      await this.release(hold).catch((error) => {
        if (error.code !== 'not_found' && error.code !== 'session_lost') throw error;
      });
    }
  }

  async heartbeat({ lockId, owner }: LockRef, leaseMs?: number): Promise<void> {
    await this.#call({ op: 'heartbeat', lockId, owner, leaseMs });
  }

  async move(volume: string, from: string, to: string, tree: boolean): Promise<void> {
    await this.#call({ op: 'move', volume, from, to, tree });
  }

  async exchange(volume: string, a: string, b: string, tree: boolean): Promise<void> {
    await this.#call({ op: 'exchange', volume, a, b, tree });
  }

  async detach(volume: string, path: string, tree: boolean): Promise<void> {
    await this.#call({ op: 'detach', volume, path, tree });
  }

  async addTarget(lockId: string, target: Target): Promise<void> {
    await this.#call({ op: 'add_target', lockId, target });
  }

  async retarget(requestId: string, targets: readonly Target[]): Promise<void> {
    await this.#call({ op: 'retarget', requestId, targets });
  }

  async break(lockId: string): Promise<void> {
    await this.#call({ op: 'break', lockId });
  }

  status(path: string, volume: string = DEFAULT_VOLUME, tree = false): Promise<PathStatus> {
    return this.#call<PathStatus>({ op: 'status', volume, path, tree });
  }

  waits(): Promise<WaitInfo[]> {
    return this.#call<WaitInfo[]>({ op: 'waits' });
  }

  volumes(): Promise<VolumeInfo[]> {
    return this.#call<VolumeInfo[]>({ op: 'volumes' });
  }

  registerVolume(volume: {
    root: string;
    mount?: string | null;
    dev: string;
    ino: string;
  }): Promise<VolumeInfo> {
    return this.#call<VolumeInfo>({ op: 'register_volume', ...volume });
  }

  history(path: string, volume: string = DEFAULT_VOLUME, limit?: number): Promise<GateEvent[]> {
    return this.#call<GateEvent[]>({ op: 'history', volume, path, limit });
  }

  subscribe(onEvent: (event: GateEvent) => void, onGap?: (missed: number) => void): () => void {
    const listener = { onEvent, onGap };
    this.#listeners.add(listener);
    if (this.#listeners.size === 1) this.send({ op: 'subscribe' }, () => {});
    return () => {
      if (this.#listeners.delete(listener) && this.#listeners.size === 0)
        this.send({ op: 'unsubscribe' }, () => {});
    };
  }

  /** After a reconnect the broker knows of no subscription. */
  protected resubscribe(): void {
    if (this.#listeners.size > 0) this.send({ op: 'subscribe' }, () => {});
  }

  protected queued(push: Queued): void {
    this.#onQueued.get(push.requestId)?.(push);
  }

  protected events(events: readonly GateEvent[]): void {
    for (const event of events) for (const { onEvent } of [...this.#listeners]) onEvent(event);
  }

  protected gap(missed: number): void {
    for (const { onGap } of [...this.#listeners]) onGap?.(missed);
  }

  #call<T>(message: Outgoing): Promise<T> {
    return new Promise((resolve, reject) => {
      this.send(message, (answer) => {
        if (answer && 'ok' in answer) resolve(answer.ok as T);
        else reject(this.#errorOf(answer));
      });
    });
  }

  #errorOf(answer: Parameters<SendCallback>[0]): GateError {
    if (!answer || !('error' in answer)) return new GateError('session_lost', this.lostReason());
    const { code, message, details } = answer.error;
    return new GateError(code, message, details);
  }
}
