/**
 * What the threads of other processes wait for, as far as /proc says it (proc(5): `syscall`, `stat`, `fd`). Only the prober's
 * thread looks. Whatever cannot be told, or may not be seen, counts as able to go on by itself.
 */
import { lstatSync, readdirSync, readlinkSync } from 'node:fs';
import * as sys from '../sys/index.ts';
import { read, statOf } from './proc.ts';

/** What a blocked thread waits for. */
export type Blocked =
  /** Another thread of its process. */
  | { readonly on: 'threads' }
  /** Anything that it serves: poll, epoll, accept and their like. */
  | { readonly on: 'events' }
  /** Any one of these processes. */
  | { readonly on: 'processes'; readonly pids: readonly number[] }
  /** The process at the other end of a Unix socket, which is this thread's `fd`. */
  | { readonly on: 'socket'; readonly fd: number };

export interface ProcessTable {
  /** Threads of a process; empty: it is gone, or not ours to see. */
  threads(pid: number): readonly number[];
  /** What a thread waits for; null: it runs, or what it waits for cannot be told. */
  blocked(pid: number, tid: number): Blocked | null;
  /** True when a descriptor of the process leads to a file whose path ends with `/path`. */
  hasOpen(pid: number, path: string): boolean;
  /** True when `pid` has a socket whose other end is descriptor `fd` of `client`. */
  serves(pid: number, client: number, fd: number): boolean;
}

type Kind = 'read' | 'write' | 'wait4' | 'waitid' | 'futex' | 'events';

/** System calls that block, by number: [x86_64, arm64] (asm/unistd.h). -1: it has no such call. */
const CALLS: readonly (readonly [Kind, number, number])[] = [
  ['read', 0, 63],
  ['read', 19, 65], // readv
  ['read', 45, 207], // recvfrom
  ['read', 47, 212], // recvmsg
  ['write', 1, 64],
  ['write', 20, 66], // writev
  ['wait4', 61, 260],
  ['waitid', 247, 95],
  ['futex', 202, 98],
  ['events', 7, -1], // poll
  ['events', 271, 73], // ppoll
  ['events', 23, -1], // select
  ['events', 270, 72], // pselect6
  ['events', 232, -1], // epoll_wait
  ['events', 281, 22], // epoll_pwait
  ['events', 441, 441], // epoll_pwait2
  ['events', 43, 202], // accept
  ['events', 288, 242], // accept4
];
const KINDS = new Map(CALLS.map(([kind, x64, arm64]) => [process.arch === 'arm64' ? arm64 : x64, kind]));
const P_PID = 1;

interface Ends {
  readonly readers: Set<number>;
  readonly writers: Set<number>;
}

/** One look: what it reads about all processes is read once. */
export class ProcProcessTable implements ProcessTable {
  #pipes: Map<string, Ends> | null = null;
  #children: Map<number, number[]> | null = null;

  threads(pid: number): readonly number[] {
    return list(`/proc/${pid}/task`);
  }

  blocked(pid: number, tid: number): Blocked | null {
    const stat = read(`/proc/${pid}/task/${tid}/stat`)?.toString('latin1') ?? '';
    // Only a sleeping thread: not one that runs or is stopped.
    if (stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'S') return null;
    const words = read(`/proc/${pid}/task/${tid}/syscall`)?.toString('latin1').split(' ') ?? [];
    if (words.length < 8) return null;
    const [first = 0, second = 0, , fourth = 0] = words
      .slice(1)
      .map((word) => Number(BigInt.asIntN(32, BigInt(word))));
    switch (KINDS.get(Number(words[0]))) {
      case 'read':
        return this.#onPipe(pid, first, 'writers') ?? onSocket(pid, first);
      case 'write':
        return this.#onPipe(pid, first, 'readers') ?? onSocket(pid, first);
      case 'wait4':
        return this.#onChildren(pid, first > 0 ? first : 0);
      case 'waitid':
        return this.#onChildren(pid, first === P_PID ? second : 0);
      case 'futex':
        return fourth === 0 ? { on: 'threads' } : { on: 'events' };
      case 'events':
        return { on: 'events' };
      default:
        return null;
    }
  }

  hasOpen(pid: number, path: string): boolean {
    return list(`/proc/${pid}/fd`).some((fd) => linkOf(pid, fd)?.endsWith(`/${path}`));
  }

  serves(pid: number, client: number, fd: number): boolean {
    if (linkOf(client, fd)?.startsWith('socket:') !== true) return false;
    const theirs = withDescriptor(client, fd, (socket) => sys.socketName(socket, 'peer'));
    // A pair of sockets without names may be any two.
    if (theirs === null || theirs === '') return false;
    return list(`/proc/${pid}/fd`).some((own) => {
      if (linkOf(pid, own)?.startsWith('socket:') !== true) return false;
      const isOther = (socket: number) =>
        sys.socketPeerPid(socket) === client && sys.socketName(socket, 'own') === theirs;
      return withDescriptor(pid, own, isOther) === true;
    });
  }

  /** Whoever has the other end of a pipe, besides the process itself; null: it is no pipe, or nobody has it. */
  #onPipe(pid: number, fd: number, end: keyof Ends): Blocked | null {
    const link = linkOf(pid, fd);
    if (link?.startsWith('pipe:') !== true) return null;
    this.#pipes ??= allPipes();
    const pids = [...(this.#pipes.get(link)?.[end] ?? [])].filter((other) => other !== pid);
    return pids.length === 0 ? null : { on: 'processes', pids };
  }

  #onChildren(pid: number, child: number): Blocked | null {
    if (child !== 0) return { on: 'processes', pids: [child] };
    this.#children ??= allChildren();
    const pids = this.#children.get(pid) ?? [];
    return pids.length === 0 ? null : { on: 'processes', pids };
  }
}

function onSocket(pid: number, fd: number): Blocked | null {
  return linkOf(pid, fd)?.startsWith('socket:') === true ? { on: 'socket', fd } : null;
}

/** Numbered entries of a directory of /proc; empty: it is gone, or not ours to see. */
function list(path: string): number[] {
  try {
    return readdirSync(path).map(Number).filter(Number.isInteger);
  } catch {
    return [];
  }
}

function linkOf(pid: number, fd: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return null;
  }
}

function allPipes(): Map<string, Ends> {
  const pipes = new Map<string, Ends>();
  for (const pid of list('/proc'))
    for (const fd of list(`/proc/${pid}/fd`)) {
      const link = linkOf(pid, fd);
      if (link?.startsWith('pipe:') !== true) continue;
      const ends = pipes.get(link) ?? { readers: new Set(), writers: new Set() };
      pipes.set(link, ends);
      try {
        // The link's own mode says how it was opened.
        const { mode } = lstatSync(`/proc/${pid}/fd/${fd}`);
        if ((mode & 0o400) !== 0) ends.readers.add(pid);
        if ((mode & 0o200) !== 0) ends.writers.add(pid);
      } catch {
        // closed meanwhile
      }
    }
  return pipes;
}

function allChildren(): Map<number, number[]> {
  const children = new Map<number, number[]>();
  for (const pid of list('/proc')) {
    const parent = statOf(pid)?.ppid;
    if (parent === undefined) continue;
    const siblings = children.get(parent);
    if (siblings === undefined) children.set(parent, [pid]);
    else siblings.push(pid);
  }
  return children;
}

/** Borrows a descriptor of another process (pidfd_getfd(2)); null: it cannot be had. */
function withDescriptor<T>(pid: number, fd: number, use: (own: number) => T): T | null {
  const pidfd = sys.pidfdOpen(pid);
  if (pidfd < 0) return null;
  const own = sys.pidfdGetfd(pidfd, fd);
  sys.close(pidfd);
  if (own < 0) return null;
  try {
    return use(own);
  } finally {
    sys.close(own);
  }
}
