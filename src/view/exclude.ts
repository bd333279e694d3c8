/**
 * What is not locked. Decided per name, by the first of these that speaks:
 *
 * 1. built-in defaults: `.gate/`, `.git/`, `node_modules/`, editor litter, logs, databases that lock for themselves;
 * 2. `.gateignore` at the volume's root (gitignore syntax; `!name` locks a built-in default after all);
 * 3. what git ignores: nested `.gitignore`s and `.git/info/exclude`, unless `lockIgnored`.
 *
 * What is inside an excluded directory is excluded. A name that git tracks although a pattern matches it is
 * excluded too: the view does not read git's index.
 */
import { decodePath, type PathString } from '../base/bytes.ts';
import * as sys from '../sys/index.ts';
import { IgnoreRules } from './gitignore.ts';
import type { Node } from './node.ts';
import type { Tree } from './tree.ts';

const DIRECTORIES = new Set(['.git', '.gate', 'node_modules']);
const LITTER = /^(?:.*\.sw[po]|\.#.*|#.*#|.*~|4913|.*\.log|.*\.sqlite.*|.*\.db|.*-(?:wal|shm|journal))$/s;
const RULE_FILE_BYTES_MAX = 1024 * 1024;

export interface ExcludeOptions {
  /** Lock what git ignores too. */
  readonly lockIgnored: boolean;
}

interface Level {
  /** Of the directory in which the rules stand, with a trailing slash, or ''. */
  readonly prefix: PathString;
  readonly rules: IgnoreRules;
}

/** Of one directory. */
export interface Rules {
  readonly version: number;
  readonly path: PathString;
  /** The directory itself is excluded, and so is all below it. */
  readonly excluded: boolean;
  /** `.gitignore` levels that apply in it, the deepest first. */
  readonly git: readonly Level[];
}

export class Exclusions {
  readonly #tree: Tree;
  readonly #options: ExcludeOptions;
  #gateignore: IgnoreRules | null = null;
  /** Rules computed under an older version are computed again. */
  #version = 1;
  #loadedVersion = 0;

  constructor(tree: Tree, options: ExcludeOptions) {
    this.#tree = tree;
    this.#options = options;
  }

  /** Grows with every change of the rules. */
  get version(): number {
    return this.#version;
  }

  /** A rule file may have changed, or a directory moved: look again at the next question. */
  changed(): void {
    this.#version++;
  }

  /** True when a change of this name changes the rules. */
  isRuleFile(parent: Node, name: PathString): boolean {
    return (
      name === '.gitignore' ||
      (name === '.gateignore' && parent === this.#tree.root) ||
      (name === 'exclude' && parent.dentry?.name === 'info')
    );
  }

  /** True when `name` in `parent` takes no locks. */
  excludes(parent: Node, name: PathString, directory: boolean): boolean {
    const rules = this.#rulesOf(parent);
    return rules === null || rules.excluded || this.#matches(rules, name, directory);
  }

  #rulesOf(directory: Node): Rules | null {
    if (directory.rules !== null && directory.rules.version === this.#version) return directory.rules;
    let rules: Rules;
    if (directory === this.#tree.root) {
      if (this.#loadedVersion !== this.#version) this.#loadRoot();
      rules = { version: this.#version, path: '', excluded: false, git: this.#levels([], '', directory) };
    } else {
      const dentry = directory.dentry;
      if (dentry === undefined) return null; // removed: there is nothing to lock in it
      const above = this.#rulesOf(dentry.parent);
      if (above === null) return null;
      const path = above.path === '' ? dentry.name : `${above.path}/${dentry.name}`;
      const excluded = above.excluded || this.#matches(above, dentry.name, true);
      rules = {
        version: this.#version,
        path,
        excluded,
        git: excluded ? [] : this.#levels(above.git, `${path}/`, directory),
      };
    }
    directory.rules = rules;
    return rules;
  }

  #matches(rules: Rules, name: PathString, directory: boolean): boolean {
    const relative = rules.path === '' ? name : `${rules.path}/${name}`;
    const verdict = this.#gateignore?.test(relative, directory);
    if (verdict !== undefined) return verdict === 'ignored';
    if (directory ? DIRECTORIES.has(name) : LITTER.test(name)) return true;
    for (const level of rules.git) {
      const said = level.rules.test(relative.slice(level.prefix.length), directory);
      if (said !== undefined) return said === 'ignored';
    }
    return false;
  }

  #loadRoot(): void {
    this.#loadedVersion = this.#version;
    const text = this.#read(this.#tree.root, '.gateignore');
    this.#gateignore = text === null ? null : new IgnoreRules(text);
  }

  #levels(above: readonly Level[], prefix: PathString, directory: Node): readonly Level[] {
    if (this.#options.lockIgnored) return above;
    const levels = [...above];
    if (directory === this.#tree.root) {
      const exclude = this.#read(directory, '.git/info/exclude');
      if (exclude !== null) levels.unshift({ prefix, rules: new IgnoreRules(exclude) });
    }
    const text = this.#read(directory, '.gitignore');
    if (text !== null) levels.unshift({ prefix, rules: new IgnoreRules(text) });
    return levels;
  }

  #read(directory: Node, name: PathString): string | null {
    const parentFd = this.#tree.fd(directory);
    if (parentFd < 0) return null;
    const fd = sys.openat(parentFd, name, sys.O_RDONLY | sys.O_NOFOLLOW | sys.O_NONBLOCK | sys.O_CLOEXEC, 0);
    if (fd < 0) return null;
    const bytes = Buffer.alloc(64 * 1024);
    const parts: Buffer[] = [];
    let total = 0;
    for (;;) {
      const got = sys.pread(fd, bytes, total);
      if (got <= 0 || total > RULE_FILE_BYTES_MAX) break;
      parts.push(Buffer.from(bytes.subarray(0, got)));
      total += got;
    }
    sys.close(fd);
    return decodePath(Buffer.concat(parts));
  }
}
