/**
 * Unclean paths, from the view's side (broker/unclean.ts has the other): before a new holder is let in on one, the view
 * looks whether anybody can still write there, with a read lease. Nobody: the path is clean, and the broker is told.
 * Somebody: the name gets a fresh inode with the same content, made by another thread, and the old one is kept (lost/folder.ts), so
 * that what the leftover writer writes neither reaches the new holder nor is lost. Where that cannot be done (disk full, several
 * names, no permission) whoever wants the path waits, with an event, and it is tried again.
 *
 * A record for the whole volume (a view died) is answered inode by inode, at the first grant on each, until one walk through the
 * tree has found all files that somebody still writes to; then those are the records, and the one for the whole goes.
 */
import type { PathString } from '../base/bytes.ts';
import type { ErrorCode } from '../base/errors.ts';
import type { UncleanPath } from '../client/index.ts';
import { overlaps } from '../lock/index.ts';
import type { Target } from '../lock/types.ts';
import * as sys from '../sys/index.ts';
import type { ViewClock, ViewEvents } from './actors.ts';
import { probeWriters } from './lost/content.ts';
import type { LostWhy } from './lost/record.ts';
import type { Node } from './node.ts';
import { scratch } from './scratch.ts';
import type { Tree } from './tree.ts';

/** Gives a name a fresh inode and keeps the old one. Descriptors are the other thread's from there: it closes them. */
export interface FreshJob {
  readonly parentFd: number;
  /** Node id of the directory when the front end knows it, to make it forget the name; else 0. */
  readonly parentId: number;
  readonly name: PathString;
  readonly path: PathString;
  readonly ino: string;
  readonly owner: string;
  readonly by: string;
  readonly why: LostWhy;
}

/** What another thread does for the view with what would be lost. */
export interface Rescue {
  /** `error` null: done. */
  fresh(job: FreshJob, done: (error: string | null) => void): void;
  /** Walks the tree; `done` with the paths of all files that somebody can write to, or null when the walk was cut short. */
  findWriters(done: (paths: readonly PathString[] | null) => void): void;
  /** Tells the broker that these records are answered; `still` takes the place of one for the whole volume. */
  cleaned(ids: readonly string[], still: readonly PathString[]): void;
}

/** A writer that is just going needs a moment: the kernel closes a file after it says so. */
const LOOKS_MS = [1, 4, 10, 25];
/** Between two tries to make a fresh inode, growing. */
const AGAIN_MS_MIN = 100;
const AGAIN_MS_MAX = 5000;
/** The tree is walked once the first opens after a death are served. */
const WALK_AFTER_MS = 1000;
const WALK_AGAIN_MS = 10_000;
const BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS;

interface Admission {
  readonly targets: readonly Target[];
  readonly owner: string;
  /** null: without limit. */
  readonly untilMs: number | null;
  /** The asker has given up. */
  readonly over: () => boolean;
  readonly done: (refusal: { code: ErrorCode; message: string } | null) => void;
}

export class UncleanPaths {
  readonly #tree: Tree;
  readonly #clock: ViewClock;
  readonly #events: ViewEvents;
  readonly #rescue: Rescue;
  readonly #paths = new Map<PathString, UncleanPath>();
  #whole: UncleanPath | null = null;
  #walking = false;
  /** A directory was renamed while the tree was walked: what lay in it may have been missed. */
  #walkSpoilt = false;

  constructor(parts: { tree: Tree; clock: ViewClock; events: ViewEvents; rescue: Rescue }) {
    this.#tree = parts.tree;
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#rescue = parts.rescue;
  }

  /** Nothing is unclean: there is nothing to look at. */
  get idle(): boolean {
    return this.#whole === null && this.#paths.size === 0;
  }

  add(records: readonly UncleanPath[]): void {
    for (const record of records)
      if (record.path !== '' || record.scope === 'file') this.#paths.set(record.path, record);
      else if (record.id !== this.#whole?.id) {
        this.#whole = record;
        this.#paths.clear();
        this.#walkLater(WALK_AFTER_MS);
      }
  }

  /** A new session: the broker tells all there is. */
  reset(records: readonly UncleanPath[]): void {
    this.#paths.clear();
    if (!records.some(({ id }) => id === this.#whole?.id)) this.#whole = null;
    this.add(records);
  }

  directoryMoved(): void {
    this.#walkSpoilt = true;
  }

  /** Looks at once at what these targets touch; false: somebody may still write there. */
  isClean(targets: readonly Target[]): boolean {
    return this.idle || this.#firstBusy(targets) === null;
  }

  /** Lets a new holder in as soon as nobody else can write to what it was granted. */
  admit(admission: Admission): void {
    this.#look(admission, 0, AGAIN_MS_MIN);
  }

  #look(admission: Admission, looks: number, againMs: number): void {
    if (admission.over()) return;
    const path = this.#firstBusy(admission.targets);
    if (path === null) return admission.done(null);
    const waitMs = LOOKS_MS[looks];
    if (waitMs !== undefined && !this.#hasLostWriter(path))
      this.#clock.after(waitMs, () => this.#look(admission, looks + 1, againMs));
    else this.#replace(admission, path, againMs);
  }

  #replace(admission: Admission, path: PathString, againMs: number): void {
    const record = this.#paths.get(path) ?? this.#whole;
    const job = record === null ? null : this.#job(path, record, admission.owner);
    if (job === null || typeof job === 'string')
      return this.#stuck(admission, path, job ?? 'it moved', againMs);
    this.#rescue.fresh(job, (error) => {
      if (error !== null) return this.#stuck(admission, path, error, againMs);
      this.#adopt(path);
      this.#setClean(path, null);
      this.#look(admission, 0, AGAIN_MS_MIN);
    });
  }

  #stuck(admission: Admission, path: PathString, why: string, againMs: number): void {
    const nowMs = this.#clock.nowMs();
    const record = this.#paths.get(path) ?? this.#whole;
    const whose = record === null || record.owner === '' ? 'somebody whose view died' : record.owner;
    const message = `${whose} may still write to it, and that cannot be kept apart (${why}): ${admission.owner} waits`;
    if (againMs === AGAIN_MS_MIN) this.#events.note(path, 'kept_waiting', admission.owner, message);
    if (admission.untilMs !== null && nowMs >= admission.untilMs)
      return admission.done({ code: 'timeout', message: `${path}: ${message}.` });
    const leftMs = admission.untilMs === null ? againMs : Math.min(againMs, admission.untilMs - nowMs);
    this.#clock.after(leftMs, () =>
      this.#look(admission, LOOKS_MS.length, Math.min(againMs * 2, AGAIN_MS_MAX)),
    );
  }

  #job(path: PathString, { why, owner }: UncleanPath, by: string): FreshJob | string {
    const slash = path.lastIndexOf('/');
    const parent = slash < 0 ? '' : path.slice(0, slash);
    const name = path.slice(slash + 1);
    const flags = sys.O_PATH | sys.O_DIRECTORY | sys.O_CLOEXEC;
    const parentFd = sys.openat2(this.#tree.root.fd, parent === '' ? '.' : parent, flags, 0, BENEATH);
    if (parentFd < 0) return sys.errnoName(parentFd);
    const error = sys.statx(parentFd, name, sys.AT_SYMLINK_NOFOLLOW, scratch);
    if (error < 0) {
      sys.close(parentFd);
      return sys.errnoName(error);
    }
    const node = this.#find(path);
    if (node !== null) this.#tree.pin(node); // whoever still has it open goes on with it
    const parentId = this.#find(parent)?.id ?? 0;
    const whose = node === null ? undefined : [...node.handles].find((h) => h.lost && h.writes)?.owner;
    const reason: LostWhy = why === 'released' ? 'session_lost' : why;
    return {
      parentFd,
      parentId,
      name,
      path,
      ino: String(scratch.ino),
      owner: whose ?? owner,
      by,
      why: reason,
    };
  }

  /** The name leads to another inode now. */
  #adopt(path: PathString): void {
    const slash = path.lastIndexOf('/');
    const parent = this.#find(slash < 0 ? '' : path.slice(0, slash));
    if (parent === null) return;
    const found = this.#tree.lookup(parent, path.slice(slash + 1), scratch);
    if (typeof found !== 'number') this.#tree.release(found);
  }

  #firstBusy(targets: readonly Target[]): PathString | null {
    for (const target of targets) {
      if (target.path.startsWith('#ino/')) continue;
      if (target.scope === 'file') {
        if (this.#isBusy(target.path)) return target.path;
      } else
        for (const path of [...this.#paths.keys()])
          if (overlaps({ path, scope: 'file' }, target) && this.#isBusy(path)) return path;
    }
    return null;
  }

  /** True while somebody other than this view's holders may write to what stands at a path. */
  #isBusy(path: PathString): boolean {
    const record = this.#paths.get(path) ?? this.#whole;
    if (record === null) return false;
    const node = this.#find(path);
    if (node !== null) {
      if (node.isDirectory || node.isSymlink) return false;
      if (record === this.#whole && node.cleanSince === record.id) return false;
      if (this.#hasLostWriter(path)) return true;
      // Whoever holds it now was let in after somebody looked.
      for (const handle of node.handles) if (handle.writes && !handle.lost) return false;
    }
    const writers = this.#probe(path);
    if (writers === 'some' || writers === 'unknown') return true;
    this.#setClean(path, node);
    return false;
  }

  /** A handle of this very view whose lock was broken: without passthrough its fellows share its pages. */
  #hasLostWriter(path: PathString): boolean {
    for (const handle of this.#find(path)?.handles ?? []) if (handle.lost && handle.writes) return true;
    return false;
  }

  #probe(path: PathString): ReturnType<typeof probeWriters> {
    const found = sys.openat2(
      this.#tree.root.fd,
      path,
      sys.O_PATH | sys.O_NOFOLLOW | sys.O_CLOEXEC,
      0,
      BENEATH,
    );
    if (found < 0) return 'none';
    let fd = -1;
    if (sys.fstatx(found, scratch) === 0 && (scratch.mode & sys.S_IFMT) === sys.S_IFREG)
      fd = sys.openat(sys.AT_FDCWD, `/proc/self/fd/${found}`, sys.O_RDONLY | sys.O_NONBLOCK | sys.O_CLOEXEC);
    sys.close(found);
    // Who may not even read it has no writer here either: all that is open in a view was opened by its process.
    if (fd < 0) return 'none';
    const writers = probeWriters(fd);
    sys.close(fd);
    return writers;
  }

  #setClean(path: PathString, node: Node | null): void {
    if (node !== null && this.#whole !== null) node.cleanSince = this.#whole.id;
    const record = this.#paths.get(path);
    if (record === undefined) return;
    this.#paths.delete(path);
    this.#rescue.cleaned([record.id], []);
  }

  /** The node at a path, if it is known; no system call. */
  #find(path: PathString): Node | null {
    let node: Node | undefined = this.#tree.root;
    if (path === '') return node;
    for (const name of path.split('/')) {
      node = node.children?.get(name);
      if (node === undefined) return null;
    }
    return node;
  }

  // ------------------------------------------------------------ a whole volume

  #walkLater(delayMs: number): void {
    if (this.#walking) {
      this.#walkSpoilt = true;
      return;
    }
    this.#walking = true;
    this.#clock.after(delayMs, () => {
      const whole = this.#whole;
      this.#walkSpoilt = false;
      if (whole === null) this.#walking = false;
      else this.#rescue.findWriters((paths) => this.#walked(whole, paths));
    });
  }

  #walked(whole: UncleanPath, paths: readonly PathString[] | null): void {
    this.#walking = false;
    if (this.#whole === null) return;
    if (paths === null || this.#walkSpoilt || this.#whole !== whole) return this.#walkLater(WALK_AGAIN_MS);
    const still = paths.filter((path) => this.#isBusy(path));
    this.#whole = null;
    // Until the broker names them: its records have ids that can be reported.
    for (const path of still) this.#paths.set(path, { ...whole, path, scope: 'file' });
    this.#rescue.cleaned([whole.id], still);
  }
}
