/**
 * The folder `<root>/.gate/lost/`, reached by the root's descriptor: what would be lost is kept there, on the same file system, by
 * name. It is made when the first thing is kept, and not before: mounting alone never touches the tree. The view shows
 * a virtual `.gate` in its place; git ignores it (`.gate/.gitignore`); mode 0700, because what is in it may have stood in a closed folder.
 *
 * All calls block. Failures are LostErrors; then nothing has changed.
 */
import { randomBytes } from 'node:crypto';
import { decodePath, type PathString } from '../../base/bytes.ts';
import * as sys from '../../sys/index.ts';
import { copyAttributes, copyContent, hashOf, LostError, must, probeWriters } from './content.ts';
import {
  GATE_DIRECTORY,
  isLostId,
  LOST_DIRECTORY,
  type LostRecord,
  lostId,
  parseRecord,
  RECORD_SUFFIX,
} from './record.ts';

const {
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
} = sys;
/** No id: those have a dash. */
const WARNING = 'warning';
const RECORD_BYTES_MAX = 256 * 1024;

/** What a record says besides what the folder finds out itself. */
export type About = Pick<LostRecord, 'path' | 'why' | 'owner' | 'by'>;

/** Something that is kept, and its file as it is now. */
export interface Kept {
  readonly record: LostRecord;
  readonly sizeBytes: number;
  /** What it takes on the disk. */
  readonly diskBytes: number;
  readonly mtimeMs: number;
}

export class LostFolder {
  readonly #rootFd: number;
  readonly #wallMs: () => number;
  readonly #stat = new sys.StatBuf();
  /** Of `.gate/lost`, once it is there. */
  #fd = -1;

  /** `rootFd` stays the caller's. */
  constructor(rootFd: number, wallMs: () => number) {
    this.#rootFd = rootFd;
    this.#wallMs = wallMs;
  }

  /** Opens the folder when it exists; false: nothing was ever kept. */
  open(): boolean {
    if (this.#fd >= 0) {
      // Somebody may have removed it meanwhile.
      if (sys.fstatx(this.#fd, this.#stat) === 0 && this.#stat.nlink > 0) return true;
      this.close();
    }
    const gate = sys.openat(this.#rootFd, GATE_DIRECTORY, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (gate < 0) return false;
    const fd = sys.openat(gate, LOST_DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    sys.close(gate);
    if (fd < 0) return false;
    this.#fd = fd;
    return true;
  }

  close(): void {
    if (this.#fd >= 0) sys.close(this.#fd);
    this.#fd = -1;
  }

  /** A descriptor of the folder, for calls beside this class. */
  get fd(): number {
    return this.#fd;
  }

  /** Opens the folder, and makes it when it is not there; it belongs to whom the root belongs. */
  ensure(): void {
    if (this.open()) return;
    must('stat', sys.fstatx(this.#rootFd, this.#stat));
    const { uid, gid } = this.#stat;
    const gate = this.#directory(this.#rootFd, GATE_DIRECTORY, 0o755, uid, gid);
    try {
      const ignore = sys.openat(
        gate,
        '.gitignore',
        O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
        0o644,
      );
      if (ignore >= 0) {
        sys.write(ignore, Buffer.from('*\n'));
        sys.fchownat(ignore, '', uid, gid, sys.AT_EMPTY_PATH);
        sys.close(ignore);
      }
      this.#fd = this.#directory(gate, LOST_DIRECTORY, 0o700, uid, gid);
    } finally {
      sys.close(gate);
    }
  }

  #directory(parent: number, name: string, mode: number, uid: number, gid: number): number {
    const made = sys.mkdirat(parent, name, mode);
    if (made < 0 && made !== -sys.EEXIST) throw new LostError(`make ${name}`, made);
    const fd = must(
      `open ${name}`,
      sys.openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
    );
    if (made === 0) {
      sys.fchmod(fd, mode); // whatever the umask
      sys.fchownat(fd, '', uid, gid, sys.AT_EMPTY_PATH);
    }
    return fd;
  }

  newId(): string {
    return lostId(this.#wallMs(), randomBytes(5).toString('hex'));
  }

  /**
   * Gives a name a fresh inode with the same content and attributes, and keeps the old inode. The name must lead to the
   * inode `ino`, which must have no other name.
   */
  freshInode(parentFd: number, name: PathString, ino: string, about: About): LostRecord {
    const old = must('open', sys.openat(parentFd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    try {
      this.#checkOnlyName(old, ino);
      this.ensure();
      const id = this.newId();
      const fresh = must(
        'make a fresh file',
        sys.openat(this.#fd, id, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600),
      );
      try {
        const sizeBytes = copyContent(old, fresh);
        const hash = hashOf(fresh);
        copyAttributes(old, fresh);
        // The old content was on the disk: the name must not lead to less after a power failure.
        must('fsync', sys.fsync(fresh));
        this.#checkOnlyName(old, ino);
        const { mtimeSec, mtimeNsec } = this.#stat;
        const mtimeMs = mtimeSec * 1000 + mtimeNsec / 1e6;
        const keptAtMs = this.#wallMs();
        const record: LostRecord = {
          ...about,
          id,
          state: 'watched',
          keptAtMs,
          ino,
          sizeBytes,
          mtimeMs,
          hash,
        };
        this.write(record);
        this.#exchange(parentFd, name, id);
        return record;
      } catch (error) {
        sys.unlinkat(this.#fd, id, 0);
        sys.unlinkat(this.#fd, id + RECORD_SUFFIX, 0);
        throw error;
      } finally {
        sys.close(fresh);
      }
    } finally {
      sys.close(old);
    }
  }

  /** Fills the stat buffer. */
  #checkOnlyName(fd: number, ino: string): void {
    const stat = this.#stat;
    must('stat', sys.fstatx(fd, stat));
    if (String(stat.ino) !== ino || (stat.mode & sys.S_IFMT) !== sys.S_IFREG)
      throw new LostError('the name leads elsewhere by now', sys.ESTALE);
    if (stat.nlink > 1) throw new LostError('it has several names', sys.EMLINK);
    if (stat.nlink === 0) throw new LostError('it has no name any more', sys.ESTALE);
  }

  /** The fresh file `id` and the old one at `name` change places, at once. */
  #exchange(parentFd: number, name: PathString, id: string): void {
    const error = sys.renameat2(this.#fd, id, parentFd, name, sys.RENAME_EXCHANGE);
    if (error === 0) return;
    if (error !== -sys.EINVAL && error !== -sys.ENOSYS) throw new LostError('change places', error);
    // A file system without RENAME_EXCHANGE: the old inode gets its second name first, so that it is never without one.
    const fresh = `${id}.fresh`;
    must('rename', sys.renameat2(this.#fd, id, this.#fd, fresh, 0));
    const linked = sys.linkat(parentFd, name, this.#fd, id, 0);
    const renamed = linked < 0 ? linked : sys.renameat2(this.#fd, fresh, parentFd, name, 0);
    if (renamed === 0) return;
    sys.unlinkat(this.#fd, fresh, 0);
    throw new LostError('change places', renamed);
  }

  /**
   * Keeps the inode behind `pathFd` (an O_PATH descriptor), which is about to lose its last name, by one more name. Cheap: no
   * content is read. Who calls it for `watched` adds the hash later.
   */
  keepInode(pathFd: number, about: About, state: LostRecord['state']): LostRecord {
    this.ensure();
    const stat = this.#stat;
    must('stat', sys.fstatx(pathFd, stat));
    const id = this.newId();
    const record: LostRecord = {
      ...about,
      id,
      state,
      keptAtMs: this.#wallMs(),
      ino: String(stat.ino),
      sizeBytes: stat.size,
      mtimeMs: stat.mtimeSec * 1000 + stat.mtimeNsec / 1e6,
    };
    must('link', sys.linkat(sys.AT_FDCWD, `/proc/self/fd/${pathFd}`, this.#fd, id, sys.AT_SYMLINK_FOLLOW));
    this.write(record);
    return record;
  }

  /** Keeps a copy of what the file behind `fd` (open for reading) has now. */
  keepCopy(fd: number, about: About): LostRecord {
    this.ensure();
    const stat = this.#stat;
    must('stat', sys.fstatx(fd, stat));
    const ino = String(stat.ino);
    const mtimeMs = stat.mtimeSec * 1000 + stat.mtimeNsec / 1e6;
    const id = this.newId();
    const copy = must('make a copy', sys.openat(this.#fd, id, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600));
    try {
      const sizeBytes = copyContent(fd, copy);
      copyAttributes(fd, copy);
      const keptAtMs = this.#wallMs();
      const record: LostRecord = { ...about, id, state: 'sweep', keptAtMs, ino, sizeBytes, mtimeMs };
      this.write(record);
      return record;
    } catch (error) {
      sys.unlinkat(this.#fd, id, 0);
      throw error;
    } finally {
      sys.close(copy);
    }
  }

  /** Writes a record, in place of the one before. */
  write(record: LostRecord): void {
    const name = record.id + RECORD_SUFFIX;
    const part = `${record.id}.part`;
    const flags = O_WRONLY | O_CREAT | sys.O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
    const fd = must('make a record', sys.openat(this.#fd, part, flags, 0o600));
    const bytes = Buffer.from(`${JSON.stringify(record, null, 2)}\n`);
    const put = sys.write(fd, bytes);
    sys.close(fd);
    const error =
      put === bytes.length ? sys.renameat2(this.#fd, part, this.#fd, name, 0) : Math.min(put, -sys.ENOSPC);
    if (error === 0) return;
    sys.unlinkat(this.#fd, part, 0);
    throw new LostError('write a record', error);
  }

  /** Opens what is kept, for reading: -errno when it is gone. */
  openKept(id: string): number {
    return sys.openat(this.#fd, id, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  }

  /** Looks at a `watched` one: what has become of it. `undefined`: nobody knows yet. */
  look(record: LostRecord): 'unchanged' | 'changed' | 'gone' | undefined {
    const fd = this.openKept(record.id);
    if (fd < 0) return fd === -sys.ENOENT ? 'gone' : undefined;
    try {
      const writers = probeWriters(fd);
      const stat = this.#stat;
      must('stat', sys.fstatx(fd, stat));
      const mtimeMs = stat.mtimeSec * 1000 + stat.mtimeNsec / 1e6;
      const touched = stat.size !== record.sizeBytes || mtimeMs !== record.mtimeMs;
      if (!touched && writers !== 'none') return undefined;
      // The times tell nothing of what a mapping writes to pages that were dirty already: the content decides.
      if (stat.size !== record.sizeBytes || record.hash === undefined || hashOf(fd) !== record.hash)
        return 'changed';
      return writers === 'none' ? 'unchanged' : undefined;
    } finally {
      sys.close(fd);
    }
  }

  /** Its size or modification time is not the record's any more. */
  isTouched({ id, sizeBytes, mtimeMs }: LostRecord): boolean {
    if (sys.statx(this.#fd, id, sys.AT_SYMLINK_NOFOLLOW, this.#stat) < 0) return true;
    const { size, mtimeSec, mtimeNsec } = this.#stat;
    return size !== sizeBytes || mtimeSec * 1000 + mtimeNsec / 1e6 !== mtimeMs;
  }

  /** The hash of a kept file as it is now. */
  hashOf(id: string): string {
    const fd = must('open', this.openKept(id));
    try {
      return hashOf(fd);
    } finally {
      sys.close(fd);
    }
  }

  remove(id: string): void {
    sys.unlinkat(this.#fd, id, 0);
    sys.unlinkat(this.#fd, id + RECORD_SUFFIX, 0);
  }

  /** Says to whoever looks (gate status) that something will be pruned; null: nothing will. */
  warn(text: string | null): void {
    if (text === null) sys.unlinkat(this.#fd, WARNING, 0);
    else {
      const fd = sys.openat(
        this.#fd,
        WARNING,
        O_WRONLY | O_CREAT | sys.O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
        0o600,
      );
      if (fd < 0) return;
      sys.write(fd, Buffer.from(text));
      sys.close(fd);
    }
  }

  /** What `warn` said last. */
  warning(): string | undefined {
    return this.#text(WARNING);
  }

  #text(name: string): string | undefined {
    const fd = sys.openat(this.#fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return undefined;
    const bytes = Buffer.alloc(RECORD_BYTES_MAX);
    const got = sys.pread(fd, bytes, 0);
    sys.close(fd);
    return got < 0 ? undefined : bytes.toString('utf8', 0, got);
  }

  /** Everything that is kept, the oldest first. A file whose record cannot be read is listed with what its inode tells. */
  list(): Kept[] {
    if (!this.open()) return [];
    const kept: Kept[] = [];
    for (const id of this.#ids()) {
      const error = sys.statx(this.#fd, id, sys.AT_SYMLINK_NOFOLLOW, this.#stat);
      if (error < 0) continue;
      const { size, blocks, mtimeSec, mtimeNsec, ino } = this.#stat;
      const mtimeMs = mtimeSec * 1000 + mtimeNsec / 1e6;
      const record = this.record(id) ?? unknownRecord(id, String(ino), size, mtimeMs);
      kept.push({ record, sizeBytes: size, diskBytes: blocks * 512, mtimeMs });
    }
    return kept;
  }

  #ids(): string[] {
    const reader = new sys.DirentReader(64 * 1024);
    const ids: string[] = [];
    sys.lseek(this.#fd, 0, sys.SEEK_SET);
    while (must('list', reader.fill(this.#fd)) > 0)
      while (reader.next()) {
        const name = decodePath(Buffer.from(reader.nameBytes));
        if (isLostId(name)) ids.push(name);
      }
    return ids.sort();
  }

  record(id: string): LostRecord | undefined {
    const text = this.#text(id + RECORD_SUFFIX);
    return text === undefined ? undefined : parseRecord(id, text);
  }
}

function unknownRecord(id: string, ino: string, sizeBytes: number, mtimeMs: number): LostRecord {
  const keptAtMs = Number.parseInt(id.split('-', 1)[0]!, 36);
  const unknown = { path: '', owner: '', by: '', why: 'session_lost' as const };
  return { ...unknown, id, state: 'conflict', keptAtMs, ino, sizeBytes, mtimeMs };
}
