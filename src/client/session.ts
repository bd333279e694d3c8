/**
 * A session over changing connections: numbers messages, gathers a turn's into one frame, keeps what is not answered and
 * repeats it after a reconnect, renews, and watches its own authority. The calls of calls.ts are built on it.
 */
import { uptime } from 'node:os';
import { type Clock, systemClock, type Timer } from '../base/clock.ts';
import { GateError } from '../base/errors.ts';
import type {
  Answer,
  BrokerMessage,
  ClientMessage,
  GateEvent,
  Grant,
  Op,
  Push,
  Released,
  Welcome,
} from '../broker/wire.ts';
import { PROTOCOL } from '../broker/wire.ts';
import { Calls } from './calls.ts';
import { type Link, openLink } from './link.ts';
import type { ConnectOptions, GateSession, Outgoing, SendCallback } from './types.ts';

interface Pending {
  readonly message: ClientMessage;
  readonly callback: SendCallback;
}

/** Operations that may be carried out twice without harm; the others are not repeated once the broker has done them. */
const REPEATABLE: ReadonlySet<Op> = new Set<Op>([
  'acquire',
  'heartbeat',
  'retarget',
  'status',
  'waits',
  'volumes',
  'register_volume',
  'history',
  'delegate',
  'subscribe',
  'unsubscribe',
]);
/** They belong to one connection and are made anew for the next. */
const OF_CONNECTION: ReadonlySet<Op> = new Set<Op>(['hello', 'renew', 'reassert']);

const CONNECT_MS = 5000;
const RETRY_MS_MIN = 20;
const RETRY_MS_MAX = 500;
/** Ids in one reassertion. */
const REASSERT_PART = 10_000;
const CLOSE_MS = 2000;

export class Session extends Calls implements GateSession {
  readonly #options: ConnectOptions;
  readonly #clock: Clock;
  readonly #bootMs: () => number;
  readonly #pending = new Map<number, Pending>();
  #outbox: ClientMessage[] = [];
  #flushDue = false;
  #nextId = 1;
  #link: Link | undefined;
  #welcome: Welcome | undefined;
  #connected = false;
  #ended = false;
  #closing = false;
  #authorityEndsMs = Number.POSITIVE_INFINITY;
  #renewTimer: Timer | undefined;
  #authorityTimer: Timer | undefined;
  #renewUnanswered = false;
  #opened: { resolve: () => void; reject: (error: GateError) => void } | undefined;
  #openUntilMs = 0;
  #retryMs = RETRY_MS_MIN;
  /** The locks that it has, as far as it was told, and how often each was granted and not given back. */
  readonly #held = new Map<string, number>();

  constructor(options: ConnectOptions) {
    super();
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#bootMs = options.bootMs ?? (() => uptime() * 1000);
  }

  get id(): string {
    return this.#welcome?.session ?? '';
  }

  get ttlMs(): number {
    return this.#welcome?.ttlMs ?? 0;
  }

  get connected(): boolean {
    return this.#connected;
  }

  get ended(): boolean {
    return this.#ended;
  }

  authorityEndsMs(): number {
    return this.#authorityEndsMs;
  }

  /** Connects for the first time. Throws GateError. */
  open(): Promise<void> {
    this.#openUntilMs = this.#clock.nowMs() + (this.#options.connectMs ?? CONNECT_MS);
    return new Promise((resolve, reject) => {
      this.#opened = { resolve, reject };
      this.#dial();
    });
  }

  send(message: Outgoing, callback: SendCallback): number {
    const id = this.#nextId++;
    if (this.#ended) {
      queueMicrotask(() => callback(undefined));
      return id;
    }
    const numbered = { ...message, id } as ClientMessage;
    this.#pending.set(id, { message: numbered, callback });
    // What a delegate returns it goes on holding, at the broker.
    if (numbered.op === 'returned')
      for (const { lockId, count } of numbered.holds) this.#held.set(lockId, count);
    if (this.#connected) this.#post(numbered);
    return id;
  }

  protected override forget(id: number): void {
    this.#pending.delete(id);
  }

  protected override lostReason(): string {
    return this.#lostWhy;
  }

  #lostWhy = 'The session is closed.';

  async close(unclean = false): Promise<void> {
    if (this.#ended) return;
    this.#closing = true;
    const answered = new Promise<void>((resolve) => {
      this.send({ op: 'end', ...(unclean && { unclean }) }, () => resolve());
      this.#clock.after(CLOSE_MS, resolve);
    });
    if (this.#connected) await answered;
    this.#end('The session is closed.');
  }

  #post(message: ClientMessage): void {
    this.#outbox.push(message);
    if (this.#flushDue) return;
    this.#flushDue = true;
    this.#clock.soon(() => this.#flush());
  }

  #flush(): void {
    this.#flushDue = false;
    const messages = this.#outbox;
    this.#outbox = [];
    if (messages.length > 0 && this.#connected) this.#link?.send(messages);
  }

  // ---------------------------------------------------------------- connections

  #dial(): void {
    if (this.#ended) return;
    let sentMs = 0;
    const link: Link = (this.#options.dial ?? openLink)(this.#options, {
      onOpen: () => {
        sentMs = this.#bootMs();
        link.send([this.#hello()]);
      },
      onMessages: (messages) => {
        if (link === this.#link) this.#receive(messages, sentMs);
      },
      onClose: (why) => {
        if (link === this.#link) this.#closed(why);
      },
    });
    this.#link = link;
  }

  #hello(): ClientMessage {
    const { kind, pid, host } = this.#options;
    const known = this.#welcome;
    return {
      op: 'hello',
      id: this.#nextId++,
      protocol: PROTOCOL,
      resume: known !== undefined,
      ...(known && { session: known.session, secret: known.secret }),
      client: { kind, pid, host },
    };
  }

  #closed(why: GateError): void {
    this.#link = undefined;
    this.#renewTimer?.cancel();
    if (this.#connected) {
      this.#connected = false;
      this.#outbox = [];
      for (const [id, { message }] of this.#pending)
        if (OF_CONNECTION.has(message.op)) this.#pending.delete(id);
      this.onConnection?.(false);
    }
    if (this.#closing) this.#end('The session is closed.');
    if (this.#ended) return;
    const first = this.#opened;
    const final = why.code !== 'unavailable' || this.#clock.nowMs() >= this.#openUntilMs;
    if (first && final) {
      this.#opened = undefined;
      this.#end(why.message);
      first.reject(why);
      return;
    }
    void this.#clock.delay(this.#retryMs).then(() => {
      if (this.#checkAuthority()) this.#dial();
    });
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
  }

  #receive(messages: readonly BrokerMessage[], helloSentMs: number): void {
    // Woken from suspend, the frame may come before any timer: what it grants came too late.
    if (!this.#checkAuthority()) return;
    for (const message of messages) {
      if (this.#ended) return;
      if ('push' in message) this.#pushed(message);
      else if (this.#connected) this.#answered(message);
      else this.#greeted(message, helloSentMs);
    }
  }

  #greeted(answer: Answer, helloSentMs: number): void {
    if ('error' in answer) {
      const error = new GateError(answer.error.code, answer.error.message, answer.error.details);
      const first = this.#opened;
      this.#opened = undefined;
      this.#end(error.message, !first);
      first?.reject(error);
      return;
    }
    const welcome = answer.ok as Welcome;
    const resumed = this.#welcome !== undefined;
    this.#welcome = welcome;
    this.#connected = true;
    this.#retryMs = RETRY_MS_MIN;
    this.#renewed(helloSentMs);
    this.#renewUnanswered = false;
    this.#renewLater();
    if (resumed) this.#repeat(welcome.lastId);
    else for (const { message } of this.#pending.values()) this.#post(message);
    const first = this.#opened;
    this.#opened = undefined;
    first?.resolve();
    this.onConnection?.(true);
  }

  /** Sends again what was not answered; what was done already is answered here. Then says what this side believes to hold. */
  #repeat(lastId: number): void {
    const requests: string[] = [];
    const cancelled = new Set<string>();
    for (const { message } of this.#pending.values())
      if (message.op === 'cancel') cancelled.add(message.requestId);
    for (const [id, { message, callback }] of [...this.#pending]) {
      if (message.op === 'acquire' && cancelled.has(message.requestId)) {
        // Were it asked for again, nobody would give it back: its cancel may have been carried out already.
        this.#pending.delete(id);
        callback({ id, error: { code: 'cancelled', message: 'The waiter gave up.' } });
        continue;
      }
      if (id <= lastId && !REPEATABLE.has(message.op)) {
        this.#pending.delete(id);
        const done =
          message.op === 'release' ? ({ gone: this.#gaveBack(message.lockId) } satisfies Released) : null;
        callback({ id, ok: done });
        continue;
      }
      if (message.op === 'acquire') requests.push(message.requestId);
      this.#post(message);
    }
    this.resubscribe();
    const locks = [...this.#held.keys()];
    for (let from = 0; from === 0 || from < Math.max(locks.length, requests.length); from += REASSERT_PART) {
      const part = {
        locks: locks.slice(from, from + REASSERT_PART),
        requests: requests.slice(from, from + REASSERT_PART),
      };
      const last = from + REASSERT_PART >= Math.max(locks.length, requests.length);
      this.send({ op: 'reassert', ...part, last }, (answer) => {
        if (!answer || 'error' in answer) return;
        this.#lostMeanwhile((answer.ok as { lost: string[] }).lost);
      });
    }
  }

  /** One count of a lock was given back; true: it was the last. */
  #gaveBack(lockId: string): boolean {
    const left = (this.#held.get(lockId) ?? 1) - 1;
    if (left > 0) this.#held.set(lockId, left);
    else this.#held.delete(lockId);
    return left <= 0;
  }

  /** The broker does not have these locks any more. Tells of those that were not about to be given back. */
  #lostMeanwhile(lockIds: readonly string[]): void {
    if (lockIds.length === 0) return;
    const releasing = new Map<string, number>();
    for (const { message } of this.#pending.values())
      if (message.op === 'release') releasing.set(message.lockId, (releasing.get(message.lockId) ?? 0) + 1);
    for (const lockId of lockIds) {
      const count = this.#held.get(lockId);
      this.#held.delete(lockId);
      if (count !== undefined && count > (releasing.get(lockId) ?? 0))
        this.onHoldLost?.(lockId, 'session_lost');
    }
  }

  #answered(answer: Answer): void {
    const pending = this.#pending.get(answer.id);
    if (!pending) return;
    this.#pending.delete(answer.id);
    if ('ok' in answer) {
      const { message } = pending;
      if (message.op === 'acquire') {
        const { lockId, count } = answer.ok as Grant;
        // A request that was sent twice counts once.
        this.#held.set(lockId, Math.min((this.#held.get(lockId) ?? 0) + 1, count));
      } else if (message.op === 'release') {
        if ((answer.ok as Released).gone) this.#held.delete(message.lockId);
        else this.#gaveBack(message.lockId);
      }
    }
    pending.callback(answer);
  }

  #pushed(push: Push): void {
    switch (push.push) {
      case 'session_lost':
        this.#end(push.message, true);
        return;
      case 'lost':
        if (this.#held.delete(push.lockId)) this.onHoldLost?.(push.lockId, push.reason);
        break;
      case 'queued':
        this.queued(push);
        break;
      case 'events':
        this.events(push.events as readonly GateEvent[]);
        break;
      case 'gap':
        this.gap(push.missed);
        break;
    }
    this.onPush?.(push);
  }

  // ---------------------------------------------------------------- authority

  #renewed(sentMs: number): void {
    this.#authorityEndsMs = sentMs + this.ttlMs;
    this.#watchAuthority();
  }

  /** The timer's clock stands still in suspend, so it may be late; `#receive` looks too. */
  #watchAuthority(): void {
    this.#authorityTimer?.cancel();
    const leftMs = this.#authorityEndsMs - this.#bootMs();
    this.#authorityTimer = this.#clock.after(leftMs, () => {
      if (this.#checkAuthority()) this.#watchAuthority();
    });
  }

  #renewLater(): void {
    this.#renewTimer?.cancel();
    this.#renewTimer = this.#clock.after(this.ttlMs / 3, () => {
      if (!this.#connected || !this.#checkAuthority()) return;
      if (this.#renewUnanswered) {
        // Two renewals without an answer: the connection is dead, only nobody has said so.
        this.#link?.cut();
        return;
      }
      this.#renewUnanswered = true;
      const sentMs = this.#bootMs();
      this.send({ op: 'renew' }, (answer) => {
        if (!answer) return;
        this.#renewUnanswered = false;
        this.#renewed(sentMs);
      });
      this.#renewLater();
    });
  }

  /** False, and the end of the session, when its authority has run out. */
  #checkAuthority(): boolean {
    if (this.#ended) return false;
    if (this.#bootMs() < this.#authorityEndsMs) return true;
    this.#end(`No renewal was answered for ${this.ttlMs} ms.`, true);
    return false;
  }

  #end(why: string, lost = false): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#lostWhy = why;
    this.#renewTimer?.cancel();
    this.#authorityTimer?.cancel();
    const wasConnected = this.#connected;
    this.#connected = false;
    if (lost) this.#link?.cut();
    else this.#link?.close();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#held.clear();
    if (lost) this.onLost?.(why);
    if (wasConnected) this.onConnection?.(false);
    for (const { callback } of pending) callback(undefined);
  }
}
