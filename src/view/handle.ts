import type { Actor } from './actors.ts';
import type { Grant } from './locks.ts';
import type { Node } from './node.ts';

/** An open file of the view: from its OPEN to its one RELEASE. */
export class Handle {
  /** Identifies it to the front end. Never used again. */
  readonly id: number;
  readonly node: Node;
  /** open(2) flags, without O_CREAT, O_EXCL, O_TRUNC. */
  readonly flags: number;
  readonly writes: boolean;
  /** Who opened it. */
  readonly owner: string;
  /** Thread group that opened it; 0 unknown. */
  readonly pid: number;
  /** Descriptor of the file below, or -1: passthrough opens one only when something needs it. */
  fd = -1;
  passthrough = false;
  /** The front end that it was opened through. */
  door: unknown = null;
  /** The lock that it holds; null: excluded from locking, or joined another's. */
  grant: Grant | null = null;
  /** Its lock was lost (session gone): reads and writes through it answer ESTALE. */
  lost = false;
  /** It made the file that it is open on. */
  made = false;
  /** Of a writer on a locked path: who it is, and the version of the file that it opened, or that was last known as its own (stale.ts). */
  writer: { readonly actor: Actor; version: string } | null = null;
  /** Content of a virtual file, as it was at open. */
  snapshot: Buffer | null = null;

  constructor(id: number, node: Node, flags: number, writes: boolean, owner: string, pid: number) {
    this.id = id;
    this.node = node;
    this.flags = flags;
    this.writes = writes;
    this.owner = owner;
    this.pid = pid;
  }
}
