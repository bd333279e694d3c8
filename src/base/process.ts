/**
 * Processes as /proc shows them. A pid alone names nobody for long: it is reused, and after a reboot it is
 * somebody else's. So a process is recorded as pid, start time and boot id, and counts only when all three fit.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface ProcessId {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: clock ticks after boot (proc_pid_stat(5)). */
  readonly startTicks: number;
  readonly bootId: string;
}

export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** One run of the machine, and a clock that goes on through it whatever processes come and go. */
export interface Boot {
  readonly id: string;
  /** CLOCK_MONOTONIC, in milliseconds since the boot. */
  monotonicMs(): number;
}

export function systemBoot(): Boot {
  // clock_gettime(CLOCK_MONOTONIC): https://nodejs.org/api/process.html#processhrtimetime
  return { id: bootId(), monotonicMs: () => Number(process.hrtime.bigint()) / 1e6 };
}

/** The fields of /proc/PID/stat from the third on, or undefined when there is no such process. */
function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}

/** Who has this pid now; undefined when nobody has, or only a zombie. */
export function processId(pid: number): ProcessId | undefined {
  const fields = statFields(pid);
  if (!fields || fields[0] === 'Z' || fields[0] === 'X') return undefined;
  return { pid, startTicks: Number(fields[19]), bootId: bootId() };
}

/** True when the recorded process still runs: the same pid, start time and boot. */
export function isAlive(recorded: ProcessId | undefined | null): recorded is ProcessId {
  if (!recorded) return false;
  const now = processId(recorded.pid);
  return now !== undefined && now.startTicks === recorded.startTicks && now.bootId === recorded.bootId;
}

/** Sends a signal to a recorded process, never to whoever got its pid since. */
export function signalProcess(recorded: ProcessId | undefined | null, signal: NodeJS.Signals): boolean {
  if (!isAlive(recorded)) return false;
  try {
    process.kill(recorded.pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** True when this process is in the foreground of a terminal, which then signals its children itself. */
export function ownsTerminal(): boolean {
  const fields = statFields(process.pid);
  return fields !== undefined && Number(fields[5]) > 0 && fields[5] === fields[2];
}

export function parentOf(pid: number): number {
  return Number(statFields(pid)?.[1] ?? 0);
}

export interface ProcessInfo {
  readonly pid: number;
  /** Short name: /proc/PID/comm. */
  readonly comm: string;
  /** The command line, joined by spaces. */
  readonly command: string;
}

export function processInfo(pid: number): ProcessInfo | undefined {
  try {
    const comm = readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replace(/\0+$/, '').replaceAll('\0', ' ');
    return { pid, comm, command: command || comm };
  } catch {
    return undefined;
  }
}

export interface PathUser extends ProcessInfo {
  /** How it uses the path: its working directory, its root, or an open file. */
  readonly how: 'cwd' | 'root' | 'fd';
  readonly path: string;
}

function inside(path: string, dir: string): boolean {
  return path === dir || path.startsWith(dir === '/' ? dir : `${dir}/`);
}

/**
 * Processes that work in `dir` or below it: their working directory, root or an open file is there. Reads the
 * links' text only, so it never touches the file system that `dir` is on. Sees what /proc shows this user.
 * NOT seen: files that are only mapped, and processes of other mount namespaces under other paths.
 */
export function processesUsing(dir: string, except: ReadonlySet<number> = new Set()): PathUser[] {
  const found: PathUser[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid || except.has(pid)) continue;
    const use = useOf(pid, dir);
    const info = use && processInfo(pid);
    if (use && info) found.push({ ...info, ...use });
  }
  return found;
}

function useOf(pid: number, dir: string): { how: PathUser['how']; path: string } | undefined {
  const link = (name: string) => {
    try {
      return readlinkSync(`/proc/${pid}/${name}`).replace(/ \(deleted\)$/, '');
    } catch {
      return '';
    }
  };
  const cwd = link('cwd');
  if (inside(cwd, dir)) return { how: 'cwd', path: cwd };
  const root = link('root');
  if (root !== '/' && inside(root, dir)) return { how: 'root', path: root };
  let fds: string[];
  try {
    fds = readdirSync(`/proc/${pid}/fd`);
  } catch {
    return undefined;
  }
  for (const fd of fds) {
    const path = link(`fd/${fd}`);
    if (inside(path, dir)) return { how: 'fd', path };
  }
  return undefined;
}
