import type { Command } from 'commander';
import { GUEST_USER, sshTarget, stateOf } from '../../vm/machine.ts';
import { CliError, type Context, EXIT } from '../context.ts';
import { stateToUse } from '../locate.ts';
import { print, printJson, say, snake } from '../output.ts';
import { checkDir } from '../reach.ts';
import { type SyncResult, sync } from '../sync/index.ts';
import { addTargetOptions, type TargetFlags, targetOf } from '../target.ts';
import { theMachine, told } from '../vm/host.ts';

interface Flags extends TargetFlags {
  readonly vm?: string | true;
  readonly vmRepoPath?: string;
  readonly back?: boolean;
  readonly delete?: boolean;
  readonly force?: boolean;
  readonly dryRun?: boolean;
  readonly exclude: string[];
  readonly stateDir?: string;
  readonly json?: boolean;
}

/** Names that are shown of a kind; all of them with --json. */
const SHOWN_MAX = 20;

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .argument('[REPO]', "the folder here (default: the one of --vm's machine, else this one)")
    .option('--vm [NAME]', 'a machine of gate up --vm: nothing else need be named');
  addTargetOptions(command)
    .option('--vm-repo-path <DIR>', 'the folder over there (default: /srv/repo)')
    .option('--back', 'bring home what was changed over there, instead of sending what was changed here')
    .option('--delete', 'remove what the sending side does not have, too')
    .option('--force', "where both sides changed a file, take the sending side's")
    .option('--dry-run', 'show what would be done, and do nothing')
    .option('--exclude <NAMES>', 'names that are left out wherever they stand, with commas', names, [])
    .option('--state-dir <DIR>', 'where it is remembered what was the same on both sides [GATE_STATE_DIR]')
    .option('--json', 'one JSON document');
  command.action(async (repo: string | undefined, flags: Flags) => {
    const ends =
      flags.vm === undefined ? namedEnds(context, repo, flags) : await machineEnds(context, repo, flags);
    const result = await sync({
      ...ends,
      back: flags.back ?? false,
      delete: flags.delete ?? false,
      force: flags.force ?? false,
      dryRun: flags.dryRun ?? false,
      exclude: flags.exclude,
      stateDir: stateToUse(context, flags.stateDir).dir,
    });
    if (flags.json) printJson(snake(result));
    else tellSync(result);
    finish(result.done || result.dryRun ? EXIT.done : EXIT.failed);
  });
}

type Ends = Pick<Parameters<typeof sync>[0], 'here' | 'target' | 'there'>;

function namedEnds(context: Context, repo = '.', flags: Flags): Ends {
  const { vmRepoPath: there = '/srv/repo' } = flags;
  return { here: checkDir(context, repo, 'folder'), target: targetOf(context, flags), there };
}

async function machineEnds(context: Context, repo: string | undefined, flags: Flags): Promise<Ends> {
  const { stateDir, vm } = flags;
  const machine = await told(() =>
    theMachine(
      context,
      { ...(stateDir !== undefined && { stateDir }) },
      typeof vm === 'string' ? vm : undefined,
    ),
  );
  const { record, files, name } = machine;
  if (stateOf(record) !== 'running' || !record)
    throw new CliError(`${name} does not run`, { hint: `'gate vm start ${name}' starts it.` });
  return {
    here: checkDir(context, repo ?? record.repo, 'folder'),
    target: sshTarget(files, record, GUEST_USER),
    there: flags.vmRepoPath ?? record.guestRepo,
  };
}

function names(value: string, before: string[]): string[] {
  return [...before, ...value.split(',').filter(Boolean)];
}

/** A sync in words. */
export function tellSync(result: SyncResult): void {
  const { back, dryRun, done, send, remove, kept, theirs, conflicts } = result;
  const [from, to] = back ? ['over there', 'here'] : ['here', 'over there'];
  const would = done ? '' : dryRun ? 'would be ' : 'not ';
  show(`${would}${back ? 'brought home' : 'sent'}`, send);
  show(`${would}removed ${to}`, remove);
  show(`only ${to}, and kept; --delete removes them`, kept);
  show(`changed only ${to}, and left as they are; gate sync${back ? '' : ' --back'} takes them`, theirs);
  show(`changed on both sides${done ? `; what was ${from} was taken` : ''}`, conflicts);
  if (!done && !dryRun)
    say(`gate: nothing was done, because of the conflicts. Mend them, or take what is ${from} with --force.`);
  else if ([send, remove, kept, theirs, conflicts].every((paths) => paths.length === 0))
    print('both sides are the same');
}

function show(what: string, paths: readonly string[]): void {
  if (paths.length === 0) return;
  print(`${paths.length} ${what}:`);
  for (const path of paths.slice(0, SHOWN_MAX)) print(`  ${path}`);
  if (paths.length > SHOWN_MAX) print(`  and ${paths.length - SHOWN_MAX} more`);
}
