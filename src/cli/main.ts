/** The entry of the command line: the only place that reads the process's environment. */
import { homedir } from 'node:os';
import { isatty } from 'node:tty';
import { runProgram } from './program.ts';

let cwd: string;
try {
  cwd = process.cwd();
} catch {
  // The folder that the shell stands in is gone.
  cwd = '/';
}

process.exitCode = await runProgram(process.argv.slice(2), {
  env: { ...process.env },
  cwd,
  home: homedir(),
  uid: process.getuid?.() ?? -1,
  stdoutIsTerminal: isatty(1),
  stderrIsTerminal: isatty(2),
});
