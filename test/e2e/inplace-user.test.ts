/** `gate up --in-place` by an ordinary user: fusermount3 mounts over a directory of theirs. Run by root, as user.test.ts is. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { test } from 'node:test';
import { projectDir } from '../../src/base/version.ts';
import { cleanEnv } from './harness.ts';

const UID = 60_103;

/** The end of the two namespaces takes mounts and processes along, whatever happens. */
const SCRIPT = `
set -e
mount -t tmpfs none "$DIR/dev"; mknod "$DIR/dev/fuse" c 10 229; chmod 666 "$DIR/dev/fuse"; mount --bind "$DIR/dev/fuse" /dev/fuse
{ cat /etc/passwd; echo "gate${UID}:x:${UID}:${UID}::/nonexistent:/bin/sh"; } > "$DIR/dev/passwd"; mount --bind "$DIR/dev/passwd" /etc/passwd
as() { setpriv --reuid ${UID} --regid ${UID} --clear-groups -- "$@"; }
gate() { as "$NODE" --disable-warning=ExperimentalWarning "$MAIN" "$@"; }
until_ok() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done; echo "never: $*" >&2; exit 1; }
shows() { as grep -q one "$DIR/repo/a.txt"; }
tree() { find "$DIR/repo" -printf '%P %i %m %n %U %s %T@ %C@\\n' | sort; }
cd /
tree > "$DIR/before"
gate up --in-place "$DIR/repo" --json > "$DIR/up.json"
shows
as sh -c 'cat "$DIR/repo/.gate/who"' > /dev/null
# A killed mount comes back by itself; with everything dead, doctor brings it back.
MOUNT=$(sed 's/.*"mount":\\([0-9]*\\)}.*/\\1/' "$DIR/up.json")
kill -9 "$MOUNT"
until_ok shows
gate up --in-place "$DIR/repo" --json > "$DIR/up.json"
for pid in $(sed 's/.*"pids"://; s/[^0-9]/ /g' "$DIR/up.json"); do kill -9 "$pid"; done
! shows 2>/dev/null
gate doctor | grep repaired
shows
gate down
tree > "$DIR/after"
cmp "$DIR/before" "$DIR/after"
gate up --in-place "$DIR/repo"
as sh -c 'echo two > "$DIR/repo/b.txt"'
gate down "$DIR/repo"
cat "$DIR/repo/b.txt"
`;

test('an ordinary user mounts over a repository, and a crash is mended', {
  skip: process.getuid?.() === 0 ? false : 'root sets the user up',
}, async (t) => {
  const dir = fs.mkdtempSync('/var/tmp/gate-inplace-user-');
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  fs.chmodSync(dir, 0o777);
  for (const name of ['repo', 'state', 'dev']) {
    fs.mkdirSync(`${dir}/${name}`);
    fs.chownSync(`${dir}/${name}`, UID, UID);
  }
  fs.writeFileSync(`${dir}/repo/a.txt`, 'one\n');
  const main = `${projectDir}/src/cli/main.ts`;
  const child = spawn('unshare', ['-m', '-p', '--mount-proc', '--kill-child', 'bash', '-c', SCRIPT], {
    env: cleanEnv({
      ...{ DIR: dir, MAIN: main, NODE: process.execPath, HOME: dir },
      ...{ GATE_STATE_DIR: `${dir}/state`, GATE_BROKER_PORT: '0' },
    }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  for (const pipe of [child.stdout, child.stderr]) pipe.on('data', (part: Buffer) => (said += part));
  const status = await new Promise((done) => child.on('close', done));
  const log = `${dir}/state/logs/repo/mount.log`;
  assert.equal(status, 0, `${said}\n${fs.existsSync(log) ? fs.readFileSync(log, 'utf8') : ''}`);
  assert.match(said, /repaired the view repo/);
  assert.match(said, /two\n$/);
});
