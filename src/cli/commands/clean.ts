import { readdirSync, rmSync, statSync } from 'node:fs';
import type { Command } from 'commander';
import { makeBundle } from '../../vm/bundle.ts';
import { debianImage } from '../../vm/image.ts';
import { stateOf } from '../../vm/machine.ts';
import { cacheFiles } from '../../vm/names.ts';
import type { Context } from '../context.ts';
import { bytes, print, printJson } from '../output.ts';
import { takeDownMachine } from '../vm/down.ts';
import { allMachines, type HostFlags, makeHost, vmDirs } from '../vm/host.ts';
import { VM_DIR_HELP } from '../vm/options.ts';

/**
 * Removes what no machine needs: images that none is made over, old bundles, what was half built or half loaded, machines that were never
 * finished. With --all every machine that does not run, and what is then needed no more.
 */
export function register(command: Command, context: Context, finish: (status: number) => void): void {
  command
    .option('--all', 'also every machine that does not run, with all that is in it, and every image')
    .option('--vm-dir <DIR>', VM_DIR_HELP)
    .option('--dry-run', 'say what would go, and remove nothing')
    .option('--json', 'one JSON document on stdout')
    .option('--state-dir <DIR>', 'where everything is kept [GATE_STATE_DIR]')
    .action(async (flags: HostFlags & { all?: boolean }) => {
      const removed: string[] = [];
      let freed = 0;
      for (const machine of await allMachines(context, flags)) {
        const state = stateOf(machine.record);
        if (state !== 'half-built' && !(flags.all && state !== 'running')) continue;
        freed += sizeOf(machine.files.dir);
        removed.push(machine.files.dir);
        if (!flags.dryRun) await takeDownMachine(context, { ...flags, json: true }, machine, true);
      }
      for (const vmDir of await vmDirs(context, flags))
        for (const path of await unneeded(context, flags, vmDir, flags.all === true, removed)) {
          freed += sizeOf(path);
          removed.push(path);
          if (!flags.dryRun) rmSync(path, { recursive: true, force: true });
        }
      if (flags.json) printJson({ removed, bytes: freed });
      else {
        for (const path of removed) print(path);
        print(`${flags.dryRun ? 'would free' : 'freed'} ${bytes(freed)}`);
      }
      finish(0);
    });
}

async function unneeded(
  context: Context,
  flags: HostFlags,
  vmDir: string,
  all: boolean,
  gone: readonly string[],
): Promise<string[]> {
  const host = makeHost(context, { vmDir }, vmDir);
  const cache = cacheFiles(host.cacheDir);
  const machines = (await allMachines(context, { ...flags, vmDir })).filter(
    (machine) => !gone.includes(machine.files.dir),
  );
  const needed = new Set(machines.map((machine) => machine.record?.image.dir));
  if (!all) needed.add(debianImage(cache).dir);
  const found = [...below(cache.images), ...below(cache.downloads)].filter((path) => !needed.has(path));
  if (all && needed.size === 0) return [...found, ...below(cache.bundles)];
  const bundles = below(cache.bundles);
  if (bundles.length > 0) needed.add((await makeBundle(host.effects, cache)).dir);
  return [...found, ...bundles.filter((path) => !needed.has(path) && !/\/node-[^/.]*$/.test(path))];
}

function below(dir: string): string[] {
  try {
    return readdirSync(dir).map((name) => `${dir}/${name}`);
  } catch {
    return [];
  }
}

/** Bytes on the disk, holes not counted; a file with two names twice. */
function sizeOf(path: string): number {
  const state = statSync(path, { throwIfNoEntry: false });
  if (!state) return 0;
  if (!state.isDirectory()) return state.blocks * 512;
  return below(path).reduce((sum, each) => sum + sizeOf(each), state.blocks * 512);
}
