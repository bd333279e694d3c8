/** What a heap keeps: smallest `at` first, ties by `tie`. `index` belongs to the heap; -1 outside of it. */
export interface HeapItem {
  at: number;
  tie: number;
  index: number;
}

/** A binary heap that can also take an item out of its middle. */
export class Heap<T extends HeapItem> {
  readonly #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  peek(): T | undefined {
    return this.#items[0];
  }

  push(item: T): void {
    item.index = this.#items.length;
    this.#items.push(item);
    this.#up(item);
  }

  pop(): T | undefined {
    const first = this.#items[0];
    if (first !== undefined) this.remove(first);
    return first;
  }

  /** Harmless when the item is not in the heap. */
  remove(item: T): void {
    const index = item.index;
    if (index < 0) return;
    item.index = -1;
    const last = this.#items.pop()!;
    if (last === item) return;
    this.#items[index] = last;
    last.index = index;
    this.#up(last);
    this.#down(last);
  }

  #up(item: T): void {
    while (item.index > 0) {
      const above = this.#items[(item.index - 1) >> 1]!;
      if (!before(item, above)) return;
      this.#swap(item, above);
    }
  }

  #down(item: T): void {
    for (;;) {
      const left = this.#items[item.index * 2 + 1];
      const right = this.#items[item.index * 2 + 2];
      const least = right !== undefined && left !== undefined && before(right, left) ? right : left;
      if (least === undefined || !before(least, item)) return;
      this.#swap(item, least);
    }
  }

  #swap(a: T, b: T): void {
    const index = a.index;
    a.index = b.index;
    b.index = index;
    this.#items[a.index] = a;
    this.#items[b.index] = b;
  }
}

function before(a: HeapItem, b: HeapItem): boolean {
  return a.at < b.at || (a.at === b.at && a.tie < b.tie);
}
