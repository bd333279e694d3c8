import type { Command } from 'commander';
import { actorName, runAs } from '../actors.ts';
import type { Context } from '../context.ts';

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .usage('[--as NAME] -- CMD [ARG…]')
    .argument('<CMD...>', 'the command, after --')
    .option('--as <NAME>', "the actor's name (default: GATE_ACTOR, else a new one made from the command's)")
    .passThroughOptions()
    .action(async (argv: string[], flags: { as?: string }) => {
      finish(await runAs(context, actorName(context, flags.as, argv), argv).status);
    });
}
