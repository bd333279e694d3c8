/**
 * Runs scripts/bench once more as an ordinary user, from root: in a mount and a process namespace of its own, which take
 * mounts and processes along when they end. There /dev/fuse is everybody's and the user has a name, as fusermount3 wants it.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';

const SCRIPT = `
set -e
mount -t tmpfs none "$DIR/dev"
mknod "$DIR/dev/fuse" c 10 229; chmod 666 "$DIR/dev/fuse"; mount --bind "$DIR/dev/fuse" /dev/fuse
{ grep -v "^[^:]*:[^:]*:$ID:" /etc/passwd; echo "bench:x:$ID:$ID::$DIR/own:/bin/sh"; } > "$DIR/dev/passwd"; mount --bind "$DIR/dev/passwd" /etc/passwd
cd "$DIR/own"
export HOME="$DIR/own"
exec setpriv --reuid "$ID" --regid "$ID" --clear-groups -- "$@"
`;

/**
 * Its exit status. `args` are those of scripts/bench, without --user, --dir and --json; `dir`: where the user gets a folder;
 * `json`: where the figures go, which need not be the user's.
 */
export function runAsUser(
  uid: number,
  dir: string,
  json: string | undefined,
  args: readonly string[],
): number {
  if (process.geteuid!() !== 0) throw new Error('--user is for root: the user has no say in /dev/fuse here');
  const base = mkdtempSync(`${resolve(dir)}/gate-bench-user-`);
  try {
    chmodSync(base, 0o755);
    for (const name of ['dev', 'own']) mkdirSync(`${base}/${name}`);
    chownSync(`${base}/own`, uid, uid);
    const figures = `${base}/own/figures.json`;
    const command = [
      process.execPath,
      ...process.execArgv,
      process.argv[1]!,
      ...args,
      '--dir',
      `${base}/own`,
      '--json',
      figures,
    ];
    const done = spawnSync(
      'unshare',
      ['-m', '-p', '--mount-proc', '--kill-child', 'bash', '-c', SCRIPT, 'bash', ...command],
      { env: { ...process.env, DIR: base, ID: String(uid) }, stdio: 'inherit' },
    );
    if (done.error !== undefined) throw done.error;
    if (done.status === 0 && json !== undefined) copyFileSync(figures, json);
    return done.status ?? 1;
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
}
