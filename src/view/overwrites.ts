import type { PathString } from '../base/bytes.ts';
import * as sys from '../sys/index.ts';
import type { Actor, Caller, ViewEvents } from './actors.ts';
import type { Handle } from './handle.ts';
import type { Node } from './node.ts';
import { opensForWriting } from './opening.ts';
import { scratch } from './scratch.ts';
import { type StalePolicy, StaleWrites, type Verdict, versionOf, type Writer } from './stale.ts';
import type { View } from './view.ts';

/** Where the view's operations meet the memory of what was seen (stale.ts): asked under the lock, before anything is written. */
export class Overwrites {
  readonly #view: View;
  readonly #events: ViewEvents;
  readonly #stale: StaleWrites;

  constructor(view: View, events: ViewEvents, policy: StalePolicy) {
    this.#view = view;
    this.#events = events;
    this.#stale = new StaleWrites(policy, view.clock);
  }

  /**
   * A file on a locked path is about to be opened: its version; null: nobody asks; undefined: refused. `known`: its path, when
   * `scratch` has its attributes already.
   */
  opening(
    actor: Actor,
    node: Node,
    flags: number,
    known: PathString | null = null,
  ): string | null | undefined {
    if ((flags & sys.FMODE_EXEC) !== 0 || (!this.#stale.on && !opensForWriting(flags))) return null;
    const path = known ?? this.#view.pathOf(node);
    if (path === null || (known === null && this.#view.tree.stat(node, scratch) < 0)) return null;
    const version = versionOf(scratch);
    const appends = (flags & sys.O_APPEND) !== 0 && (flags & sys.O_TRUNC) === 0;
    if (opensForWriting(flags) && !appends && !this.#allowed(actor, path, node, version)) return undefined;
    if ((flags & sys.O_ACCMODE) !== sys.O_WRONLY) this.#stale.opened(actor, path, version);
    return version;
  }

  /** Who wrote to a path last, as far as this view knows. */
  lastWriter(path: PathString): Writer | undefined {
    return this.#stale.lastWriter(path);
  }

  /** A file was made under a lock, by this handle. */
  created(handle: Handle, actor: Actor): void {
    if (handle.grant !== null) handle.writer = { actor, version: '' };
  }

  /** Nobody writes through this handle any more. */
  closed(handle: Handle): void {
    const { node, writer } = handle;
    if (writer === null || handle.lost || node.nlink === 0) return;
    const path = this.#view.pathOf(node);
    if (path === null || this.#view.tree.stat(node, scratch) < 0) return;
    const version = versionOf(scratch);
    if (version !== writer.version) this.#stale.wrote(writer.actor, path, version);
  }

  /** A file on a locked path is about to be cut by its name: false when that is refused. */
  truncating(caller: Caller, node: Node): boolean {
    const about = this.#about(caller, node);
    return about === null || this.#allowed(about.actor, about.path, node, versionOf(scratch));
  }

  /** A file on a locked path may have been cut by its name. */
  truncated(caller: Caller, node: Node): void {
    const about = this.#about(caller, node);
    if (about !== null) this.#stale.wrote(about.actor, about.path, versionOf(scratch));
  }

  /** Sets times, which is no change of the content. `change`: false when it failed. */
  touching(caller: Caller, node: Node, change: () => boolean): boolean {
    const about = this.#about(caller, node);
    const before = about === null ? '' : versionOf(scratch);
    const done = change();
    if (about !== null && done && this.#view.tree.stat(node, scratch) === 0)
      this.#stale.touched(about.actor, about.path, before, versionOf(scratch));
    return done;
  }

  /** Fills `scratch`. */
  #about(caller: Caller, node: Node): { actor: Actor; path: PathString } | null {
    const actor = this.#view.knownActor(caller);
    const path = actor === null ? null : this.#view.pathOf(node);
    return actor === null || path === null || this.#view.tree.stat(node, scratch) < 0
      ? null
      : { actor, path };
  }

  /** What stands at a locked name is about to be replaced: false when that is refused. */
  replacing(caller: Caller, parent: Node, name: PathString): boolean {
    const actor = this.#stale.on ? this.#view.knownActor(caller) : null;
    const path = actor === null ? null : this.#view.pathIn(parent, name);
    if (actor === null || path === null || !this.#isFile(parent, name)) return true;
    return this.#allowed(actor, path, parent.children?.get(name), versionOf(scratch));
  }

  /** Something new stands at a locked name. */
  replaced(caller: Caller, parent: Node, name: PathString): void {
    const actor = this.#view.knownActor(caller);
    const path = actor === null ? null : this.#view.pathIn(parent, name);
    if (actor !== null && path !== null && this.#isFile(parent, name))
      this.#stale.wrote(actor, path, versionOf(scratch));
  }

  #isFile(parent: Node, name: PathString): boolean {
    const fd = this.#view.tree.fd(parent);
    if (fd < 0 || sys.statx(fd, name, sys.AT_SYMLINK_NOFOLLOW, scratch) < 0) return false;
    return (scratch.mode & sys.S_IFMT) === sys.S_IFREG;
  }

  /**
   * What this actor wrote through files that it has open, or whose end is not certain yet (a mapping, a release on its way), is its own:
   * nobody else had the lock.
   */
  #knowOwn(actor: Actor, path: PathString, node: Node, version: string): void {
    for (const handles of [node.handles, node.closing])
      for (const { writer, lost } of handles) {
        if (writer === null || lost || writer.actor.owner !== actor.owner || writer.version === version)
          continue;
        this.#stale.wrote(writer.actor, path, version);
        writer.version = version;
      }
  }

  #allowed(actor: Actor, path: PathString, node: Node | undefined, version: string): boolean {
    if (!this.#stale.on) return true;
    if (node !== undefined && node.writers > 0) this.#knowOwn(actor, path, node, version);
    const verdict = this.#stale.check(actor, path, version);
    if (verdict === null) return true;
    if (!verdict.again) this.#tell(actor, path, verdict);
    return !verdict.deny;
  }

  #tell(actor: Actor, path: PathString, verdict: Verdict): void {
    const what = verdict.deny ? 'stale_refused' : 'stale_written';
    if (verdict.deny)
      this.#view.refused(actor, [{ path, mode: 'write', scope: 'file' }], 'stale', verdict.message);
    this.#events.note(path, what, actor.owner, verdict.message, verdict.whose);
  }
}
