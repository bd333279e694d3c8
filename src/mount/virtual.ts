import type { Attr } from '../fuse/types.ts';
import type { Node } from '../view/node.ts';
import type { Tree } from '../view/tree.ts';

/** The directory at the view's root that is not listed: lock state for those who have only file tools. */
export const VIRTUAL_DIRECTORY = '.gate';
const FILES = ['who', 'why'] as const;
export type VirtualFile = (typeof FILES)[number];

/** `/.gate`, `/.gate/who` (every wait and who is in the way) and `/.gate/why` (the asker's own last refusals). */
export class VirtualFiles {
  readonly directory: Node;
  readonly #files = new Map<string, Node>();

  constructor(tree: Tree) {
    this.directory = tree.addVirtual(VIRTUAL_DIRECTORY, 0o040000);
    for (const name of FILES) this.#files.set(name, tree.addVirtual(name, 0o100000));
  }

  lookup(name: string): Node | undefined {
    return this.#files.get(name);
  }

  attr(node: Node, wallMs: number): Attr {
    const sec = Math.floor(wallMs / 1000);
    const directory = node.isDirectory;
    return {
      ino: node.ino,
      size: 0,
      blocks: 0,
      atimeSec: sec,
      atimeNsec: 0,
      mtimeSec: sec,
      mtimeNsec: 0,
      ctimeSec: sec,
      ctimeNsec: 0,
      mode: directory ? 0o040555 : 0o100444,
      nlink: directory ? 2 : 1,
      uid: 0,
      gid: 0,
      rdev: 0,
      blksize: 4096,
    };
  }
}
