/** What the tests of the command line share: a state directory of their own, and the end of everything in it. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { projectDir } from '../../src/base/version.ts';

export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly pid: number;
  readonly outcome: Promise<Outcome>;
  /** Everything on stdout and stderr up to now. */
  text(): string;
  kill(signal: NodeJS.Signals): void;
}

export interface Rig {
  readonly dir: string;
  readonly state: string;
  /** A folder with a file `a.txt` in it. */
  readonly repo: string;
  readonly env: NodeJS.ProcessEnv;
  start(file: string, args: readonly string[], options?: { cwd?: string; env?: NodeJS.ProcessEnv }): Running;
  /** Runs ./gate to its end. */
  gate(...args: string[]): Promise<Outcome>;
  gateIn(cwd: string, ...args: string[]): Promise<Outcome>;
  /** `gate up REPO --json`, parsed. */
  up(...args: string[]): Promise<Up>;
  /** Ends everything, also after a failure. */
  close(): Promise<void>;
}

export interface Up {
  readonly name: string;
  readonly root: string;
  readonly mount: string;
  readonly broker: { readonly url: string; readonly socket: string; readonly token_file: string };
  readonly pids: { readonly supervisor: number; readonly broker: number; readonly mount: number };
}

/** Longest that any command of a test may take. */
const COMMAND_MS = 60_000;

/** `below`: where its folder is made. */
export function makeRig(below = tmpdir()): Rig {
  const dir = mkdtempSync(join(below, 'gate-cli-'));
  const state = join(dir, 'state');
  const repo = join(dir, 'repo');
  mkdirSync(repo);
  writeFileSync(join(repo, 'a.txt'), 'one\n');
  const env: NodeJS.ProcessEnv = {};
  for (const [key, value] of Object.entries(process.env)) if (!key.startsWith('GATE_')) env[key] = value;
  Object.assign(env, { GATE_STATE_DIR: state, GATE_BROKER_PORT: '0', GATE_AGENTS: '' });
  const started = new Set<Running>();

  const start: Rig['start'] = (file, args, options = {}) => {
    const child = spawn(file, [...args], {
      cwd: options.cwd ?? dir,
      env: { ...env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: COMMAND_MS,
      killSignal: 'SIGKILL',
      detached: true,
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk));
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk));
    const running: Running = {
      pid: child.pid ?? -1,
      outcome: new Promise((resolve, reject) => {
        child.once('error', reject);
        // Not 'close': what a command leaves behind may hold the pipes open.
        child.once('exit', (status, signal) =>
          setTimeout(() => {
            started.delete(running);
            child.stdout.destroy();
            child.stderr.destroy();
            resolve({ status, signal, stdout, stderr });
          }, 20),
        );
      }),
      text: () => stdout + stderr,
      kill: (signal) => void child.kill(signal),
    };
    started.add(running);
    return running;
  };
  const gateIn = (cwd: string, ...args: string[]) => start(join(projectDir, 'gate'), args, { cwd }).outcome;
  const gate = (...args: string[]) => gateIn(dir, ...args);
  return {
    dir,
    state,
    repo,
    env,
    start,
    gate,
    gateIn,
    async up(...args) {
      const outcome = await gate('up', ...(args[0]?.startsWith('/') ? [] : [repo]), ...args, '--json');
      if (outcome.status !== 0) throw new Error(`gate up: ${outcome.stderr}${outcome.stdout}`);
      return JSON.parse(outcome.stdout) as Up;
    },
    async close() {
      // Each is the leader of a group of its own: what it started ends with it.
      for (const running of started)
        try {
          process.kill(-running.pid, 'SIGKILL');
        } catch {
          // It is gone.
        }
      await gate('down', '--all');
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Waits for something to be true; throws with `what` when it does not come. */
export async function eventually(
  what: string,
  probe: () => boolean | Promise<boolean>,
  limitMs = 15_000,
): Promise<void> {
  const end = Date.now() + limitMs;
  while (!(await probe())) {
    if (Date.now() > end) throw new Error(`never came: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}
