import { close } from '../sys/index.ts';
import type { Node } from './node.ts';

/** So many at a time, however many must stay: what is over is caught up with by later calls. */
const LOOKS = 64;

/**
 * The O_PATH descriptors of nodes: a bounded cache with a second chance for what was used lately. A node whose
 * descriptor was taken gets a new one by its name, with an identity check (`Tree.fd`). Pinned ones stay.
 */
export class DescriptorCache {
  readonly #max: number;
  readonly #nodes = new Set<Node>();
  /** Called before a node loses its descriptor. */
  onDrop: (node: Node) => void = () => {};

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#nodes.size;
  }

  add(node: Node, fd: number): void {
    node.fd = fd;
    node.recent = true;
    this.#nodes.add(node);
    if (this.#nodes.size > this.#max) this.#evict();
  }

  drop(node: Node): void {
    if (node.fd < 0) return;
    this.#nodes.delete(node);
    this.onDrop(node);
    close(node.fd);
    node.fd = -1;
    node.pinned = false;
  }

  clear(): void {
    for (const node of [...this.#nodes]) this.drop(node);
  }

  /** Walks the ring from the oldest: who was used since, or must stay, moves to the end; the others go until there is room. */
  #evict(): void {
    let looks = LOOKS;
    for (const node of this.#nodes) {
      if (this.#nodes.size <= this.#max || looks-- === 0) return;
      if (!node.pinned && !node.recent && node.backingUsers === 0) {
        this.drop(node);
        continue;
      }
      node.recent = false;
      this.#nodes.delete(node);
      this.#nodes.add(node);
    }
  }
}
