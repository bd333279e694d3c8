/**
 * Numbers that must never come twice, across any crash: tickets and fencing tokens. They are drawn from a block
 * below a high-water mark that is flushed to the disk, whatever the durability, before the first number of the block
 * is used. A restart goes on at the mark, so at most one block is skipped.
 *
 * A database that was restored from a backup, or removed, knows nothing of the tokens that were given since. So the tokens of a
 * start begin where the wall clock is at least, at a rate that nobody uses up for long. This fails when the wall clock is
 * wrong as well: it then stands before the backup's time.
 */

import { GateError } from '../base/errors.ts';
import { newId } from '../base/ids.ts';
import type { Counters } from '../lock/types.ts';
import type { Batch, Store } from '../store/types.ts';

/** Tokens for each millisecond since `TOKENS_SINCE_MS`: a block for a delegate every fifty seconds, and enough until 2168. */
const TOKENS_PER_MS = 2000;
/** 2026-01-01. */
const TOKENS_SINCE_MS = 1_767_225_600_000;
/** A wall clock that is far in the future may not use them up. */
const TOKENS_BY_TIME_MAX = 2 ** 52;
const NAMES = ['tickets', 'tokens'] as const;
type Name = (typeof NAMES)[number];

export class DurableCounters implements Counters {
  readonly #store: Store;
  readonly #block: number;
  readonly #next: Record<Name, number> = { tickets: 1, tokens: 1 };
  /** First number that must not be used. */
  readonly #mark: Record<Name, number> = { tickets: 1, tokens: 1 };
  /** Different for each start of a broker, so that lock ids never come twice. */
  readonly #prefix = newId('lk').slice(0, 11);
  #locks = 0;

  /** `block`: how many are drawn at once. */
  constructor(store: Store, wallMs: number, block: number) {
    this.#store = store;
    this.#block = block;
    for (const [name, mark] of store.rows('meta'))
      if (name === 'tickets' || name === 'tokens') this.#next[name] = this.#mark[name] = mark;
    const byTime = Math.min(Math.floor((wallMs - TOKENS_SINCE_MS) * TOKENS_PER_MS), TOKENS_BY_TIME_MAX);
    this.#next.tokens = Math.max(this.#next.tokens, byTime);
  }

  /** A block of tokens for a delegate, which may be told of once `batch` is flushed. Returns the first. */
  reserveTokens(count: number, batch: Batch): number {
    const from = this.#next.tokens;
    this.#next.tokens = from + count;
    this.#mark.tokens = this.#next.tokens + this.#block;
    batch.put('meta', 'tokens', this.#mark.tokens);
    return from;
  }

  /** Draws new blocks when half of one is used. Between turns only: the numbers are usable once it resolves. */
  async refill(): Promise<void> {
    const wanted = NAMES.filter((name) => this.#isLow(name));
    if (wanted.length === 0) return;
    const batch = this.#store.batch();
    for (const name of wanted) batch.put('meta', name, this.#next[name] + this.#block);
    const marks = wanted.map((name) => this.#next[name] + this.#block);
    const done = this.#store.commit(batch, { synced: true });
    if (done) await done;
    for (const [i, name] of wanted.entries()) this.#mark[name] = marks[i]!;
  }

  get low(): boolean {
    return NAMES.some((name) => this.#isLow(name));
  }

  #isLow(name: Name): boolean {
    return this.#mark[name] - this.#next[name] < this.#block / 2;
  }

  nextTicket(): number {
    return this.#draw('tickets');
  }

  nextToken(): number {
    return this.#draw('tokens');
  }

  /** Ids of one start of the broker sort in the order in which they were made: that is kind to the store. */
  newLockId(): string {
    return `${this.#prefix}${(this.#locks++).toString(36).padStart(8, '0')}`;
  }

  /** Whether an id was made by this object after `count` others. */
  lockCount(): number {
    return this.#locks;
  }

  isNewer(lockId: string, count: number): boolean {
    return lockId.startsWith(this.#prefix) && Number.parseInt(lockId.slice(this.#prefix.length), 36) >= count;
  }

  #draw(name: Name): number {
    if (this.#next[name] >= this.#mark[name])
      throw new GateError('unavailable', `The broker ran out of ${name}; try again.`);
    return this.#next[name]++;
  }
}
