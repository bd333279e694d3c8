import type { Caller } from '../view/actors.ts';
import type { View } from '../view/view.ts';
import type { SftpActors } from './actors.ts';
import type { Walker } from './walk.ts';

/** What all connections of one server have in common. */
export interface Shared {
  readonly view: View;
  readonly walker: Walker;
  readonly actors: SftpActors;
  /** Whose the files are that are made: the server's own user. */
  readonly uid: number;
  readonly gid: number;
  /** Bits that no new file has: the server's umask, as with OpenSSH's server. */
  readonly umask: number;
  readonly wallMs: () => number;
  /** Content of `.gate/about`. */
  readonly about: string;
  /** Content of `.gate/who`. */
  readonly who: (done: (text: string) => void) => void;
  /** fsync(2), elsewhere: 0 or -errno. */
  readonly sync: (fd: number, done: (result: number) => void) => void;
}

export function callerOf({ uid, gid }: Shared, tid: number): Caller {
  return { tid, uid, gid };
}

/** The newest line of what was refused to an owner, without its time; '' when nothing was. */
export function whyOf(view: View, owner: string): string {
  const lines = view.why.text(owner, view.clock.nowMs()).trimEnd().split('\n');
  return /^\d+ s ago: (.*)$/.exec(lines.at(-1) ?? '')?.[1] ?? '';
}
