import { contains, overlaps } from './conflict.ts';
import { isBelow } from './paths.ts';
import type { Scope, Target } from './types.ts';

/** A path, or all that lies at and below it. */
export interface Region {
  readonly path: string;
  readonly scope: Scope;
}

export function regionOf({ path, scope }: Target): Region {
  return { path, scope };
}

/**
 * A set of regions of one tree, by path. A path asked for alone costs one look for each directory above it; a tree is
 * compared with every member, so sets are to be kept small (`size`).
 */
export class RegionSet<T = true> {
  readonly #members = new Map<string, { region: Region; value: T }>();

  get size(): number {
    return this.#members.size;
  }

  *[Symbol.iterator](): IterableIterator<{ readonly region: Region; readonly value: T }> {
    yield* this.#members.values();
  }

  /** Adds a region; members inside it go. One that lies inside a member is there already, and `value` is not kept. */
  add(region: Region, value: T): void {
    if (this.#treeAbove(region.path) !== undefined) return;
    if (region.scope === 'tree')
      for (const path of this.#members.keys()) if (isBelow(path, region.path)) this.#members.delete(path);
    const there = this.#members.get(region.path);
    if (there !== undefined && there.region.scope === 'tree' && region.scope === 'file') return;
    this.#members.set(region.path, { region, value });
  }

  delete(region: Region): void {
    if (this.#members.get(region.path)?.region.scope === region.scope) this.#members.delete(region.path);
  }

  clear(): void {
    this.#members.clear();
  }

  /** The member that has all of `region` in it. */
  covering(region: Region): { readonly region: Region; readonly value: T } | undefined {
    if (this.#members.size === 0) return undefined;
    const self = this.#members.get(region.path);
    if (self !== undefined && contains(self.region, region)) return self;
    return this.#treeAbove(region.path);
  }

  /** True when some member and `region` have a path in common. */
  overlaps(region: Region): boolean {
    if (this.#members.size === 0) return false;
    if (this.#members.has(region.path) || this.#treeAbove(region.path) !== undefined) return true;
    if (region.scope === 'file') return false;
    for (const member of this.#members.values()) if (overlaps(member.region, region)) return true;
    return false;
  }

  #treeAbove(path: string): { readonly region: Region; readonly value: T } | undefined {
    for (let at = path; at !== ''; ) {
      at = at.slice(0, Math.max(0, at.lastIndexOf('/')));
      const above = this.#members.get(at);
      if (above?.region.scope === 'tree') return above;
    }
    return undefined;
  }
}
