import type { Command } from 'commander';
import { systemClock } from '../../base/clock.ts';
import type { Context } from '../context.ts';
import { openSession, placeOf } from '../locate.ts';
import { print, printJson, snake, visible } from '../output.ts';
import { holdsTable, queueTable, waitsTable } from '../people.ts';

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .argument('[PATH]', 'in a mount, in its root, or relative (default: every wait there is)')
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'whose broker to ask [GATE_STATE_DIR]')
    .action(async (path: string | undefined, flags: { json?: boolean; stateDir?: string }) => {
      const { session } = await openSession(context, 'cli', flags.stateDir, path);
      try {
        const volumes = await session.volumes();
        const nowMs = systemClock.wallMs();
        if (path === undefined) {
          const waits = await session.waits();
          if (flags.json) printJson(snake({ waits }));
          else print(waits.length ? waitsTable(waits, volumes, nowMs) : 'nobody waits for anything');
        } else {
          const place = await placeOf(context, session, path);
          const { holds, queue } = await session.status(place.path, place.volume);
          if (flags.json) printJson(snake({ path: place.shown, volume: place.volume, holds, queue }));
          else if (holds.length + queue.length === 0)
            print(`${visible(place.shown)} is free: nobody holds it, and nobody waits for it`);
          else {
            if (holds.length) print(holdsTable(holds, volumes, nowMs));
            else print(`nobody holds ${visible(place.shown)}`);
            if (queue.length) print(`\nin order of arrival:\n${queueTable(queue, nowMs)}`);
          }
        }
      } finally {
        await session.close();
      }
      finish(0);
    });
}
