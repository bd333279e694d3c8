import { release } from 'node:os';
import type { Command } from 'commander';
import { version } from '../../base/version.ts';
import { print, printJson } from '../output.ts';

export function register(command: Command): void {
  command.option('--json', 'one JSON document').action((flags: { json?: boolean }) => {
    const facts = { gate: version(), node: process.versions.node, kernel: release(), arch: process.arch };
    if (flags.json) printJson(facts);
    else print(`gate ${facts.gate} (Node ${facts.node}, Linux ${facts.kernel}, ${facts.arch})`);
  });
}
