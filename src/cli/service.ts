/** What the commands that stay in the foreground (broker, mount, supervise) share. */
import { closeSync, writeSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { systemClock } from '../base/clock.ts';

const KEEP_COMPILED_MS = 5000;

/** Runs `stop` at the first SIGTERM, SIGINT or SIGHUP. Later ones change nothing: it is already stopping. */
export function onSignals(stop: (signal: NodeJS.Signals) => void): void {
  let stopping = false;
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
    process.on(signal, () => {
      if (stopping) return;
      stopping = true;
      stop(signal);
    });
}

/** Tells whoever started this process that it is ready: one line of JSON on a descriptor that it gave. */
export function tellReady(fd: string | undefined, what: Record<string, unknown>): void {
  // A service seldom ends by itself: what was compiled is kept now, for its next start.
  systemClock.after(KEEP_COMPILED_MS, flushCompileCache);
  if (fd === undefined) return;
  try {
    writeSync(Number(fd), `${JSON.stringify(what)}\n`);
    closeSync(Number(fd));
  } catch {
    // The one who wanted to know is gone.
  }
}
