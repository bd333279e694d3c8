/** What commands say: results on stdout, everything else on stderr. */
import { writeSync } from 'node:fs';
import { CliError, type Context } from './context.ts';

function write(fd: number, content: string): void {
  const bytes = Buffer.from(content);
  let at = 0;
  while (at < bytes.length) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      // A pipe that Node made non-blocking, and its reader is slow.
      if (code === 'EAGAIN') {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
        continue;
      }
      // Nobody reads any more (`gate who | head`): there is nothing left to do.
      if (code === 'EPIPE') process.exit(0);
      throw error;
    }
  }
}

/** Lone surrogates stand for bytes that are not UTF-8; people see them as `\xNN`, and control characters too. */
export function visible(text: string): string {
  return text.replace(/[\udc80-\udcff](?![\udc00-\udfff])|[\x00-\x08\x0b-\x1f\x7f]/g, (char) => {
    const code = char.charCodeAt(0);
    return `\\x${(code >= 0xdc80 ? code - 0xdc00 : code).toString(16).padStart(2, '0')}`;
  });
}

export function print(line: string): void {
  write(1, `${line}\n`);
}

export function printJson(value: unknown): void {
  write(1, `${JSON.stringify(value)}\n`);
}

/** Keys as in the HTTP API: `lockId` becomes `lock_id`. */
export function snake(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(snake);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`),
      snake(item),
    ]),
  );
}

export function say(line: string): void {
  write(2, `${line}\n`);
}

/** Steps of a command as they happen. */
export interface Steps {
  done(what: string): void;
  note(what: string): void;
}

export function steps(context: Context, quiet = false): Steps {
  if (quiet) return { done() {}, note() {} };
  const mark = context.stderrIsTerminal ? '\u001b[32m✓\u001b[0m' : '✓';
  return {
    done: (what) => say(`${mark} ${what}`),
    note: (what) => say(`  ${what}`),
  };
}

/** Columns as wide as their widest cell; the last one is not padded. */
export function table(rows: readonly (readonly string[])[]): string {
  const shown = rows.map((row) => row.map(visible));
  const widths: number[] = [];
  for (const row of shown)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return shown
    .map((row) =>
      row
        .map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** A duration for people: `350 ms`, `12 s`, `5 min 2 s`, `3 h 4 min`, `2 d 1 h`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

/** A size for people: `17 bytes`, `12 KiB`, `3.4 MiB`. */
export function bytes(count: number): string {
  if (count < 1024) return `${count} bytes`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = count / 1024;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Says an error, as JSON when `json`, and gives the exit status. */
export function report(error: unknown, json: boolean): number {
  const known = error instanceof CliError;
  const message = error instanceof Error ? error.message : String(error);
  const hint = known ? error.hint : (error as { hint?: string }).hint;
  const exit = known ? error.exit : 1;
  if (json)
    printJson({
      error: { message, hint, detail: known && error.detail.length ? error.detail : undefined, exit },
    });
  say(`gate: ${visible(message)}`);
  if (known) for (const line of error.detail) say(`    ${visible(line)}`);
  if (hint) say(visible(hint));
  return exit;
}
