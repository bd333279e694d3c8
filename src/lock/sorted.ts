/** What a queue sorts by: the ticket that counts, then the entry's own number. */
export interface Queued {
  effectiveTicket: number;
  readonly serial: number;
}

const CHUNK_MAX = 256;

/**
 * A queue sorted by effective ticket: arrivals are appended, anything may leave from the middle. Chunks of
 * bounded size keep both cheap with tens of thousands inside.
 */
export class SortedQueue<T extends Queued> {
  readonly #chunks: T[][] = [];
  size = 0;

  first(): T | undefined {
    return this.#chunks[0]?.[0];
  }

  add(item: T): void {
    this.size++;
    const chunks = this.#chunks;
    let at = this.#chunkOf(item);
    if (at < 0) {
      chunks.push([item]);
      return;
    }
    let chunk = chunks[at]!;
    let place = lowerBound(chunk, item);
    if (chunk.length >= CHUNK_MAX) {
      // An append starts a new chunk; an insertion splits the one it falls into.
      const tail = place === chunk.length ? [] : chunk.splice(CHUNK_MAX >> 1);
      chunks.splice(at + 1, 0, tail);
      if (place >= chunk.length) {
        place -= chunk.length;
        chunk = chunks[++at]!;
      }
    }
    chunk.splice(place, 0, item);
  }

  remove(item: T): void {
    const at = this.#chunkOf(item);
    const chunk = this.#chunks[at]!;
    const place = lowerBound(chunk, item);
    if (chunk[place] !== item) throw new Error('SortedQueue: the item is not here');
    this.size--;
    if (chunk.length > 1) chunk.splice(place, 1);
    else this.#chunks.splice(at, 1);
  }

  /** The last item with an effective ticket below `ticket` that `accept` takes. */
  lastBefore(ticket: number, accept: (item: T) => boolean): T | undefined {
    for (let at = this.#chunkBelow(ticket); at >= 0; at--) {
      const chunk = this.#chunks[at]!;
      for (let i = chunk.length - 1; i >= 0; i--) {
        const item = chunk[i]!;
        if (item.effectiveTicket < ticket && accept(item)) return item;
      }
    }
    return undefined;
  }

  /** All items with an effective ticket below `ticket`, latest first. */
  *before(ticket: number): Generator<T, void, void> {
    for (let at = this.#chunkBelow(ticket); at >= 0; at--) {
      const chunk = this.#chunks[at]!;
      for (let i = chunk.length - 1; i >= 0; i--) if (chunk[i]!.effectiveTicket < ticket) yield chunk[i]!;
    }
  }

  *[Symbol.iterator](): Generator<T, void, void> {
    for (const chunk of this.#chunks) yield* chunk;
  }

  /** The chunk an item belongs to: the last whose first item is not after it; -1 when there is none at all. */
  #chunkOf(item: T): number {
    let low = 0;
    let high = this.#chunks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (compare(this.#chunks[middle]![0]!, item) <= 0) low = middle;
      else high = middle - 1;
    }
    return high;
  }

  /** The last chunk that has an item below `ticket`, or -1. */
  #chunkBelow(ticket: number): number {
    let low = -1;
    let high = this.#chunks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#chunks[middle]![0]!.effectiveTicket < ticket) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

function compare(a: Queued, b: Queued): number {
  return a.effectiveTicket - b.effectiveTicket || a.serial - b.serial;
}

function lowerBound(chunk: readonly Queued[], item: Queued): number {
  let low = 0;
  let high = chunk.length;
  if (high > 0 && compare(chunk[high - 1]!, item) < 0) return high;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compare(chunk[middle]!, item) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
