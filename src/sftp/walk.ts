/**
 * Paths of requests, walked name by name through the view's nodes. The view's root is `/`, whatever it is on the disk: `..` does not lead
 * above it and an absolute link begins at it, so nothing outside can be named (as openat2's RESOLVE_IN_ROOT).
 */
import { decodePath } from '../base/bytes.ts';
import * as sys from '../sys/index.ts';
import type { Node } from '../view/node.ts';
import { scratch } from '../view/scratch.ts';
import type { Tree } from '../view/tree.ts';
import { SFTP_LIMITS } from './protocol.ts';

/** Where a path leads. */
export interface Place {
  /** The directory of the last name; of the root itself, the root. */
  readonly parent: Node;
  /** `''`: it is the root, or ends in a dot. */
  readonly name: string;
  /** What stands there; null: nothing. Valid until `Walker.done`. */
  readonly node: Node | null;
  /** The names that lead there from the root. */
  readonly path: readonly string[];
}

/** Directories that stay known between requests, so that their descriptors do. */
const DIRECTORIES_KEPT = 1024;
/** The folder at the root that is not the disk's (virtual.ts). */
export const VIRTUAL_DIRECTORY = '.gate';

export class Walker {
  readonly #tree: Tree;
  readonly #kept = new Set<Node>();

  constructor(tree: Tree) {
    this.#tree = tree;
  }

  /** Names of a path, from the root; what is not walked any further is left as it is. */
  static names(path: Buffer): string[] {
    return decodePath(path).split('/');
  }

  /**
   * Walks. `follow`: through a link at the end, too. The place, or -errno; a name that is missing is an error unless it is the last. Whoever
   * gets a place gives it back with `done`. `scratch` has the attributes of its node.
   */
  walk(path: Buffer, follow: boolean): Place | number {
    const todo = Walker.names(path).reverse();
    const above: Node[] = [this.#tree.root];
    const names: string[] = [];
    // `a/` is what `a/.` is.
    const last = todo[0] === '' && todo.length > 1;
    let links = 0;
    let place: Place = { parent: this.#tree.root, name: '', node: this.#tree.root, path: [] };
    while (todo.length > 0) {
      const name = todo.pop()!;
      const parent = above[above.length - 1]!;
      if (name === '' || name === '.') continue;
      if (name === '..') {
        if (above.length > 1) {
          above.pop();
          names.pop();
        }
        place = {
          parent: above[above.length - 1]!,
          name: '',
          node: above[above.length - 1]!,
          path: [...names],
        };
        continue;
      }
      if (parent === this.#tree.root && name === VIRTUAL_DIRECTORY) return -sys.ENOENT;
      const found = this.#tree.lookup(parent, name, scratch);
      const ends = todo.every((rest) => rest === '' || rest === '.');
      if (typeof found === 'number') {
        if (found === -sys.ENOENT && ends && todo.every((rest) => rest === ''))
          return { parent, name, node: null, path: [...names, name] };
        return found;
      }
      if (found.isSymlink && (!ends || follow || last)) {
        const target = this.#linkOf(found);
        this.#tree.release(found);
        if (typeof target === 'number') return target;
        if (++links > SFTP_LIMITS.links) return -sys.ELOOP;
        if (target[0] === '') {
          above.length = 1;
          names.length = 0;
        }
        todo.push(...target.reverse());
        place = {
          parent: above[above.length - 1]!,
          name: '',
          node: above[above.length - 1]!,
          path: [...names],
        };
        continue;
      }
      if (!ends && !found.isDirectory) {
        this.#tree.release(found);
        return -sys.ENOTDIR;
      }
      names.push(name);
      place = { parent, name, node: found, path: [...names] };
      if (found.isDirectory) {
        this.#keep(found);
        above.push(found);
      } else if (last) {
        this.#tree.release(found);
        return -sys.ENOTDIR;
      }
    }
    if (place.node !== null && place.name === '') {
      const error = this.#tree.stat(place.node, scratch);
      if (error < 0) return error;
    }
    return place;
  }

  /** The caller is done with a place. */
  done(place: Place): void {
    if (place.node !== null) this.#tree.release(place.node);
  }

  close(): void {
    for (const node of this.#kept) this.#tree.forget(node, 1);
    this.#kept.clear();
  }

  #linkOf(node: Node): string[] | number {
    const fd = this.#tree.fd(node);
    const target = fd < 0 ? fd : sys.readlinkat(fd, '');
    if (typeof target === 'number') return target;
    return target.length > SFTP_LIMITS.pathBytes ? -sys.ENAMETOOLONG : Walker.names(target);
  }

  #keep(node: Node): void {
    if (this.#kept.delete(node)) {
      this.#kept.add(node);
      return;
    }
    node.lookups++;
    this.#kept.add(node);
    if (this.#kept.size <= DIRECTORIES_KEPT) return;
    const oldest = this.#kept.values().next().value!;
    this.#kept.delete(oldest);
    this.#tree.forget(oldest, 1);
  }
}
