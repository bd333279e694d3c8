import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import type { Command } from 'commander';
import { shellWord, sshArguments } from '../../ssh/index.ts';
import { makeBundle, packBundle } from '../../vm/bundle.ts';
import { alone, imageFor, startMachine } from '../../vm/lifecycle.ts';
import { GUEST_USER, sshTarget, stateOf } from '../../vm/machine.ts';
import { cacheFiles, machineFiles } from '../../vm/names.ts';
import { CliError, type Context } from '../context.ts';
import { resolved, stateToUse } from '../locate.ts';
import { bytes, print, printJson, say } from '../output.ts';
import { takeDownMachine } from '../vm/down.ts';
import { allMachines, type HostFlags, makeHost, theMachine, told } from '../vm/host.ts';
import { addMachineOptions, defaultName, machineOptions, VM_DIR_HELP, type VmFlags } from '../vm/options.ts';
import { describeMachines, machinesTable } from '../vm/status.ts';

const STATE_HELP = 'where everything is kept [GATE_STATE_DIR]';

type Flags = VmFlags & HostFlags;

export function register(command: Command, context: Context, finish: (status: number) => void): void {
  const sub = (name: string, summary: string) =>
    command.command(name).description(summary).copyInheritedSettings(command);
  const found = (of: Command) =>
    of.option('--vm-dir <DIR>', VM_DIR_HELP).option('--state-dir <DIR>', STATE_HELP);

  found(sub('list', 'every machine, and its state'))
    .option('--json', 'one JSON document on stdout')
    .action(async (flags: Flags) => {
      const machines = await describeMachines(await allMachines(context, flags));
      if (flags.json) printJson(machines);
      else if (machines.length === 0)
        print("there is no virtual machine; 'gate up --vm qemu REPO' makes one");
      else print(machinesTable(machines));
      finish(0);
    });

  addMachineOptions(sub('build', 'build or download an image, and start nothing'))
    .option('--state-dir <DIR>', STATE_HELP)
    .action(async (flags: Flags) => {
      const host = makeHost(context, flags, stateToUse(context, flags.stateDir).dir);
      const image = await told(() => imageFor(host, machineOptions(context, flags)));
      print(image.dir);
      finish(0);
    });

  addMachineOptions(sub('start', 'start a machine alone: nothing is copied in, nothing mounted'))
    .argument('[NAME]', `its name (default: ${defaultName('qemu')})`)
    .option('--vm <VMM>', 'qemu or firecracker')
    .option('--state-dir <DIR>', STATE_HELP)
    .action(async (name: string | undefined, flags: Flags) => {
      const options = machineOptions(context, flags, name);
      const host = makeHost(context, flags, stateToUse(context, flags.stateDir).dir);
      const files = await told(async () => machineFiles(host.vmDir, options.name));
      const record = await told(() => alone(host, files, () => startMachine(host, options)));
      if (!flags.dryRun) print(`ssh -F ${files.sshConfig} ${record.name}`);
      finish(0);
    });

  found(sub('stop', 'end a machine, whatever its state; its disk stays'))
    .argument('[NAME]', 'its name (default: the only one)')
    .option('--dry-run', 'print every command and file, and do nothing')
    .action(async (name: string | undefined, flags: Flags) => {
      await takeDownMachine(context, flags, await theMachine(context, flags, name), false);
      finish(0);
    });

  found(sub('delete', 'end a machine, whatever its state, and remove its disk'))
    .argument('[NAME]', 'its name (default: the only one)')
    .option('--dry-run', 'print every command and file, and do nothing')
    .action(async (name: string | undefined, flags: Flags) => {
      await takeDownMachine(context, flags, await theMachine(context, flags, name), true);
      finish(0);
    });

  found(sub('ssh', 'a shell in the machine, or one command'))
    .argument('[NAME]', 'its name (default: the only one)')
    .argument('[COMMAND...]', 'a command and its arguments, after --')
    .option('--root', `as root, not as ${GUEST_USER}`)
    .passThroughOptions()
    .action(async (name: string | undefined, words: string[], flags: Flags & { root?: boolean }) => {
      const machine = await theMachine(context, flags, name);
      finish(await shell(context, machine, words, flags.root === true));
    });

  found(sub('bundle', 'make Gate into one file that runs on any Linux of this architecture'))
    .argument('<FILE|DIR>', 'where to')
    .option('--verbose', 'print every command and file as it is done')
    .action(async (to: string, flags: Flags) => {
      const host = makeHost(context, flags, stateToUse(context, flags.stateDir).dir);
      const path = await told(async () =>
        packBundle(
          host.effects,
          await makeBundle(host.effects, cacheFiles(host.cacheDir)),
          resolved(context, to),
        ),
      );
      const { statSync } = await import('node:fs');
      say(`${bytes(statSync(path).size)}`);
      print(path);
      finish(0);
    });
}

async function shell(
  context: Context,
  machine: Awaited<ReturnType<typeof theMachine>>,
  words: readonly string[],
  asRoot: boolean,
): Promise<number> {
  const { record, files } = machine;
  if (stateOf(record) !== 'running' || !record)
    throw new CliError(`${machine.name} does not run`, {
      hint: `'gate vm start ${machine.name}' starts it.`,
    });
  mkdirSync(files.dir, { recursive: true });
  // One word is a shell's line, as with ssh; several are a command and its arguments.
  const command = words.length > 1 ? words.map(shellWord).join(' ') : words[0];
  const terminal = context.stdoutIsTerminal ? ['-t'] : [];
  const args = sshArguments(sshTarget(files, record, asRoot ? 'root' : GUEST_USER), command, terminal);
  return new Promise((resolve, reject) => {
    const child = spawn('ssh', args, { stdio: 'inherit' });
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}
