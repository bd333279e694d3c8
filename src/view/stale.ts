/**
 * Never write over what you have not seen. An agent reads a file, thinks for a minute, and writes; whoever wrote in between
 * would be lost, and a lock held for each open does not help. So the view remembers which version of a file an actor last saw, and
 * looks at it again when that actor opens the file for writing, truncates it, or renames another over it.
 *
 * An actor saw what it wrote itself, what its main process opened, and what a process of its opened whose command line names
 * the file; not what some `rg` or `tsc` of its swept over. But a process may always write what it has itself just read, as a
 * formatter does.
 *
 * A version is (inode, size, modification time) of the file below, so that changes through another mount, or beside
 * the view, count as well. Appending writes over nothing. What was never seen, and what takes no lock, is not watched. Nothing here is durable: after
 * a restart of the mount nobody has seen anything.
 */
import type { PathString } from '../base/bytes.ts';
import type { StatBuf } from '../sys/index.ts';
import type { Actor, ViewClock } from './actors.ts';

/** `auto`: agents are refused, others are told. `deny`, `warn`: everybody is. */
export type StalePolicy = 'auto' | 'deny' | 'warn' | 'off';

/** Versions remembered for agents, for other processes, and of last writers; the oldest are forgotten first. */
export const STALE_LIMITS = { agents: 65_536, processes: 16_384, writers: 65_536 } as const;

/** The kernel asks twice when it is refused (retry_estale): that is one refusal. */
const SAME_REFUSAL_MS = 1000;
const REFUSALS_MAX = 256;

export interface Verdict {
  readonly deny: boolean;
  /** For a person: who would write over whose change. */
  readonly message: string;
  /** Owner of the change, when it went through this view. */
  readonly whose: string | undefined;
  /** It was said a moment ago. */
  readonly again: boolean;
}

export interface Writer {
  readonly version: string;
  readonly owner: string;
  readonly program: string;
  readonly atMs: number;
}

export class StaleWrites {
  readonly policy: StalePolicy;
  readonly #clock: ViewClock;
  readonly #agents = new Recent<string>(STALE_LIMITS.agents);
  readonly #processes = new Recent<string>(STALE_LIMITS.processes);
  readonly #writers = new Recent<Writer>(STALE_LIMITS.writers);
  readonly #refusals = new Recent<number>(REFUSALS_MAX);

  constructor(policy: StalePolicy, clock: ViewClock) {
    this.policy = policy;
    this.#clock = clock;
  }

  get on(): boolean {
    return this.policy !== 'off';
  }

  /** A process of `actor` opened the file at `path`, in this version. */
  opened(actor: Actor, path: PathString, version: string): void {
    if (!this.on) return;
    if (actor.agent !== undefined && (actor.agent.main || actor.agent.names.includes(baseName(path))))
      this.#agents.set(`${actor.owner}\0${path}`, version);
    else if (actor.pid !== 0) this.#processes.set(`${actor.pid}\0${path}`, version);
  }

  /** `actor` made this version: it wrote the file, or renamed another over it. */
  wrote(actor: Actor, path: PathString, version: string): void {
    if (this.on && actor.agent !== undefined) this.#agents.set(`${actor.owner}\0${path}`, version);
    else if (this.on && actor.pid !== 0) this.#processes.set(`${actor.pid}\0${path}`, version);
    const { owner } = actor;
    this.#writers.set(path, { version, owner, program: actor.who.command ?? '', atMs: this.#clock.nowMs() });
  }

  /** `actor` changed nothing but the times: who had seen the file before has still seen it. */
  touched(actor: Actor, path: PathString, before: string, after: string): void {
    if (this.#agents.get(`${actor.owner}\0${path}`) === before)
      this.#agents.set(`${actor.owner}\0${path}`, after);
    if (this.#processes.get(`${actor.pid}\0${path}`) === before)
      this.#processes.set(`${actor.pid}\0${path}`, after);
    const writer = this.#writers.get(path);
    if (writer?.version === before) this.#writers.set(path, { ...writer, version: after });
  }

  /** Who made the version that is remembered as the latest of a path. */
  lastWriter(path: PathString): Writer | undefined {
    return this.#writers.get(path);
  }

  /** What is to be done when `actor` is about to write over this version; null: nothing is in the way. */
  check(actor: Actor, path: PathString, version: string): Verdict | null {
    const seen = actor.agent === undefined ? undefined : this.#agents.get(`${actor.owner}\0${path}`);
    const read = this.#processes.get(`${actor.pid}\0${path}`);
    if (seen === undefined && read === undefined) return null;
    if (seen === version || read === version) return null;
    const writer = this.#writers.get(path);
    const whose = writer?.version === version ? writer : undefined;
    if (whose?.owner === actor.owner) return null;
    const deny = this.policy === 'deny' || (this.policy === 'auto' && actor.agent !== undefined);
    return {
      deny,
      message: this.#message(whose, deny),
      whose: whose?.owner,
      again: this.#again(actor, path, version),
    };
  }

  #message(writer: Writer | undefined, deny: boolean): string {
    const who =
      writer === undefined
        ? 'it was changed through another mount or beside the view'
        : `${writer.owner}${writer.program === '' ? '' : ` (${writer.program})`} changed it ${seconds(this.#clock.nowMs() - writer.atMs)} s ago`;
    return deny
      ? `${who}, after it was last read here; read it again, then write`
      : `${who}, and that change is written over unseen`;
  }

  #again(actor: Actor, path: PathString, version: string): boolean {
    const key = `${actor.owner}\0${path}\0${version}`;
    const before = this.#refusals.get(key);
    const now = this.#clock.nowMs();
    this.#refusals.set(key, now);
    return before !== undefined && now - before < SAME_REFUSAL_MS;
  }
}

/** The version that these attributes tell of: inode, size and modification time, packed, because every open asks. */
export function versionOf(stat: StatBuf): string {
  const words = stat.words;
  const ino = pack(words[8]!, words[9]!);
  return ino + pack(words[10]!, words[11]!) + pack(words[28]!, words[30]!);
}

/** Two numbers of 32 bits as four UTF-16 units. */
function pack(a: number, b: number): string {
  return String.fromCharCode(a & 0xffff, a >>> 16, b & 0xffff, b >>> 16);
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(ms < 10_000 ? 1 : 0);
}

function baseName(path: PathString): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** A map that forgets what was set longest ago. */
class Recent<V> {
  readonly #max: number;
  readonly #map = new Map<string, V>();

  constructor(max: number) {
    this.#max = max;
  }

  get(key: string): V | undefined {
    return this.#map.get(key);
  }

  set(key: string, value: V): void {
    this.#map.delete(key);
    this.#map.set(key, value);
    if (this.#map.size > this.#max) this.#map.delete(this.#map.keys().next().value!);
  }
}
