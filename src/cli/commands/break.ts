import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { systemClock } from '../../base/clock.ts';
import { GateError } from '../../base/errors.ts';
import { CliError, type Context, EXIT } from '../context.ts';
import { openSession, placeOf } from '../locate.ts';
import { print, printJson, say, visible } from '../output.ts';
import { holdsTable } from '../people.ts';

interface Flags {
  force?: boolean;
  json?: boolean;
  stateDir?: string;
}

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .argument('<PATH>', 'whose locks to break')
    .option('--force', 'without asking')
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'whose broker to use [GATE_STATE_DIR]')
    .addHelpText(
      'after',
      '\nWho held a file to write it writes no more, or, where that cannot be stopped, into a copy: see gate conflicts.',
    )
    .action(async (path: string, flags: Flags) => finish(await breakPath(context, path, flags)));
}

async function breakPath(context: Context, path: string, flags: Flags): Promise<number> {
  const { session } = await openSession(context, 'cli', flags.stateDir, path);
  try {
    const place = await placeOf(context, session, path);
    const { holds } = await session.status(place.path, place.volume);
    if (holds.length === 0) {
      if (flags.json) printJson({ broken: [] });
      else print(`${visible(place.shown)} is free: nobody holds it`);
      return EXIT.done;
    }
    if (!flags.force) {
      say(holdsTable(holds, await session.volumes(), systemClock.wallMs()));
      await confirm(context, holds.length === 1 ? 'Break this lock?' : `Break these ${holds.length} locks?`);
    }
    const broken: string[] = [];
    for (const { lockId } of holds)
      try {
        await session.break(lockId);
        broken.push(lockId);
      } catch (error) {
        // Given back meanwhile.
        if (!(error instanceof GateError && error.code === 'not_found')) throw error;
      }
    if (flags.json) printJson({ broken });
    else print(`${broken.length} broken; 'gate conflicts' lists what their holders may still write`);
    return EXIT.done;
  } finally {
    await session.close();
  }
}

/** Throws unless a person at a terminal says yes. */
async function confirm(context: Context, question: string): Promise<void> {
  if (!process.stdin.isTTY || !context.stderrIsTerminal)
    throw new CliError('nobody is here to be asked', {
      hint: '--force does it without asking.',
      exit: EXIT.usage,
    });
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await lines.question(`${question} [y/N] `);
  lines.close();
  if (!/^y(es)?$/i.test(answer.trim())) throw new CliError('nothing was broken');
}
