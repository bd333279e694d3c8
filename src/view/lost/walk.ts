import { decodePath, type PathString } from '../../base/bytes.ts';
import * as sys from '../../sys/index.ts';
import { probeWriters } from './content.ts';
import { GATE_DIRECTORY } from './record.ts';

/** Directories that take no locks wherever they stand, and are large. */
const SKIPPED = new Set(['.git', 'node_modules', GATE_DIRECTORY]);
const DT_DIR = 4;
const DT_REG = 8;
const DT_UNKNOWN = 0;
/** Paths found; a tree in which more are written to is not worth a list. */
const FOUND_MAX = 1000;

/**
 * A walk through a tree for the files that somebody can write to, in steps. Stays on the root's file system and follows no
 * symlink. Blocks: not for the reactor's thread.
 */
export class WriterWalk {
  readonly #rootFd: number;
  readonly #todo: PathString[] = [''];
  #files: PathString[] = [];
  readonly found: PathString[] = [];
  /** Why the walk was cut short. */
  failed: string | null = null;

  constructor(rootFd: number) {
    this.#rootFd = rootFd;
  }

  /** Looks at so many files; false: it is over. */
  step(files: number): boolean {
    for (let left = files; left > 0; ) {
      const file = this.#files.pop();
      if (file !== undefined) {
        this.#look(file);
        left--;
      } else {
        const directory = this.#todo.pop();
        if (directory === undefined) return false;
        this.#read(directory);
        left--;
      }
      if (this.found.length > FOUND_MAX) this.failed = `more than ${FOUND_MAX} files are being written to`;
      if (this.failed !== null) return false;
    }
    return true;
  }

  #open(path: PathString, flags: number): number {
    const resolve = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_NO_XDEV;
    return sys.openat2(this.#rootFd, path === '' ? '.' : path, flags | sys.O_CLOEXEC, 0, resolve);
  }

  #read(directory: PathString): void {
    const fd = this.#open(directory, sys.O_RDONLY | sys.O_DIRECTORY);
    if (fd < 0) {
      // Removed meanwhile, or not ours to read: no writer came by this view.
      if (fd === -sys.EMFILE || fd === -sys.ENFILE) this.failed = sys.errnoName(fd);
      return;
    }
    const reader = new sys.DirentReader(64 * 1024);
    while (reader.fill(fd) > 0)
      while (reader.next()) {
        const name = decodePath(Buffer.from(reader.nameBytes));
        if (name === '.' || name === '..') continue;
        const path = directory === '' ? name : `${directory}/${name}`;
        if (reader.type === DT_DIR) {
          if (!SKIPPED.has(name)) this.#todo.push(path);
        } else if (reader.type === DT_REG || reader.type === DT_UNKNOWN) this.#files.push(path);
      }
    sys.close(fd);
  }

  #look(path: PathString): void {
    const fd = this.#open(path, sys.O_RDONLY | sys.O_NOFOLLOW | sys.O_NONBLOCK);
    if (fd < 0) return;
    const stat = new sys.StatBuf();
    const type = sys.fstatx(fd, stat) === 0 ? stat.mode & sys.S_IFMT : 0;
    const writers = type === sys.S_IFREG ? probeWriters(fd) : 'none';
    sys.close(fd);
    if (type === sys.S_IFDIR) this.#todo.push(path); // a file system whose lists tell no types
    if (writers === 'some') this.found.push(path);
    else if (writers === 'unknown') this.failed = 'the file system has no leases';
  }
}
