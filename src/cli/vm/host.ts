/** What the commands about virtual machines share: where they are kept, and how their steps are told. */
import { dirname } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { Effects } from '../../vm/effects.ts';
import { VmError } from '../../vm/errors.ts';
import { Journal, type StepEvent } from '../../vm/events.ts';
import type { Host } from '../../vm/lifecycle.ts';
import { type Machine, machinesIn } from '../../vm/machine.ts';
import { CliError, type Context, usage } from '../context.ts';
import { resolved, stateCandidates } from '../locate.ts';
import { duration, print, say } from '../output.ts';

export interface HostFlags {
  readonly vmDir?: string;
  readonly stateDir?: string;
  readonly dryRun?: boolean;
  readonly verbose?: boolean;
  readonly json?: boolean;
}

/** Where the machines are, with a state directory that is given or found. */
export function vmDirOf(context: Context, flags: HostFlags, stateDir: string): string {
  const named = flags.vmDir ?? (context.env.GATE_VM_DIR || undefined);
  return named === undefined ? `${stateDir}/vm` : resolved(context, named);
}

/** Steps as they happen, on stderr; at a terminal the one that goes on is rewritten in place. */
export function teller(context: Context, quiet: boolean): (event: StepEvent) => void {
  if (quiet) return () => {};
  const live = context.stderrIsTerminal;
  const clear = live ? '\r\u001b[K' : '';
  let told = '';
  return ({ step, state, text, ms }) => {
    const took = ms !== undefined && ms >= 1000 ? ` (${duration(ms)})` : '';
    if (state === 'note') say(`${clear}  ${text}`);
    else if (state === 'done') {
      if (text !== undefined) say(`${clear}${live ? '\u001b[32m✓\u001b[0m' : '✓'} ${text}${took}`);
    } else if (state === 'failed') say(`${clear}✗ ${step}${took}`);
    else if (state === 'begins') told = '';
    else if (live) process.stderr.write(`${clear}  ${step}: ${text}${took}`);
    // In a file one line for each step that takes long is enough.
    else if (told !== step) {
      told = step;
      say(`  ${step}: ${text}`);
    }
  };
}

export function makeHost(context: Context, flags: HostFlags, stateDir: string): Host {
  const effects = new Effects({
    clock: systemClock,
    ...(flags.dryRun && { dry: (line: string) => print(line) }),
    ...(flags.verbose && { verbose: (line: string) => say(`    ${line}`) }),
  });
  const vmDir = vmDirOf(context, flags, stateDir);
  return {
    effects,
    journal: new Journal(effects, teller(context, flags.json === true || flags.dryRun === true)),
    vmDir,
    cacheDir: context.env.GATE_VM_CACHE || `${vmDir}/cache`,
    uid: context.uid,
  };
}

/** Runs `work`; its refusals become those of the command line. */
export async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof VmError)
      throw new CliError(error.message, { hint: error.hint, detail: error.detail });
    throw error;
  }
}

/** The folders in which machines may be: the named one, else those of every state directory that may be meant. */
export async function vmDirs(context: Context, flags: HostFlags): Promise<string[]> {
  const named = flags.vmDir ?? (context.env.GATE_VM_DIR || undefined);
  if (named !== undefined) return [resolved(context, named)];
  const candidates = await stateCandidates(context, flags.stateDir);
  return candidates.map((files) => `${files.dir}/vm`);
}

export interface FoundMachine extends Machine {
  readonly vmDir: string;
  /** The state directory that it goes with, when nobody says another. */
  readonly stateDir: string;
}

export async function allMachines(context: Context, flags: HostFlags): Promise<FoundMachine[]> {
  return (await vmDirs(context, flags)).flatMap((vmDir) =>
    machinesIn(vmDir).map((machine) => ({
      ...machine,
      vmDir,
      stateDir: machine.record?.door?.stateDir ?? dirname(vmDir),
    })),
  );
}

/** The machine of this name, or the only one. */
export async function theMachine(
  context: Context,
  flags: HostFlags,
  name: string | undefined,
): Promise<FoundMachine> {
  const machines = await allMachines(context, flags);
  const names = machines.map((machine) => machine.name);
  if (name === undefined && machines.length > 1)
    throw usage(`there are ${machines.length} virtual machines; name one`, `There is: ${names.join(', ')}.`);
  const found = name === undefined ? machines[0] : machines.find((machine) => machine.name === name);
  if (found) return found;
  throw new CliError(
    name === undefined ? 'there is no virtual machine' : `there is no virtual machine '${name}'`,
    {
      hint: names.length ? `There is: ${names.join(', ')}.` : "'gate up --vm qemu REPO' makes one.",
    },
  );
}
