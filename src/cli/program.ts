/** The commands, and how one is found: only the module of the command that runs is loaded. */
import { Command, CommanderError } from 'commander';
import { version } from '../base/version.ts';
import { type Context, EXIT } from './context.ts';
import { print, report, say } from './output.ts';

/** What a command's module exports: adds its arguments and options, and its action, which gives the exit status. */
export interface CommandModule {
  register(command: Command, context: Context, finish: (status: number) => void): void;
}

interface Entry {
  readonly summary: string;
  readonly load: () => Promise<CommandModule>;
  readonly hidden?: boolean;
}

const COMMANDS: Readonly<Record<string, Entry>> = {
  up: { summary: 'mount a repository, and start what that needs', load: () => import('./commands/up.ts') },
  down: { summary: 'unmount, and stop what nobody needs any more', load: () => import('./commands/down.ts') },
  status: { summary: 'views, broker, holds and waits', load: () => import('./commands/status.ts') },
  who: { summary: 'who holds a file, and who waits for it', load: () => import('./commands/who.ts') },
  run: { summary: 'run a command as one actor', load: () => import('./commands/run.ts') },
  hold: { summary: 'hold locks by name while a command runs', load: () => import('./commands/hold.ts') },
  break: { summary: 'end the locks on a file by force', load: () => import('./commands/break.ts') },
  conflicts: {
    summary: 'what was written without a lock, or swept away, and is kept',
    load: () => import('./commands/conflicts.ts'),
  },
  events: { summary: 'what happened, and what happens', load: () => import('./commands/events.ts') },
  history: { summary: 'what happened to a path', load: () => import('./commands/history.ts') },
  logs: { summary: "the views' and the broker's logs", load: () => import('./commands/logs.ts') },
  vm: {
    summary: 'virtual machines: list, build, start, stop, ssh, delete',
    load: () => import('./commands/vm.ts'),
  },
  clean: {
    summary: 'remove what no virtual machine needs any more',
    load: () => import('./commands/clean.ts'),
  },
  doctor: {
    summary: 'what is missing on this machine, and how to get it',
    load: () => import('./commands/doctor.ts'),
  },
  broker: { summary: 'run the broker alone, in the foreground', load: () => import('./commands/broker.ts') },
  mount: { summary: 'run one mount alone, in the foreground', load: () => import('./commands/mount.ts') },
  sftp: { summary: 'the view for sshfs, sftp and scp', load: () => import('./commands/sftp.ts') },
  serve: {
    summary: "join input and output to a view's socket, for a remote mount",
    load: () => import('./commands/serve.ts'),
  },
  sync: {
    summary: 'bring a repository and its copy in another machine together',
    load: () => import('./commands/sync.ts'),
  },
  'setup-vm': {
    summary: 'install the services of Gate in this machine',
    load: () => import('./commands/setup-vm.ts'),
  },
  'setup-host': {
    summary: "mount another machine's view here: over our own protocol, sshfs, or a tunnel",
    load: () => import('./commands/setup-host.ts'),
  },
  unmount: { summary: 'unmount a view by its mount point', load: () => import('./commands/unmount.ts') },
  version: {
    summary: 'the version of Gate, Node and the kernel',
    load: () => import('./commands/version.ts'),
  },
  supervise: {
    summary: 'watch the broker and the mounts',
    load: () => import('./commands/supervise.ts'),
    hidden: true,
  },
};

/** The first argument that is not a flag of `gate` itself. */
function commandIn(argv: readonly string[]): string | undefined {
  const first = argv[0];
  if (first === 'help') return argv[1];
  return first?.startsWith('-') ? undefined : first;
}

/** True when the command line asks for JSON, before `--`. */
function wantsJson(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  return argv.slice(0, end < 0 ? undefined : end).includes('--json');
}

/** Runs one command line; gives the exit status. */
export async function runProgram(argv: readonly string[], context: Context): Promise<number> {
  let status: number = EXIT.done;
  const program = new Command('gate')
    .description('People, editors and coding agents take turns on the files of one repository.')
    .version(version(), '-V, --version')
    .enablePositionalOptions()
    .showHelpAfterError(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => print(text.trimEnd()),
      writeErr: (text) => say(text.trimEnd().replace(/^error: /, 'gate: ')),
    });
  const wanted = commandIn(argv);
  for (const [name, entry] of Object.entries(COMMANDS)) {
    const command = program.command(name, { hidden: entry.hidden ?? false }).description(entry.summary);
    command.copyInheritedSettings(program).allowExcessArguments(false);
    if (name !== wanted) continue;
    const module = await entry.load();
    module.register(command, context, (code) => (status = code));
  }
  try {
    if (argv.length === 0) {
      say(program.helpInformation().trimEnd());
      return EXIT.usage;
    }
    await program.parseAsync([...argv], { from: 'user' });
    return status;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return EXIT.done;
      const known = wanted !== undefined && Object.hasOwn(COMMANDS, wanted);
      say(known ? `'gate ${wanted} --help' lists what it takes.` : "'gate --help' lists the commands.");
      return EXIT.usage;
    }
    return report(error, wantsJson(argv));
  }
}
