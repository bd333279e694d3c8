import type { Command } from 'commander';
import type { GateEvent } from '../../broker/wire.ts';
import { BrokerHttp } from '../../client/http.ts';
import type { GateSession } from '../../client/index.ts';
import { CliError, type Context } from '../context.ts';
import { eventLine } from '../event-text.ts';
import { openSession } from '../locate.ts';
import { print, printJson, say, snake, visible } from '../output.ts';
import { lineCount } from './history.ts';

interface Flags {
  follow?: boolean;
  lines: string;
  json?: boolean;
  stateDir?: string;
}

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .option('-f, --follow', 'go on as things happen')
    .option('-n, --lines <N>', 'how many past events', '50')
    .option('--json', 'one line of JSON for each event')
    .option('--state-dir <DIR>', 'whose broker to ask [GATE_STATE_DIR]')
    .action(async (flags: Flags) => {
      const lines = lineCount(flags.lines);
      const { session, found } = await openSession(context, 'cli', flags.stateDir);
      const volumes = await session.volumes();
      const show = (event: GateEvent) => {
        // What this command does itself is no news.
        if (event.session === session.id) return;
        if (flags.json) printJson(snake(event));
        else print(visible(eventLine(event, volumes)));
      };
      const ended = flags.follow ? following(session, show) : undefined;
      const http = new BrokerHttp({ socket: found.info.socket });
      const past = lines === 0 ? [] : await http.history({ limit: lines });
      for (const event of past.reverse()) show(event);
      await ended;
      await session.close();
      finish(0);
    });
}

/** Shows what happens until Ctrl-C; throws when the broker is lost for good. */
function following(session: GateSession, show: (event: GateEvent) => void): Promise<void> {
  session.subscribe(show, (missed) => say(`gate: ${missed} events were left out: this reads too slowly`));
  return new Promise((resolve, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
    session.onLost = (why) => reject(new CliError(`the broker is gone: ${why}`));
  });
}
