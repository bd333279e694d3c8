/** Processes, threads, limits, clocks. */
import { RLIMIT_NOFILE } from './constants.ts';
import { bind, result } from './libc.ts';

const c = {
  unshare: bind('unshare', 'int', ['int']),
  getpid: bind('getpid', 'int', []),
  gettid: bind('gettid', 'int', []),
  tgkill: bind('tgkill', 'int', ['int', 'int', 'int']),
  prctl: bind('prctl', 'int', ['int', 'uint64', 'uint64', 'uint64', 'uint64']),
  prctlString: bind('prctl', 'int', ['int', 'const char *', 'uint64', 'uint64', 'uint64']),
  pidfdOpen: bind('pidfd_open', 'int', ['int', 'uint32']),
  pidfdSendSignal: bind('pidfd_send_signal', 'int', ['int', 'int', 'void *', 'uint32']),
  pidfdGetfd: bind('pidfd_getfd', 'int', ['int', 'int', 'uint32']),
  getrlimit: bind('getrlimit', 'int', ['int', 'void *']),
  setrlimit: bind('setrlimit', 'int', ['int', 'void *']),
  clockGettime: bind('clock_gettime', 'int', ['int', 'void *']),
  getpagesize: bind('getpagesize', 'int', []),
};

export function getpid(): number {
  return c.getpid();
}

/** The calling thread's id: what FUSE calls `pid`. */
export function gettid(): number {
  return c.gettid();
}

/** Signal 0 only asks whether that thread of that process is there (ESRCH). */
export function tgkill(pid: number, tid: number, signal: number): number {
  return result(c.tgkill(pid, tid, signal));
}

export function prctl(option: number, a = 0, b = 0, d = 0, e = 0): number {
  return result(c.prctl(option, a, b, d, e));
}

/** The calling thread's name in `ps -L`, at most 15 bytes (PR_SET_NAME). */
/** CLONE_FS (sched.h). */
const CLONE_FS = 0x200;

/** Gives this thread a umask and a working directory of its own (unshare(2)). */
export function unshareFs(): number {
  return result(c.unshare(CLONE_FS));
}

export function setThreadName(name: string): number {
  return result(c.prctlString(15, name, 0, 0, 0));
}

/** A descriptor that stays with this process, however its number is reused. `flags`: PIDFD_THREAD is 0x80 (kernel 6.9). */
export function pidfdOpen(pid: number, flags = 0): number {
  return result(c.pidfdOpen(pid, flags));
}

export function pidfdSendSignal(pidfd: number, signal: number): number {
  return result(c.pidfdSendSignal(pidfd, signal, null, 0));
}

/** Takes a copy of another process's descriptor: EPERM without the right to trace it (pidfd_getfd(2)). */
export function pidfdGetfd(pidfd: number, fd: number): number {
  return result(c.pidfdGetfd(pidfd, fd, 0));
}

const limit = new BigUint64Array(2);
const limitBytes = new Uint8Array(limit.buffer);
const asNumber = (value: bigint) => (value > 0x1f_ffff_ffff_ffffn ? Number.POSITIVE_INFINITY : Number(value));
const asLimit = (value: number) => (Number.isFinite(value) ? BigInt(value) : 0xffff_ffff_ffff_ffffn);

/** Soft and hard limit; no limit is Infinity. Or `-errno`. */
export function getrlimit(resource: number): { soft: number; hard: number } | number {
  const code = result(c.getrlimit(resource, limitBytes));
  return code < 0 ? code : { soft: asNumber(limit[0]!), hard: asNumber(limit[1]!) };
}

export function setrlimit(resource: number, soft: number, hard: number): number {
  limit[0] = asLimit(soft);
  limit[1] = asLimit(hard);
  return result(c.setrlimit(resource, limitBytes));
}

/** Raises the soft limit of open files to the hard one. Returns what is in force. */
export function raiseOpenFiles(): number {
  const now = getrlimit(RLIMIT_NOFILE);
  if (typeof now === 'number') return now;
  if (now.soft < now.hard) setrlimit(RLIMIT_NOFILE, now.hard, now.hard);
  const then = getrlimit(RLIMIT_NOFILE);
  return typeof then === 'number' ? then : then.soft;
}

const time = new BigInt64Array(2);
const timeBytes = new Uint8Array(time.buffer);

/** CLOCK_BOOTTIME in milliseconds: goes on through suspend; the clock of process start times (proc(5) `starttime`). */
export function clockBoottimeMs(): number {
  c.clockGettime(7, timeBytes);
  return Number(time[0]) * 1000 + Number(time[1]) / 1e6;
}

/** CLOCK_MONOTONIC in milliseconds. */
export function clockMonotonicMs(): number {
  c.clockGettime(1, timeBytes);
  return Number(time[0]) * 1000 + Number(time[1]) / 1e6;
}

/** Bytes of a memory page: 4096, or up to 65536 on arm64. */
export function getpagesize(): number {
  return c.getpagesize();
}
