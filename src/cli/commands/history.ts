import type { Command } from 'commander';
import { type Context, usage } from '../context.ts';
import { eventLine } from '../event-text.ts';
import { openSession, placeOf } from '../locate.ts';
import { print, printJson, snake, visible } from '../output.ts';

interface Flags {
  lines: string;
  json?: boolean;
  stateDir?: string;
}

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .argument('<PATH>', 'a file, or a folder with all below it')
    .option('-n, --lines <N>', 'how many events at most', '100')
    .option('--json', 'one line of JSON for each event')
    .option('--state-dir <DIR>', 'whose broker to ask [GATE_STATE_DIR]')
    .action(async (path: string, flags: Flags) => {
      const lines = lineCount(flags.lines);
      const { session } = await openSession(context, 'cli', flags.stateDir, path);
      try {
        const volumes = await session.volumes();
        const place = await placeOf(context, session, path);
        const events = (await session.history(place.path, place.volume, lines)).reverse();
        for (const event of events) {
          if (flags.json) printJson(snake(event));
          else print(visible(eventLine(event, volumes)));
        }
        if (events.length === 0 && !flags.json) print(`nothing is known of ${visible(place.shown)}`);
      } finally {
        await session.close();
      }
      finish(0);
    });
}

/** Of `--lines`. Throws a usage error. */
export function lineCount(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw usage(`--lines: '${text}' is not a number`);
  return Number(text);
}
