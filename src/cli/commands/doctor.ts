import type { Command } from 'commander';
import { defaultStateDir, stateFiles } from '../../base/state.ts';
import { CHECKS } from '../checks.ts';
import type { Context } from '../context.ts';
import { resolved, stateInUse } from '../locate.ts';
import { print, printJson, visible } from '../output.ts';

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'where everything is kept [GATE_STATE_DIR]')
    .action(async (flags: { json?: boolean; stateDir?: string }) => {
      const named = flags.stateDir ?? (context.env.GATE_STATE_DIR || undefined);
      const files =
        (await stateInUse(context, flags.stateDir)) ??
        stateFiles(resolved(context, named ?? defaultStateDir(context.env, context.home)));
      const results = CHECKS.flatMap((check) => {
        const result = check.test({ context, files });
        return result ? [{ name: check.name, ...result, fatal: check.fatal, hint: check.hint }] : [];
      });
      const works = results.every((result) => result.ok || !result.fatal);
      if (flags.json) printJson({ ok: works, checks: results });
      else
        for (const { name, ok, says, hint, fatal } of results) {
          print(visible(`${ok ? '✓' : fatal ? '✗' : '!'} ${name}: ${says}`));
          if (!ok) print(`    ${hint}`);
        }
      finish(works ? 0 : 1);
    });
}
