/**
 * What /proc says of a process (proc(5)). Reading `environ` and `cmdline` takes the process's own memory lock, which can
 * be held while it waits for us: only the prober's thread does that. Nothing here throws; a process that is gone gives null.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { decodePath } from '../base/bytes.ts';

/** Ancestors looked at, at most. */
export const ANCESTORS_MAX = 64;

export interface ProcStat {
  readonly comm: string;
  readonly ppid: number;
  /** Field 22: clock ticks after boot. With the pid it names a process for ever. */
  readonly startTime: string;
  /** Field 28: changes with every exec (address space randomisation). */
  readonly startStack: string;
}

export function read(path: string): Buffer | null {
  try {
    return readFileSync(path);
  } catch {
    return null;
  }
}

export function parseStat(text: string): ProcStat | null {
  const close = text.lastIndexOf(')');
  const open = text.indexOf('(');
  if (open < 0 || close < open) return null;
  const fields = text.slice(close + 2).split(' ');
  if (fields.length < 26) return null;
  return {
    comm: text.slice(open + 1, close),
    ppid: Number(fields[1]),
    startTime: fields[19]!,
    startStack: fields[25]!,
  };
}

/** `startStack` of the first `length` bytes of /proc/PID/stat as a number, found without making a string; -1: not there. */
export function startStackIn(bytes: Buffer, length: number): number {
  // The name in the second field may hold anything, its closing bracket too: the last one counts.
  let at = length - 1;
  while (at >= 0 && bytes[at] !== 0x29) at--;
  if (at < 0) return -1;
  for (let spaces = 0; spaces < 26; at++) {
    if (at >= length) return -1;
    if (bytes[at] === 0x20) spaces++;
  }
  let value = 0;
  for (; at < length && bytes[at] !== 0x20; at++) value = value * 10 + bytes[at]! - 0x30;
  return value;
}

/** True when /proc/PID/stat, given as its first `length` bytes, says that the thread runs or wants to (R), or waits in the kernel (D). */
export function runsIn(bytes: Buffer, length: number): boolean {
  const close = bytes.subarray(0, Math.max(0, length)).lastIndexOf(0x29);
  const state = close < 0 ? 0 : bytes[close + 2];
  return state === 0x52 || state === 0x44;
}

export function statOf(pid: number): ProcStat | null {
  const bytes = read(`/proc/${pid}/stat`);
  return bytes === null ? null : parseStat(bytes.toString('latin1'));
}

/** Thread group and real user id of a thread. */
export function statusOf(tid: number): { pid: number; uid: number } | null {
  const text = read(`/proc/${tid}/status`)?.toString('latin1');
  if (text === undefined) return null;
  const pid = /^Tgid:\t(\d+)/m.exec(text)?.[1];
  const uid = /^Uid:\t(\d+)/m.exec(text)?.[1];
  return pid === undefined || uid === undefined ? null : { pid: Number(pid), uid: Number(uid) };
}

/** Supplementary groups of a thread. */
export function groupsOf(tid: number): number[] {
  const text = read(`/proc/${tid}/status`)?.toString('latin1') ?? '';
  const groups = /^Groups:\t(.*)$/m.exec(text)?.[1]?.trim() ?? '';
  return groups === '' ? [] : groups.split(' ').map(Number);
}

/** The process of a thread, and its ancestors, nearest first. */
export function lineageOf(tid: number): number[] {
  const pids: number[] = [];
  let at = statusOf(tid)?.pid ?? 0;
  while (at > 1 && pids.length < ANCESTORS_MAX) {
    pids.push(at);
    at = statOf(at)?.ppid ?? 0;
  }
  return pids;
}

/** True when a descriptor of the process leads to an inode with this number: asks no file system (Linux 5.14 and later). */
export function hasInode(tid: number, ino: string): boolean {
  let names: string[];
  try {
    names = readdirSync(`/proc/${tid}/fd`);
  } catch {
    return false;
  }
  return names.some((name) => {
    const shown = shownInode(tid, name);
    return shown === ino || shown === null;
  });
}

/** Inode number of a descriptor, as /proc/PID/fdinfo shows it; null: it does not; undefined: closed meanwhile. */
export function shownInode(pid: number, fd: string): string | null | undefined {
  const info = read(`/proc/${pid}/fdinfo/${fd}`)?.toString('latin1');
  if (info === undefined) return undefined;
  return /^ino:\t(\d+)/m.exec(info)?.[1] ?? null;
}

export function environmentOf(pid: number, name: string): string | null {
  const bytes = read(`/proc/${pid}/environ`);
  if (bytes === null) return null;
  const prefix = `${name}=`;
  for (const entry of bytes.toString('utf8').split('\0'))
    if (entry.startsWith(prefix)) return entry.slice(prefix.length);
  return null;
}

/** Base names by which a process may be known: of its comm, its executable and its first two arguments. */
export function namesOf(pid: number, comm: string): string[] {
  const names = [comm];
  try {
    names.push(baseName(readlinkSync(`/proc/${pid}/exe`)));
  } catch {
    // a kernel thread, or not ours to see
  }
  const args = read(`/proc/${pid}/cmdline`)?.toString('utf8').split('\0') ?? [];
  for (const arg of args.slice(0, 2))
    if (arg !== '') names.push(baseName(arg).replace(/\.(?:js|mjs|cjs|py|sh)$/, ''));
  return names;
}

/** Arguments of a command line that are looked at. */
const ARGUMENTS_MAX = 256;

/** Base names of what a process's arguments name, and of the words in them (`sh -c 'cat <FILE'`). */
export function argumentNamesOf(pid: number): string[] {
  const args = read(`/proc/${pid}/cmdline`);
  if (args === null) return [];
  const given = decodePath(args).split('\0').slice(1, ARGUMENTS_MAX);
  const words = given.flatMap((arg) => [arg, ...arg.split(/[\s'"<>|&;()=,:]+/)]);
  return [...new Set(words.map(baseName))].filter((name) => name !== '').slice(0, ARGUMENTS_MAX);
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM: signals that end or interrupt for good. */
const ENDING = (1n << 0n) | (1n << 1n) | (1n << 2n) | (1n << 8n) | (1n << 14n);

/**
 * True when a signal that ends or interrupts for good is pending for a thread and not blocked, or the thread is gone.
 * git's progress timer sends SIGALRM with SA_RESTART: such a signal does not mean that the caller wants to stop.
 */
export function wantsToStop(tid: number): boolean {
  const text = read(`/proc/${tid}/status`)?.toString('latin1');
  if (text === undefined) return true;
  const mask = (name: string): bigint =>
    BigInt(`0x${new RegExp(`^${name}:\\t([0-9a-f]+)`, 'm').exec(text)?.[1] ?? '0'}`);
  return ((mask('SigPnd') | mask('ShdPnd')) & ~mask('SigBlk') & ENDING) !== 0n;
}
