import type { LogLevel } from '../base/log.ts';
import type { Bounds } from '../view/lost/bounds.ts';

export interface SftpOptions {
  /** The directory to show. */
  readonly root: string;
  /** The Unix socket to listen on. */
  readonly listen: string;
  /** Whom the process becomes, and whose the socket is. Only root may name somebody else. */
  readonly user?: { readonly name: string; readonly uid: number; readonly gid: number };
  /** The broker's Unix socket; or its address and token. */
  readonly brokerSocket?: string;
  readonly brokerUrl?: string;
  readonly token?: string | undefined;
  /** How long an open waits for its lock. More than a client's programs bear, and they hang; see opens.ts. */
  readonly parkMs: number;
  /** Lock what git ignores too. */
  readonly lockIgnored: boolean;
  /** How much of what would be lost is kept, and for how long. */
  readonly bounds: Bounds;
  readonly logLevel: LogLevel;
}

/** Where reads and writes of programs must not hang for long, but most writers are done by then. */
export const PARK_MS = 1500;
/** An invisible caller never waits longer (view.ts). */
export const PARK_MS_MAX = 5000;
