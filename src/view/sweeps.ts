/**
 * What one actor does to another's bytes under a lock of its own, and what is kept of them (lost/folder.ts):
 *
 * - **Sweeps.** Content that somebody else wrote within the last day is cut, removed or replaced (`git checkout .`, a whole-file
 *   rewrite): it is kept, by one more name of its inode or as a copy. Who wrote last is what stale.ts remembers: nothing is known
 *   from before the view was mounted. What a version control program wrote it can give again.
 * - **Replaced while written.** A file loses its last name while a process of the same actor, or one whose lock was broken, has it
 *   open for writing: the inode is kept until it is proven that nothing more was written to it. Not kept: what the process
 *   that removes it has open itself, and a file that its writer made and never closed. That is what temporary files look like
 *   (sort, sqlite, mktemp; rm): there are many, and nobody wants them back.
 *
 * Paths that take no lock are not kept. The cost for everybody else is a look into a map.
 */
import type { PathString } from '../base/bytes.ts';
import * as sys from '../sys/index.ts';
import type { Actor, ViewEvents } from './actors.ts';
import { LostError } from './lost/content.ts';
import type { About, LostFolder } from './lost/folder.ts';
import type { LostRecord, LostWhy } from './lost/record.ts';
import type { Node } from './node.ts';
import { scratch } from './scratch.ts';
import { versionOf } from './stale.ts';
import type { View } from './view.ts';

/** Who changes what somebody else wrote longer ago does not sweep it away. */
const RECENT_MS = 24 * 3_600_000;
/** Copied on the spot; larger files by another thread where the asker can be kept waiting. */
const AT_ONCE_BYTES = 1024 * 1024;
/** Copied on the spot where the asker cannot be kept waiting; larger ones are not kept. */
const BLOCKING_BYTES_MAX = 8 * 1024 * 1024;
/** Programs that can give again what they wrote. */
const VERSION_CONTROL = new Set(['git', 'hg', 'jj', 'svn']);

/** Copies the file behind `fd` elsewhere, and closes it. */
export interface CopyJob {
  readonly fd: number;
  readonly about: About;
}

export interface SweepRescue {
  copy(job: CopyJob, done: (error: string | null) => void): void;
  /** Something was kept on the spot: it is to be watched, and counted. `bytes`: what all took on the disk at the last count. */
  added(id: string, done: (bytes: number) => void): void;
}

export class Sweeps {
  readonly #view: View;
  readonly #events: ViewEvents;
  readonly #folder: LostFolder;
  readonly #rescue: SweepRescue;
  readonly #bytesMax: number;
  /** At the last count, and added since. */
  #countedBytes = 0;
  #addedBytes = 0;
  #full = false;

  constructor(view: View, events: ViewEvents, folder: LostFolder, rescue: SweepRescue, bytesMax: number) {
    this.#bytesMax = bytesMax;
    this.#view = view;
    this.#events = events;
    this.#folder = folder;
    this.#rescue = rescue;
  }

  /** What stands at a locked name is about to lose it; the function returned undoes what was kept, if it does not. */
  losing(actor: Actor | null, parent: Node, name: PathString, why: 'removed' | 'replaced'): () => void {
    const nothing = () => {};
    const node = parent.children?.get(name);
    if (actor === null || node === undefined || !node.isRegular || node.nlink !== 1) return nothing;
    const path = this.#view.pathIn(parent, name);
    if (path === null) return nothing;
    const writer = this.#writerOn(node, actor);
    const swept = writer === undefined ? this.#lastWriter(actor, node, path) : undefined;
    if (writer === undefined && swept === undefined) return nothing;
    const state = writer === undefined ? 'sweep' : 'watched';
    const record = this.#keepInode(node, { path, why, owner: (writer ?? swept)!, by: actor.owner }, state);
    return () => {
      if (record !== undefined) this.#folder.remove(record.id);
    };
  }

  /** Whose handle on it may write on when its name is gone, and is worth keeping. */
  #writerOn(node: Node, actor: Actor): string | undefined {
    for (const handle of node.handles)
      if (handle.writes && handle.pid !== actor.pid && (handle.lost || !handle.made)) return handle.owner;
    return undefined;
  }

  /** Who else wrote what is there now, not long ago. Fills `scratch`. */
  #lastWriter(actor: Actor, node: Node, path: PathString): string | undefined {
    const writer = this.#view.overwrites.lastWriter(path);
    if (writer === undefined || writer.owner === actor.owner || VERSION_CONTROL.has(writer.program))
      return undefined;
    if (this.#view.clock.nowMs() - writer.atMs > RECENT_MS || this.#view.tree.stat(node, scratch) < 0)
      return undefined;
    if (scratch.size === 0 || versionOf(scratch) !== writer.version) return undefined;
    return this.#hasRoom(scratch.blocks * 512, path) ? writer.owner : undefined;
  }

  /** Before something was pruned, which people are warned of first, no more is kept than there is room for. */
  #hasRoom(bytes: number, path: PathString): boolean {
    const full = this.#countedBytes + this.#addedBytes + bytes > this.#bytesMax;
    if (full && !this.#full)
      this.#events.note(path, 'kept_full', '', 'what is swept away is not kept any more: see gate conflicts');
    this.#full = full;
    return !full;
  }

  #keepInode(node: Node, about: About, state: LostRecord['state']): LostRecord | undefined {
    return this.#try(about, () => {
      const fd = this.#view.tree.fd(node);
      if (fd < 0) throw new LostError('open', fd);
      const record = this.#folder.keepInode(fd, about, state);
      // At once where that is quick, so that nothing written meanwhile counts as old.
      if (state !== 'watched' || record.sizeBytes > AT_ONCE_BYTES) return record;
      const hashed = { ...record, hash: this.#folder.hashOf(record.id) };
      this.#folder.write(hashed);
      return hashed;
    });
  }

  /** A file on a locked path is about to be cut to nothing by an open: `go` when what is to be kept is. */
  opening(actor: Actor, node: Node, go: () => void): void {
    const cut = this.#cut(actor, node, 0);
    if (cut === null) return go();
    if (cut.sizeBytes <= AT_ONCE_BYTES) {
      this.#copyNow(node, cut.about);
      return go();
    }
    const fd = this.#view.reopen(node, sys.O_RDONLY | sys.O_NONBLOCK);
    if (fd < 0) return go();
    this.#rescue.copy({ fd, about: cut.about }, (error) => {
      if (error !== null) this.#notKept(cut.about, error);
      go();
    });
  }

  /** The same, where nobody can be kept waiting; `size`: the new one. */
  cutting(actor: Actor | null, node: Node, size: number): void {
    const cut = actor === null ? null : this.#cut(actor, node, size);
    if (cut === null) return;
    if (cut.sizeBytes > BLOCKING_BYTES_MAX) this.#notKept(cut.about, 'it is too large to be copied at once');
    else this.#copyNow(node, cut.about);
  }

  #cut(actor: Actor, node: Node, size: number): { about: About; sizeBytes: number } | null {
    const path = this.#view.pathOf(node);
    const owner = path === null ? undefined : this.#lastWriter(actor, node, path);
    if (path === null || owner === undefined || scratch.size <= size) return null;
    return { about: { path, why: 'truncated', owner, by: actor.owner }, sizeBytes: scratch.size };
  }

  #copyNow(node: Node, about: About): void {
    const fd = this.#view.reopen(node, sys.O_RDONLY | sys.O_NONBLOCK);
    if (fd < 0) return;
    this.#try(about, () => this.#folder.keepCopy(fd, about));
    sys.close(fd);
  }

  #try(about: About, keep: () => LostRecord): LostRecord | undefined {
    try {
      const record = keep();
      this.#addedBytes += record.sizeBytes;
      this.#rescue.added(record.id, (bytes) => {
        if (bytes !== this.#countedBytes) this.#addedBytes = 0;
        this.#countedBytes = bytes;
      });
      return record;
    } catch (error) {
      if (!(error instanceof LostError)) throw error;
      this.#notKept(about, error.message);
      return undefined;
    }
  }

  /** It is the actor's right to change it: what cannot be kept does not stop it. */
  #notKept({ path, why, owner, by }: About & { why: LostWhy }, reason: string): void {
    const message = `what ${owner} wrote is not kept (${reason}): ${by} ${why} it`;
    this.#events.note(path, 'not_kept', by, message, owner);
  }
}
