/** An sshd of a test's own: keys, configuration and port nobody else uses. Needs root, as sshd does to let anybody in. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { until } from '../../src/base/clock.ts';
import type { SshTarget } from '../../src/ssh/index.ts';
import { PATIENCE_MS } from './harness.ts';

export interface Sshd {
  readonly dir: string;
  readonly port: number;
  readonly target: SshTarget;
  /** Options of ssh, scp and sftp that lead to it. */
  readonly options: readonly string[];
  /** Ends every connection; `start` lets new ones in again. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

/** `subsystem`: what `sftp` and `scp` get. */
export async function startSshd(test: TestContext, subsystem?: string): Promise<Sshd> {
  const dir = mkdtempSync('/var/tmp/gate-sshd-');
  const port = await freePort();
  for (const name of ['host', 'user'])
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(dir, name)]);
  const config = [
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    `HostKey ${dir}/host`,
    `AuthorizedKeysFile ${dir}/user.pub`,
    `PidFile ${dir}/pid`,
    'StrictModes no',
    'UsePAM no',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'PermitRootLogin prohibit-password',
    'MaxStartups 100',
    'LogLevel ERROR',
    ...(subsystem === undefined ? [] : [`Subsystem sftp ${subsystem}`]),
  ];
  writeFileSync(join(dir, 'config'), `${config.join('\n')}\n`);
  writeFileSync(join(dir, 'known'), `gate-test ${readFileSync(join(dir, 'host.pub'), 'utf8')}`);
  mkdirSync('/run/sshd', { recursive: true });
  let child: ChildProcess | undefined;
  let log = '';
  const start = async () => {
    // A session of its own, so that all its connections can be ended with it.
    const started = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', join(dir, 'config')], {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    });
    child = started;
    started.stderr.on('data', (text) => (log += text));
    const up = await until(async () => started.exitCode !== null || (await answers(port)), PATIENCE_MS);
    if (!up || started.exitCode !== null) throw new Error(`sshd does not answer:\n${log}`);
  };
  const kill = () => {
    if (child?.pid === undefined) return;
    for (const pid of [...descendants(child.pid), child.pid])
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It is gone.
      }
  };
  const stop = async () => {
    const ending = child;
    kill();
    child = undefined;
    if (ending === undefined) return;
    await until(() => ending.exitCode !== null || ending.signalCode !== null, PATIENCE_MS);
  };
  // Also where another hook failed before this one.
  process.once('exit', kill);
  test.after(async () => {
    process.off('exit', kill);
    await stop();
    rmSync(dir, { recursive: true, force: true });
  });
  await start();
  const target: SshTarget = {
    user: 'root',
    host: '127.0.0.1',
    port,
    identityFile: join(dir, 'user'),
    hostKeys: { file: join(dir, 'known'), alias: 'gate-test' },
    controlPath: null,
  };
  const { sshOptions } = await import('../../src/ssh/index.ts');
  return { dir, port, target, options: ['-F', 'none', ...sshOptions(target)], start, stop };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as { port: number };
  await new Promise((done) => server.close(done));
  return port;
}

function answers(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('data', () => done(true));
    socket.once('error', () => done(false));
    socket.once('close', () => done(false));
    setTimeout(() => socket.destroy(), 2000).unref();
  });
}

/** Processes below `pid`, the deepest first. */
export function descendants(pid: number): number[] {
  let children: number[];
  try {
    children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
      .split(' ')
      .filter(Boolean)
      .map(Number);
  } catch {
    return [];
  }
  return children.flatMap((child) => [...descendants(child), child]);
}
