import { close } from '../sys/index.ts';
import type { Node } from './node.ts';

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

  /** Walks the ring from the oldest: who was used since moves to the end, the first other one goes. */
  #evict(): void {
    let chances = this.#nodes.size;
    for (const node of this.#nodes) {
      if (chances-- === 0) return;
      if (!node.pinned && !node.recent && node.backingUsers === 0) {
        this.drop(node);
        return;
      }
      node.recent = false;
      this.#nodes.delete(node);
      this.#nodes.add(node);
    }
  }
}
