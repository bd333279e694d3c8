/** Which locks an operation takes: the table of docs/architecture.md, "What each operation locks". */
import type { PathString } from '../base/bytes.ts';
import type { Mode, Scope, Target } from '../lock/types.ts';
import type { Exclusions } from './exclude.ts';
import { type Dentry, type Node, type OpenPlans, pathIn } from './node.ts';
import { scratch } from './scratch.ts';
import type { Tree } from './tree.ts';

/** A change of names or attributes. `node` is what stands at `name` where the operation needs it. */
export type PathOp =
  | {
      readonly op: 'create' | 'mkdir' | 'mknod' | 'symlink';
      readonly parent: Node;
      readonly name: PathString;
    }
  | { readonly op: 'unlink' | 'rmdir'; readonly parent: Node; readonly name: PathString }
  | {
      readonly op: 'rename';
      readonly parent: Node;
      readonly name: PathString;
      readonly newParent: Node;
      readonly newName: PathString;
      readonly flags: number;
    }
  | { readonly op: 'link'; readonly node: Node; readonly parent: Node; readonly name: PathString }
  | { readonly op: 'truncate' | 'setattr'; readonly node: Node };

/** Targets of an operation; empty: nothing to lock. */
export interface Plan {
  readonly targets: readonly Target[];
  /** Directories whose attributes the kernel asks for before it takes a lock, when it comes again. */
  readonly parents: readonly Node[];
  /** The grant becomes the lock of handles that are open already (a nameless or excluded file gets a locked name). */
  readonly handsOver: boolean;
}

/** The lock that all names of an inode share while it has several. */
export function inodeTarget(node: Node, mode: Mode): Target {
  return { path: `#ino/${node.dev}:${node.ino}`, mode, scope: 'file' };
}

export class Planner {
  readonly #tree: Tree;
  readonly #exclusions: Exclusions;

  constructor(tree: Tree, exclusions: Exclusions) {
    this.#tree = tree;
    this.#exclusions = exclusions;
  }

  /** Targets of an open under its newest name; null: no lock (excluded, nameless, virtual). */
  ofOpen(node: Node, mode: 'read' | 'write'): { path: string; targets: readonly Target[] } | null {
    const dentry = node.dentry;
    if (dentry === undefined || node.virtual !== null || node.nlink === 0) return null;
    const { path, read, write } = this.#plansOf(dentry);
    if (path === null) return null;
    const targets = mode === 'read' ? read : write;
    return { path, targets: node.nlink > 1 ? [...targets, inodeTarget(node, mode)] : targets };
  }

  /** Both numbers only grow, so their sum tells of either. */
  #plansOf(dentry: Dentry): OpenPlans {
    const version = this.#exclusions.version + this.#tree.moves;
    if (dentry.plans?.version === version) return dentry.plans;
    const { parent, name } = dentry;
    const path = this.#exclusions.excludes(parent, name, false)
      ? null
      : pathIn(parent, name, this.#tree.root);
    const targets = (mode: 'read' | 'write'): readonly Target[] =>
      path === null ? [] : [{ path, mode, scope: 'file' }];
    dentry.plans = { version, path, read: targets('read'), write: targets('write') };
    return dentry.plans;
  }

  of(op: PathOp): Plan {
    switch (op.op) {
      case 'create':
        return this.#named(op.parent, op.name, 'write', 'file', false);
      case 'mkdir':
        return this.#named(op.parent, op.name, 'replace', 'tree', true);
      case 'mknod':
      case 'symlink':
        return this.#named(op.parent, op.name, 'replace', 'file', false);
      case 'unlink':
      case 'rmdir':
        return this.#victim(op.parent, op.name);
      case 'rename':
        return this.#rename(op);
      case 'link':
        return this.#link(op);
      case 'truncate':
        return this.#byNode(op.node, 'write');
      case 'setattr':
        return this.#byNode(op.node, 'replace');
    }
  }

  #named(parent: Node, name: PathString, mode: Mode, scope: Scope, directory: boolean): Plan {
    const targets: Target[] = [];
    this.#add(targets, parent, name, mode, scope, directory);
    return { targets, parents: [parent], handsOver: false };
  }

  #victim(parent: Node, name: PathString): Plan {
    const node = this.#peek(parent, name);
    const directory = node?.isDirectory ?? false;
    const targets: Target[] = [];
    this.#add(targets, parent, name, 'replace', directory ? 'tree' : 'file', directory);
    if (node !== null) this.#addInode(targets, node);
    this.#drop(node);
    return { targets, parents: [parent], handsOver: false };
  }

  #rename(op: PathOp & { op: 'rename' }): Plan {
    const from = this.#peek(op.parent, op.name);
    const to = this.#peek(op.newParent, op.newName);
    const directory = from?.isDirectory ?? false;
    const toDirectory = to?.isDirectory ?? directory;
    const targets: Target[] = [];
    const fromLocked = this.#add(
      targets,
      op.parent,
      op.name,
      'replace',
      directory ? 'tree' : 'file',
      directory,
    );
    const gains = from !== null && !fromLocked && [...from.handles].some((h) => h.grant === null && h.writes);
    const before = targets.length;
    this.#add(
      targets,
      op.newParent,
      op.newName,
      gains ? 'write' : 'replace',
      directory || toDirectory ? 'tree' : 'file',
      directory,
    );
    const handsOver = gains && targets.length > before;
    if (targets.length > 0) for (const node of [from, to]) if (node !== null) this.#addInode(targets, node);
    this.#drop(from);
    this.#drop(to);
    return {
      targets,
      parents: op.parent === op.newParent ? [op.parent] : [op.parent, op.newParent],
      handsOver,
    };
  }

  #link(op: PathOp & { op: 'link' }): Plan {
    const targets: Target[] = [];
    const gains = op.node.nlink === 0 && [...op.node.handles].some((h) => h.writes);
    this.#add(targets, op.parent, op.name, gains ? 'write' : 'replace', 'file', false);
    const handsOver = gains && targets.length > 0;
    const dentry = op.node.dentry;
    if (dentry !== undefined) this.#add(targets, dentry.parent, dentry.name, 'replace', 'file', false);
    if (targets.length > 0) this.#addInode(targets, op.node);
    return { targets, parents: [op.parent], handsOver };
  }

  #byNode(node: Node, mode: Mode): Plan {
    const dentry = node.dentry;
    if (dentry === undefined || node.virtual !== null) return { targets: [], parents: [], handsOver: false };
    const targets: Target[] = [];
    // A directory's attributes are its own: nobody below is in the way.
    this.#add(targets, dentry.parent, dentry.name, mode, 'file', node.isDirectory);
    if (targets.length > 0) this.#addInode(targets, node, mode);
    const parents = node.names.map((d) => d.parent);
    // `chmod .` walks no name: the only thing asked is whether the directory itself may be entered.
    if (node.isDirectory) parents.push(node);
    return { targets, parents, handsOver: false };
  }

  #add(
    targets: Target[],
    parent: Node,
    name: PathString,
    mode: Mode,
    scope: Scope,
    directory: boolean,
  ): boolean {
    if (this.#exclusions.excludes(parent, name, directory)) return false;
    const path = pathIn(parent, name, this.#tree.root);
    if (path === null) return false;
    const at = targets.findIndex((t) => t.path === path);
    if (at < 0) targets.push({ path, mode, scope });
    return true;
  }

  #addInode(targets: Target[], node: Node, mode: Mode = 'replace'): void {
    if (!node.isRegular || node.nlink < 2) return;
    const target = inodeTarget(node, mode);
    if (!targets.some((t) => t.path === target.path)) targets.push(target);
  }

  /** What stands at a name now. Give it back with `#drop`. */
  #peek(parent: Node, name: PathString): Node | null {
    const found = this.#tree.lookup(parent, name, scratch);
    return typeof found === 'number' ? null : found;
  }

  #drop(node: Node | null): void {
    if (node !== null) this.#tree.release(node);
  }
}
