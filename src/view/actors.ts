import type { Who } from '../lock/types.ts';

/** Who asks: the thread that the kernel names, and the ids it acts with. */
export interface Caller {
  /** Thread id; 0: not visible here. */
  readonly tid: number;
  readonly uid: number;
  readonly gid: number;
}

/** An owner of locks: a process, an agent with all its tools, or a name given by `GATE_ACTOR`. */
export interface Actor {
  readonly owner: string;
  /** Thread group. */
  readonly pid: number;
  readonly who: Who;
  /** Of an agent, by name or by program, with all its processes: which of them this is. Absent: an actor of one process. */
  readonly agent?: AgentProcess;
}

export interface AgentProcess {
  /** The one that the others descend from: the agent itself. */
  readonly main: boolean;
  /** Base names of the arguments on its command line: what it was told to work on. */
  readonly names: readonly string[];
}

/**
 * Finds actors. `known` must answer at once; everything else may look into /proc, which can block on the
 * asked process's own locks, and so never happens on the reactor's thread.
 */
export interface ActorSource {
  /** The actor of a thread that was resolved before and has not exited or called exec since; else null. */
  known(caller: Caller): Actor | null;
  resolve(caller: Caller, done: (actor: Actor) => void): void;
  /** True when the caller is in this group, by its own or a supplementary one. */
  inGroup(caller: Caller, gid: number): boolean;
  /** True while a thread is on its way back to us: it runs, wants to run, or waits for something in the kernel. Not for a stopped one. Absent: nobody can tell. */
  isOnItsWay?(tid: number): boolean;
  /** Which of the caller's process and its ancestors have this inode of the view open: their pids. */
  ancestorsWithOpen(caller: Caller, ino: number | bigint, done: (pids: readonly number[]) => void): void;
}

export interface ViewClock {
  nowMs(): number;
  /** Milliseconds since 1970, as file systems stamp changes. Without it every file that was open for writing counts as written. */
  wallMs?(): number;
  after(delayMs: number, run: () => void): { cancel(): void };
}

/** What people may want to know, for the event log. */
export interface ViewEvents {
  /** `whose`: another owner whom it concerns. */
  note(path: string, what: string, owner: string, message: string, whose?: string): void;
}
