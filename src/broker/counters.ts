/**
 * Numbers that must never come twice, across any crash: tickets and fencing tokens. They are drawn from a block
 * below a high-water mark that is flushed to the disk, whatever the durability, before the first number of the block
 * is used. A restart goes on at the mark, so at most one block is skipped.
 */

import { GateError } from '../base/errors.ts';
import { newId } from '../base/ids.ts';
import type { Counters } from '../lock/types.ts';
import type { Batch, Store } from '../store/types.ts';

/** Numbers in a block: 2^53 is nine thousand million restarts away. */
const BLOCK = 1_000_000;
const NAMES = ['tickets', 'tokens'] as const;
type Name = (typeof NAMES)[number];

export class DurableCounters implements Counters {
  readonly #store: Store;
  readonly #next: Record<Name, number> = { tickets: 1, tokens: 1 };
  /** First number that must not be used. */
  readonly #mark: Record<Name, number> = { tickets: 1, tokens: 1 };
  /** Different for each start of a broker, so that lock ids never come twice. */
  readonly #prefix = newId('lk').slice(0, 11);
  #locks = 0;

  constructor(store: Store) {
    this.#store = store;
    for (const [name, mark] of store.rows('meta'))
      if (name === 'tickets' || name === 'tokens') this.#next[name] = this.#mark[name] = mark;
  }

  /** A block of tokens for a delegate, which may be told of once `batch` is flushed. Returns the first. */
  reserveTokens(count: number, batch: Batch): number {
    const from = this.#next.tokens;
    this.#next.tokens = from + count;
    this.#mark.tokens = this.#next.tokens + BLOCK;
    batch.put('meta', 'tokens', this.#mark.tokens);
    return from;
  }

  /** Draws new blocks when half of one is used. Between turns only: the numbers are usable once it resolves. */
  async refill(): Promise<void> {
    const wanted = NAMES.filter((name) => this.#mark[name] - this.#next[name] < BLOCK / 2);
    if (wanted.length === 0) return;
    const batch = this.#store.batch();
    for (const name of wanted) batch.put('meta', name, this.#next[name] + BLOCK);
    const marks = wanted.map((name) => this.#next[name] + BLOCK);
    const done = this.#store.commit(batch, { synced: true });
    if (done) await done;
    for (const [i, name] of wanted.entries()) this.#mark[name] = marks[i]!;
  }

  get low(): boolean {
    return NAMES.some((name) => this.#mark[name] - this.#next[name] < BLOCK / 2);
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
