/**
 * Logs are lines of JSON on stderr (time, level, component, msg), which a supervisor sends to a file. At a
 * terminal they are lines for people.
 */
import { copyFileSync, renameSync, statSync, truncateSync, writeSync } from 'node:fs';
import { pino } from 'pino';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface Logger {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

export const silentLog: Logger = { debug() {}, info() {}, warn() {}, error() {} };

/** One line of a log for a person: `20:11:02 warn  mount: message key=value`. */
export function formatLogLine(line: string): string {
  let record: Record<string, unknown>;
  try {
    record = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return line;
  }
  if (typeof record !== 'object' || record === null || typeof record.msg !== 'string') return line;
  const { time, level, component, msg, pid: _pid, hostname: _host, ...rest } = record;
  const at = typeof time === 'string' ? time.replace('T', ' ').slice(0, 19) : '';
  const extra = Object.entries(rest).map(
    ([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return `${at} ${String(level ?? '').padEnd(5)} ${component ? `${String(component)}: ` : ''}${msg}${extra.join('')}`;
}

/** A logger that writes to stderr at once, so that a crash loses nothing. */
export function createLogger(component: string, level: LogLevel = 'info', terminal = false): Logger {
  const sink = {
    write(line: string) {
      try {
        writeSync(2, terminal ? `${formatLogLine(line.trimEnd())}\n` : line);
      } catch {
        // stderr is gone or full: a log line is never worth the process.
      }
    },
  };
  const log = pino(
    {
      level,
      base: { component },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    sink,
  );
  return {
    debug: (message, fields) => log.debug(fields ?? {}, message),
    info: (message, fields) => log.info(fields ?? {}, message),
    warn: (message, fields) => log.warn(fields ?? {}, message),
    error: (message, fields) => log.error(fields ?? {}, message),
  };
}

/** Size from which a log file is rotated, and how many old ones stay beside it. */
export const LOG_FILE_BYTES = 8 * 1024 * 1024;
export const LOG_FILES_KEPT = 3;

/**
 * Rotates `path` when it is large: its content is copied to `path.1` and it is cut to nothing, so that the
 * process that has it open for appending goes on unaware. Lines written between the two steps are lost.
 */
export function rotateLog(path: string, limitBytes = LOG_FILE_BYTES): boolean {
  try {
    if (statSync(path).size < limitBytes) return false;
    for (let i = LOG_FILES_KEPT - 1; i >= 1; i--) {
      try {
        renameSync(`${path}.${i}`, `${path}.${i + 1}`);
      } catch {
        // There is no such old file yet.
      }
    }
    copyFileSync(path, `${path}.1`);
    truncateSync(path, 0);
    return true;
  } catch {
    return false;
  }
}

/** The last `lines` lines of a log, formatted; empty when there is none. */
export function tailOf(text: string, lines: number): string[] {
  return text.trimEnd().split('\n').filter(Boolean).slice(-lines).map(formatLogLine);
}
