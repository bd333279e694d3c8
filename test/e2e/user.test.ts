/**
 * An ordinary user's own broker and mount: no root, no kernel passthrough. The test itself is run by root, who gives the user a
 * name and a /dev/fuse to open, in a mount namespace that ends with it.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { cleanEnv } from './harness.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const UID = 60_101;
const OTHER_UID = 60_102;

/** Whatever happens below, the end of the two namespaces takes mounts and processes along. `as UID CMD…` runs as that user. */
const PRELUDE = `
set -e
mount -t tmpfs none "$DIR/dev"; mknod "$DIR/dev/fuse" c 10 229; chmod 666 "$DIR/dev/fuse"; mount --bind "$DIR/dev/fuse" /dev/fuse
{ cat /etc/passwd; for id in ${UID} ${OTHER_UID}; do echo "gate$id:x:$id:$id::/nonexistent:/bin/sh"; done; } > "$DIR/dev/passwd"; mount --bind "$DIR/dev/passwd" /etc/passwd
as() { local id=$1; shift; setpriv --reuid "$id" --regid "$id" --clear-groups -- "$@"; }
# Only for the background, where exec makes $! the process itself.
gate() { exec setpriv --reuid ${UID} --regid ${UID} --clear-groups -- "$NODE" --disable-warning=ExperimentalWarning "$MAIN" "$@"; }
ready() { for _ in $(seq 400); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done; echo "never: $*" >&2; exit 1; }
gate broker --state-dir "$DIR/state" --port 0 > "$DIR/broker.log" 2>&1 & BROKER=$!
ready test -S "$DIR/state/broker.sock"
gate mount --root "$DIR/root" --mount "$DIR/mnt" --state-dir "$DIR/state" $FLAGS > "$DIR/mount.log" 2>&1 & MOUNT=$!
ready grep -q " $DIR/mnt " /proc/self/mountinfo
finish() { fusermount3 -u "$DIR/mnt" || umount -l "$DIR/mnt"; wait $MOUNT; kill $BROKER; wait $BROKER || true; }
cd /
`;

async function asUser(t: TestContext, script: string, flags = ''): Promise<{ out: string; root: string }> {
  const dir = fs.mkdtempSync('/var/tmp/gate-user-');
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  fs.chmodSync(dir, 0o755);
  for (const name of ['root', 'mnt', 'state', 'dev']) {
    fs.mkdirSync(join(dir, name));
    fs.chownSync(join(dir, name), UID, UID);
  }
  const child = spawn(
    'unshare',
    ['-m', '-p', '--mount-proc', '--kill-child', 'bash', '-c', PRELUDE + script],
    {
      env: cleanEnv({ DIR: dir, FLAGS: flags, MAIN, NODE: process.execPath, HOME: dir }),
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  t.after(() => child.kill('SIGKILL'));
  let out = '';
  let err = '';
  child.stdout.on('data', (part) => (out += part));
  child.stderr.on('data', (part) => (err += part));
  const status = await new Promise((done) => child.on('close', done));
  const logs = ['broker.log', 'mount.log'].map((name) => fs.readFileSync(join(dir, name), 'utf8'));
  assert.equal(status, 0, `${out}\n${err}\n${logs.join('\n')}`);
  return { out, root: join(dir, 'root') };
}

/** Why this cannot be tested here; false: it can. */
function missing(): string | false {
  if (process.geteuid!() !== 0) return 'needs root, to make an ordinary user';
  // The user must be able to read the project and run Node.
  for (const path of [MAIN, process.execPath, PROJECT])
    for (let at = path; at !== '/'; at = join(at, '..'))
      if ((fs.statSync(at).mode & 0o005) !== 0o005 && !fs.statSync(at).isFile())
        return `${at} is closed to others`;
  return false;
}

const options = { skip: missing(), timeout: 60_000 };

test('an ordinary user mounts a view, works in it, and takes turns', options, async (t) => {
  const { out, root } = await asUser(
    t,
    `
as ${UID} bash -ec 'cd "$DIR/mnt"
mkdir d; echo one > d/f; echo two >> d/f; cat d/f; mv d/f d/g; ln d/g d/h; ln -s g d/l; cat d/l; chmod 600 d/g; truncate -s 3 d/h; cat d/g; echo; touch -d @5 d/g; stat -c %Y,%h d/g
cp /bin/true program; ./program; (umask 077; : > private); stat -c %a private; dd if=/dev/zero of=big bs=1M count=8 status=none; rm -r d; stat -c %s big
exec 3>> locked; date +%s%N > "$DIR/state/began"; { sleep 1; echo holder; } >&3 & exec 3>&-; sleep 0.2
GATE_ACTOR=waiter bash -c "echo waiter >> locked"; cat locked; wait'
finish
`,
  );
  assert.equal(out, 'one\ntwo\none\ntwo\none\n5,2\n600\n8388608\nholder\nwaiter\n');
  // `.gate`: one process cut and removed what another had written.
  assert.deepEqual(fs.readdirSync(root).sort(), ['.gate', 'big', 'locked', 'private', 'program']);
  assert.equal(fs.statSync(join(root, 'big')).uid, UID);
});

test(
  "another user does not come into an ordinary user's view unless fuse.conf says so",
  options,
  async (t) => {
    const { out } = await asUser(
      t,
      `
(cd "$DIR/root"; echo text > f)
as ${UID} cat "$DIR/mnt/f"
if grep -q '^user_allow_other' /etc/fuse.conf; then as ${OTHER_UID} cat "$DIR/mnt/f"; else as ${OTHER_UID} cat "$DIR/mnt/f" || echo closed; fi
finish
`,
    );
    assert.match(out, /^text\n(?:text|closed)\n$/);
  },
);

test("an ordinary user's view follows what is changed outside, and wakes watchers", options, async (t) => {
  const watching = `
cat > "$DIR/watch.mjs" <<'END'
import { watch } from 'node:fs';
watch('.', (event, name) => { if (name === 'f') console.log('heard'); });
END
cd "$DIR/root"; echo one > f; chown ${UID}:${UID} f
(exec setpriv --reuid ${UID} --regid ${UID} --clear-groups -- bash -c 'cd "$DIR/mnt"; cat f; stat -c %s f; test ! -e new; exec "$NODE" "$DIR/watch.mjs" > "$DIR/state/heard"') & WATCH=$!
ready bash -c "cat /proc/$WATCH/fdinfo/* | grep -q '^inotify wd'"
echo 'two and more' > f
ready as ${UID} bash -c 'test $(stat -c %s "$DIR/mnt/f") = 13'
echo new > new
ready as ${UID} test -e "$DIR/mnt/new"
ready grep -q heard "$DIR/state/heard"
as ${UID} bash -c 'cat "$DIR/mnt/f" "$DIR/mnt/new"'
cd /; kill $WATCH
finish
`;
  const { out } = await asUser(t, watching, '--watch on --attr-valid-ms 600000');
  assert.equal(out, 'one\n4\ntwo and more\nnew\n');
});
