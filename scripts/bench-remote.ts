/**
 * The remote mount against SSHFS with the stock sftp-server, over the same sshd on this machine's loopback, on the same view.
 *
 *   node scripts/bench-remote.ts [ROUNDS]
 *
 * Each row is done through both, in turn; shown is the median of the rounds in milliseconds, and the ratio. `first`: just mounted.
 * Needs root.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { startGate } from '../test/e2e/harness.ts';
import { startSshd } from '../test/e2e/sshd.ts';

const ROUNDS = Number(process.argv[2] ?? 3);
const FILES = 1200;

/** What is measured, in a directory with the tree in `repo`. The time is printed by the program itself, in milliseconds. */
const PRELUDE = `
import os, subprocess, sys, time
def run(*a): subprocess.run(a, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def files(): return [os.path.join(d, f) for d, _, fs in os.walk('repo') if '.git' not in d for f in fs]
def timed(f):
    t = time.perf_counter(); f(); print((time.perf_counter() - t) * 1000)
`;
const STAT = "names = [f'repo/d{i % 40}/f{i}.c' for i in range(600)]\n";
const ROWS: Readonly<Record<string, string>> = {
  'git status, first': "timed(lambda: run('git', '-C', 'repo', 'status'))",
  'git status, again':
    "run('git', '-C', 'repo', 'status'); timed(lambda: run('git', '-C', 'repo', 'status'))",
  'rg, first': "timed(lambda: run('rg', '-c', 'line', 'repo'))",
  'rg, again': "run('rg', '-c', 'line', 'repo'); timed(lambda: run('rg', '-c', 'line', 'repo'))",
  'stat of 600 files, first': `${STAT}timed(lambda: [os.stat(n) for n in names])`,
  'open and close of 600 files, again': `${STAT}def go():
    for n in names: os.close(os.open(n, os.O_RDONLY))
go(); timed(go)`,
  'read of 600 files, first': `${STAT}def go():
    for n in names: open(n).read()
timed(go)`,
  'build: 100 times read 12 files, write one': `${STAT}def go():
    os.makedirs('out', exist_ok=True)
    for i in range(100):
        text = ''.join(open(n).read() for n in names[:11] + [names[i + 20]])
        open(f'out/o{i}', 'w').write(text)
timed(go); run('rm', '-r', 'out')`,
  'create 200 files, remove them': `def go():
    for i in range(200): open(f'new{i}', 'w').write('x')
    for i in range(200): os.remove(f'new{i}')
timed(go)`,
  'read 64 MiB, first': "timed(lambda: run('dd', 'if=big', 'of=/dev/null', 'bs=1M'))",
  'write 64 MiB':
    "timed(lambda: run('dd', 'if=/dev/zero', 'of=new', 'bs=1M', 'count=64', 'conv=fsync')); run('rm', 'new')",
};

const ends: (() => unknown)[] = [];
const test = { after: (end: () => unknown) => ends.push(end) } as unknown as TestContext;

function sh(script: string, cwd: string): string {
  const done = spawnSync('bash', ['-ec', script], {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, GATE_ACTOR: 'bench' },
  });
  if (done.status !== 0) throw new Error(`${script}\n${done.stderr}`);
  return done.stdout;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

try {
  const sshd = await startSshd(test, '/usr/lib/openssh/sftp-server');
  const gate = await startGate(test, { serve: { ttlMs: 15_000 } });
  sh(
    `git init -q repo; cd repo; for i in $(seq 0 39); do mkdir d$i; done
     for i in $(seq 0 ${FILES - 1}); do for k in $(seq 60); do echo "line $k of file $i, some more text here"; done > d$((i % 40))/f$i.c; done
     git add .; git -c user.name=a -c user.email=a@b commit -qm all; cd ..; head -c 67108864 /dev/urandom > big`,
    gate.root,
  );
  const { identityFile, hostKeys } = sshd.target;
  const keys = [
    '--ssh-key',
    identityFile!,
    '--known-hosts',
    hostKeys!.file,
    '--host-key-alias',
    hostKeys!.alias,
  ];
  const doors = {
    gate: async () => {
      const flags = [...keys, '--remote-socket', gate.serveSocket];
      const at = await gate.remoteMount(`ssh://root@127.0.0.1:${sshd.port}`, flags);
      return { at, end: () => sh(`umount -l ${at}`, '/') };
    },
    sshfs: async () => {
      const at = `${gate.dir}/sshfs`;
      mkdirSync(at, { recursive: true });
      const ssh = [
        `Port=${sshd.port}`,
        `IdentityFile=${identityFile}`,
        `UserKnownHostsFile=${hostKeys!.file}`,
      ];
      const options = [...ssh, 'StrictHostKeyChecking=yes', `HostKeyAlias=${hostKeys!.alias}`];
      sh(`sshfs root@127.0.0.1:${gate.mount} ${at} ${options.map((one) => `-o ${one}`).join(' ')}`, '/');
      return { at, end: () => sh(`fusermount3 -u -z ${at}`, '/') };
    },
  };
  const times: Record<string, { gate: number[]; sshfs: number[] }> = {};
  for (let round = 0; round < ROUNDS; round++)
    for (const [name, code] of Object.entries(ROWS))
      for (const method of round % 2 === 0 ? (['gate', 'sshfs'] as const) : (['sshfs', 'gate'] as const)) {
        const { at, end } = await doors[method]();
        const out = spawnSync('python3', ['-c', PRELUDE + code], {
          cwd: at,
          encoding: 'utf8',
          timeout: 120_000,
          env: { ...process.env, GATE_ACTOR: 'bench' },
        });
        end();
        if (out.status !== 0) throw new Error(`${name} through ${method}: ${out.stderr}`);
        times[name] ??= { gate: [], sshfs: [] };
        times[name][method].push(Number(out.stdout.trim().split('\n').at(-1)));
      }
  console.log('| | gate, ms | sshfs, ms | sshfs / gate |\n|---|---:|---:|---:|');
  for (const [name, { gate: ours, sshfs }] of Object.entries(times)) {
    const [a, b] = [median(ours), median(sshfs)];
    console.log(`| ${name} | ${a.toFixed(0)} | ${b.toFixed(0)} | ${(b / a).toFixed(1)} |`);
  }
} finally {
  for (const end of ends.reverse()) await end();
}
process.exit(0);
