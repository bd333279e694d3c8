import type { Command } from 'commander';
import { isAlive } from '../../base/process.ts';
import { defaultStateDir, type StateFiles, stateFiles } from '../../base/state.ts';
import { CHECKS } from '../checks.ts';
import type { Context } from '../context.ts';
import { resolved, stateInUse } from '../locate.ts';
import { mountAt, VIEW_TYPE } from '../mounts.ts';
import { print, printJson, say, steps, visible } from '../output.ts';
import { askOrStart } from '../supervisor/client.ts';
import { upAgain } from '../supervisor/protocol.ts';
import { isInPlace, readViews } from '../views.ts';

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .option('--no-repair', 'leave a dead mount over a repository as it is')
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'where everything is kept [GATE_STATE_DIR]')
    .action(async (flags: { json?: boolean; stateDir?: string; repair: boolean }) => {
      const named = flags.stateDir ?? (context.env.GATE_STATE_DIR || undefined);
      const files =
        (await stateInUse(context, flags.stateDir)) ??
        stateFiles(resolved(context, named ?? defaultStateDir(context.env, context.home)));
      const repaired = flags.repair ? await repair(context, files) : [];
      const results = CHECKS.flatMap((check) => {
        const result = check.test({ context, files });
        return result ? [{ name: check.name, ...result, fatal: check.fatal, hint: check.hint }] : [];
      });
      const works = results.every((result) => result.ok || !result.fatal);
      if (flags.json) printJson({ ok: works, repaired, checks: results });
      else {
        for (const name of repaired)
          print(visible(`✓ repaired the view ${name}: a dead mount lay over its repository`));
        for (const { name, ok, says, hint, fatal } of results) {
          print(visible(`${ok ? '✓' : fatal ? '✗' : '!'} ${name}: ${says}`));
          if (!ok) print(`    ${hint}`);
        }
      }
      finish(works ? 0 : 1);
    });
}

/**
 * Brings back each view in place whose mount is dead: until then nobody gets into the repository. Gives their names; one that cannot
 * be brought back shows in the checks.
 */
async function repair(context: Context, files: StateFiles): Promise<string[]> {
  const dead = readViews(files).filter(
    (view) => isInPlace(view) && mountAt(view.mount)?.type === VIEW_TYPE && !isAlive(view.process),
  );
  const repaired: string[] = [];
  for (const view of dead)
    try {
      await askOrStart(context, files, upAgain(view), steps(context, true));
      repaired.push(view.name);
    } catch (error) {
      say(`the view ${view.name} cannot be brought back: ${(error as Error).message}`);
    }
  return repaired;
}
