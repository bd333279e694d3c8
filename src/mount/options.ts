import type { LogLevel } from '../base/log.ts';
import type { Bounds } from '../view/lost/bounds.ts';
import type { StalePolicy } from '../view/stale.ts';

/** How a view comes over its own root. */
export interface InPlace {
  /** What a mount of ours, whose process is gone, left there gives way. */
  readonly replace: boolean;
  /** A descriptor of the root from before the dead mount. */
  readonly rootFd?: number | undefined;
  /** `DEVICE:INODE` that the root must have: what is there now may be something else. */
  readonly rootId?: string | undefined;
}

export interface MountOptions {
  /** The directory to show. */
  readonly root: string;
  /** An existing directory. */
  readonly mountPoint: string;
  /** The broker's Unix socket; or its address and token. */
  readonly brokerSocket?: string;
  readonly brokerUrl?: string;
  readonly token?: string | undefined;
  /** One owner for everybody in this view. */
  readonly owner?: string | undefined;
  /** Wait limit of opens and path operations; null: none. */
  readonly acquireTimeoutMs: number | null;
  /** Lock what git ignores too. */
  readonly lockIgnored: boolean;
  readonly scanners: readonly string[];
  /** Agent CLIs; undefined: the known ones; empty: none. */
  readonly agents: readonly string[] | undefined;
  /** How long the kernel may remember names and attributes; undefined: as validity.ts decides. */
  readonly attrValidMs?: number | undefined;
  /** The view is mounted over its own root. */
  readonly inPlace?: InPlace | undefined;
  /**
   * Follow what is changed beside the view: where that is possible (not in place, where nobody changes anything), always (an error where it is not
   * possible), or never. Default `auto`.
   */
  readonly watch?: 'auto' | 'on' | 'off';
  /** Kernel passthrough: where it is to be had, or never. Default `auto`. */
  readonly passthrough?: 'auto' | 'off';
  /** Locks decided by the view itself while nobody else has business in its tree. Default `auto`. */
  readonly delegation?: 'auto' | 'off';
  /** What happens when an actor writes over a change that it has not seen. Default `auto`. */
  readonly staleWrites?: StalePolicy;
  /** How much of what would be lost is kept, and for how long. */
  readonly bounds?: Bounds;
  /** A Unix socket at which remote clients find the view, and how long their sessions outlive a connection. */
  readonly serve?: { readonly socket: string; readonly ttlMs: number } | undefined;
  readonly logLevel: LogLevel;
}

/**
 * Programs that pass O_NONBLOCK to open(2) only so that a FIFO does not stop them: GNU touch, truncate, tar, grep -r, … For
 * them it does not mean that they would rather fail than wait for a lock.
 */
export const NONBLOCK_WAITERS = [
  'bsdcpio',
  'bsdtar',
  'cpio',
  'cp',
  'dd',
  'du',
  'egrep',
  'fgrep',
  'find',
  'grep',
  'install',
  'mv',
  'pax',
  'rsync',
  'shred',
  'star',
  'tail',
  'tar',
  'touch',
  'truncate',
] as const;

/** Agent CLIs that are one actor with all their descendants. */
export const KNOWN_AGENTS = [
  'aider',
  'amp',
  'claude',
  'codex',
  'copilot',
  'crush',
  'cursor-agent',
  'droid',
  'gemini',
  'goose',
  'opencode',
  'qwen',
] as const;
