/** Several users on one tree: who may do what, to whom it belongs, what a write takes away. All of it takes root. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as sys from '../../src/sys/index.ts';
import {
  type Checks,
  needs,
  needsRoot,
  OTHER,
  outcome,
  type Place,
  py,
  run,
  sh,
  skip,
  type User,
} from './kit.ts';

const GROUP = 60_777;
const MEMBER = { ...OTHER, groups: [GROUP] };
const STRANGER = { uid: 60_002, gid: 60_002 };

/** A directory in which everybody may make files. */
function open(place: Place, mode = 0o777): void {
  needsRoot();
  fs.chmodSync(place.dir, mode);
}

function file(place: Place, name: string, mode: number, uid = 0, gid = 0): void {
  fs.writeFileSync(place.path(name), 'text');
  fs.chownSync(place.path(name), uid, gid);
  fs.chmodSync(place.path(name), mode);
}

/** Python that changes what is in the file `f`. */
const WAYS_TO_WRITE = {
  write: `f = os.open('f', os.O_WRONLY); os.write(f, b'x')`,
  append: `f = os.open('f', os.O_WRONLY | os.O_APPEND); os.write(f, b'x')`,
  truncate: `os.truncate('f', 1)`,
  ftruncate: `f = os.open('f', os.O_RDWR); os.ftruncate(f, 1)`,
  'open to truncate': `os.open('f', os.O_WRONLY | os.O_TRUNC)`,
  fallocate: `f = os.open('f', os.O_RDWR); os.posix_fallocate(f, 0, 100)`,
  copy: `g = os.open('src', os.O_RDONLY); f = os.open('f', os.O_RDWR); os.copy_file_range(g, f, 3)`,
};

const modeOf = (place: Place, name: string) => fs.lstatSync(place.path(name)).mode & 0o7777;
const ownersOf = (place: Place, name: string) => {
  const { uid, gid } = fs.lstatSync(place.path(name));
  return [uid, gid];
};

export const users: Checks = {
  'what a user makes belongs to the user'(place) {
    open(place);
    py(
      place,
      `
os.umask(0o022)
open('f', 'w').write('x'); os.mkdir('d'); os.symlink('x', 'l'); os.mkfifo('p'); os.mknod('n'); os.link('f', 'h')
t = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o666)
assert libc.linkat(-100, b'/proc/self/fd/%d' % t, -100, b't', 0x400) == 0
import socket; socket.socket(socket.AF_UNIX).bind('s')
say(1)`,
      OTHER,
    );
    for (const name of ['f', 'd', 'l', 'p', 'n', 'h', 't', 's'])
      assert.deepEqual(ownersOf(place, name), [OTHER.uid, OTHER.gid], name);
    assert.deepEqual(
      ['f', 'd', 'n', 't'].map((n) => modeOf(place, n)),
      [0o644, 0o755, 0o600, 0o644],
    );
  },

  'permissions of owner, group and others'(place) {
    open(place, 0o755);
    for (const [i, mode] of [0o400, 0o040, 0o004, 0o600, 0o060, 0o006].entries())
      file(place, `f${i}`, mode, OTHER.uid, GROUP);
    const script = `
say([[E(lambda: os.close(os.open('f%d' % i, m))) for m in (os.O_RDONLY, os.O_WRONLY)] for i in range(6)],
    E(os.unlink, 'f0'), E(lambda: open('new', 'w')), E(os.mkdir, 'd'), E(os.rename, 'f0', 'g'), E(os.chmod, 'f0', 0o777), E(os.chown, 'f0', 0, 0), E(os.utime, 'f0'))`;
    const [ok, no] = ['ok', 'EACCES'];
    const denied = [no, no, no, no];
    assert.deepEqual(py(place, script, OTHER), [
      [
        [ok, no],
        [no, no],
        [no, no],
        [ok, ok],
        [no, no],
        [no, no],
      ],
      ...denied,
      ok,
      'EPERM',
      ok,
    ]);
    file(place, 'f0', 0o400, OTHER.uid, GROUP);
    assert.deepEqual(py(place, script, { ...STRANGER, groups: [GROUP] }), [
      [
        [no, no],
        [ok, no],
        [no, no],
        [no, no],
        [ok, ok],
        [no, no],
      ],
      ...denied,
      'EPERM',
      'EPERM',
      no,
    ]);
    assert.deepEqual(py(place, script, STRANGER), [
      [
        [no, no],
        [no, no],
        [ok, no],
        [no, no],
        [no, no],
        [ok, ok],
      ],
      ...denied,
      'EPERM',
      'EPERM',
      no,
    ]);
  },

  'a directory that may not be entered, or only entered'(place) {
    open(place, 0o755);
    fs.mkdirSync(place.path('closed'), 0o700);
    fs.writeFileSync(place.path('closed/f'), 'x');
    fs.mkdirSync(place.path('blind'), 0o755);
    fs.writeFileSync(place.path('blind/f'), 'x');
    fs.chmodSync(place.path('blind'), 0o711);
    const said = py(
      place,
      `say(E(open, 'closed/f'), E(os.listdir, 'closed'), E(os.stat, 'closed'), E(open, 'blind/f'), E(os.listdir, 'blind'))`,
      OTHER,
    );
    assert.deepEqual(said, ['EACCES', 'EACCES', 'ok', 'ok', 'EACCES']);
  },

  'sticky directories: only the owner removes and renames'(place) {
    open(place, 0o1777);
    file(place, 'mine', 0o666, OTHER.uid, OTHER.gid);
    file(place, 'theirs', 0o666, STRANGER.uid, STRANGER.gid);
    const said = py(
      place,
      `say(E(os.unlink, 'theirs'), E(os.rename, 'theirs', 'x'), E(os.rename, 'mine', 'theirs'), E(os.rename, 'mine', 'renamed'), E(os.unlink, 'renamed'))`,
      OTHER,
    );
    assert.deepEqual(said, ['EPERM', 'EPERM', 'EPERM', 'ok', 'ok']);
  },

  'setgid directories hand their group down, and directories the bit'(place) {
    open(place);
    fs.mkdirSync(place.path('d'));
    fs.chownSync(place.path('d'), 0, GROUP);
    fs.chmodSync(place.path('d'), 0o2777);
    const script = `
os.umask(0)
for n, m in (('f', 0o2755), ('g', 0o644)):
    os.close(os.open('d/' + n, os.O_CREAT | os.O_WRONLY, m))
os.mknod('d/n', 0o102755); os.mkdir('d/s', 0o755); os.symlink('x', 'd/l')
os.close(os.open('d', os.O_TMPFILE | os.O_RDWR, 0o2755))
say(1)`;
    py(place, script, MEMBER);
    for (const name of ['f', 'g', 'n', 's', 'l'])
      assert.deepEqual(ownersOf(place, `d/${name}`), [OTHER.uid, GROUP], name);
    const modes = () => ['f', 'g', 'n', 's'].map((name) => modeOf(place, `d/${name}`).toString(8));
    assert.deepEqual(modes(), ['2755', '644', '2755', '2755']);
    fs.rmSync(place.path('d/s'), { recursive: true });
    for (const name of ['f', 'g', 'n', 'l']) fs.unlinkSync(place.path(`d/${name}`));
    py(place, script, OTHER); // not in the group: executables lose the bit
    assert.deepEqual(modes(), ['755', '644', '755', '2755']);
    assert.equal(
      outcome(sys.mknodat(sys.AT_FDCWD, place.path('d/dev'), sys.S_IFCHR | 0o600, sys.makeDev(1, 3))),
      'ok',
    );
    assert.deepEqual(ownersOf(place, 'd/dev'), [0, GROUP]);
  },

  "a user's write takes setuid and setgid away, root's does not"(place) {
    open(place);
    fs.writeFileSync(place.path('src'), 'source');
    const found: Record<string, string[]> = {};
    for (const [way, script] of Object.entries(WAYS_TO_WRITE)) {
      found[way] = [OTHER, undefined].flatMap((user) =>
        [0o6777, 0o2767].map((mode) => {
          file(place, 'f', mode, STRANGER.uid, STRANGER.gid);
          py(place, script, user);
          return modeOf(place, 'f').toString(8);
        }),
      );
    }
    // A group that may not execute: the setgid bit goes too, unless the writer is in the group (Linux 6.2).
    const [plain] = found.write!.slice(1, 2);
    const want = ['777', plain!, '6777', '2767'];
    assert.deepEqual(found, Object.fromEntries(Object.keys(WAYS_TO_WRITE).map((way) => [way, want])));
    file(place, 'f', 0o4755, STRANGER.uid, STRANGER.gid);
    fs.chownSync(place.path('f'), OTHER.uid, OTHER.gid);
    assert.equal(modeOf(place, 'f'), 0o755);
  },

  "a member's write leaves the setgid bit of a file that the group may not execute"(place) {
    open(place);
    fs.writeFileSync(place.path('src'), 'source');
    const member: User = { ...STRANGER, groups: [GROUP + 1, GROUP] };
    const found: Record<string, string[]> = {};
    for (const [way, script] of Object.entries(WAYS_TO_WRITE)) {
      found[way] = [0o6767, 0o2676].map((mode) => {
        file(place, 'f', mode, OTHER.uid, GROUP);
        py(place, script, member);
        return modeOf(place, 'f').toString(8);
      });
    }
    const want = ['2767', '676'];
    assert.deepEqual(found, Object.fromEntries(Object.keys(WAYS_TO_WRITE).map((way) => [way, want])));
    file(place, 'f', 0o6767, OTHER.uid, GROUP);
    py(place, WAYS_TO_WRITE.write, { uid: STRANGER.uid, gid: GROUP });
    assert.equal(modeOf(place, 'f'), 0o2767);
  },

  'a member and a stranger write to one setgid file that both have open'(place) {
    open(place);
    const member = `os.setgroups([${GROUP}]); os.setegid(${OTHER.gid}); os.seteuid(${OTHER.uid})`;
    const stranger = `os.setgroups([]); os.setegid(${STRANGER.gid}); os.seteuid(${STRANGER.uid})`;
    const found = [
      [member, stranger],
      [stranger, member],
    ].map(([first, second]) => {
      file(place, 'f', 0o2666, 0, GROUP);
      return py(
        place,
        `
def child(become, write, held, go):
    if os.fork() == 0:
        os.close(go[1]); exec(become)
        f = os.open('f', os.O_RDWR)
        os.write(held, b'x'); os.read(go[0], 1)
        if write: os.write(f, b'x')
        os._exit(0)
def run(writer):
    held, go = os.pipe(), os.pipe()
    child('${first}', writer == 0, held[1], go); os.read(held[0], 1)
    child('${second}', writer == 1, held[1], go); os.read(held[0], 1)
    os.write(go[1], b'xx'); os.wait(); os.wait()
    mode = os.stat('f').st_mode & 0o7777
    os.chmod('f', 0o2666)
    return oct(mode)
say(run(0), run(1))`,
      );
    });
    const [kept, lost] = found[0] as [string, string];
    assert.equal(kept, '0o2666');
    assert.deepEqual(found[1], [lost, kept]);
  },

  'root and a user write to one setuid file that both have open'(place) {
    open(place);
    for (const first of ['root', 'user']) {
      file(place, 'f', 0o4777);
      const said = py(
        place,
        `
def as_user(f):
    pid = os.fork()
    if pid == 0:
        os.setgroups([]); os.setgid(${OTHER.gid}); os.setuid(${OTHER.uid})
        f(); os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
mode = lambda: oct(os.stat('f').st_mode & 0o7777)
out = []
first = '${first}'
if first == 'user':
    os.setegid(${OTHER.gid}); os.seteuid(${OTHER.uid})
a = os.open('f', os.O_RDWR)
if first == 'user':
    os.seteuid(0); os.setegid(0)
os.write(os.open('f', os.O_RDWR), b'root'); out.append(mode())
def write():
    assert os.write(os.open('f', os.O_WRONLY), b'USER') == 4
as_user(write); out.append(mode())
say(out, os.pread(a, 9, 0).decode(), open('f').read())`,
      );
      assert.deepEqual(said, [['0o4777', '0o777'], 'USER', 'USER'], first);
    }
  },

  'a setuid program runs as its owner, one with capabilities has them, and a write takes both'(place) {
    open(place);
    fs.copyFileSync(needs('python3'), place.path('program'));
    fs.chownSync(place.path('program'), OTHER.uid, GROUP);
    fs.chmodSync(place.path('program'), 0o6755);
    const show = [
      '-c',
      'import os; print(os.geteuid(), os.getegid(), [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")][0])',
    ];
    const shown = () => run(place, place.path('program'), show, STRANGER).split(' ');
    if (shown()[0] === String(STRANGER.uid)) skip('mounted with nosuid');
    assert.deepEqual(shown().slice(0, 2), [String(OTHER.uid), String(GROUP)]);
    // vfs_cap_data, version 2: CAP_NET_RAW, permitted and effective (linux/capability.h).
    const capability = Buffer.alloc(20);
    capability.writeUInt32LE(0x0200_0001, 0);
    capability.writeUInt32LE(1 << 13, 4);
    fs.chmodSync(place.path('program'), 0o755);
    assert.equal(outcome(sys.setxattr(place.path('program'), 'security.capability', capability, 0)), 'ok');
    assert.deepEqual(shown(), [String(STRANGER.uid), String(STRANGER.gid), '0000000000002000']);
    fs.appendFileSync(place.path('program'), '\n');
    assert.equal(outcome(sys.getxattr(place.path('program'), 'security.capability', capability)), 'ENODATA');
    assert.equal(shown()[2], '0000000000000000');
    assert.equal(outcome(sys.setxattr(place.path('program'), 'security.capability', capability, 0)), 'ok');
    fs.chownSync(place.path('program'), OTHER.uid, OTHER.gid);
    assert.equal(outcome(sys.getxattr(place.path('program'), 'security.capability', capability)), 'ENODATA');
  },

  "O_NOATIME is the owner's"(place) {
    open(place);
    file(place, 'f', 0o666);
    file(place, 'mine', 0o600, OTHER.uid, OTHER.gid);
    const said = py(place, `say([E(os.open, n, os.O_RDONLY | os.O_NOATIME) for n in ('f', 'mine')])`, OTHER);
    assert.deepEqual(said, ['EPERM', 'ok']);
  },

  'ACLs: named users, the mask, and what directories hand down'(place) {
    open(place, 0o755);
    needs('setfacl');
    fs.mkdirSync(place.path('d'), 0o700);
    fs.writeFileSync(place.path('f'), 'x', { mode: 0o600 });
    try {
      sh(
        place,
        `setfacl -m u:${OTHER.uid}:rw f && setfacl -m u:${OTHER.uid}:rwx,d:u:${OTHER.uid}:rwx,d:o::- d`,
      );
    } catch {
      skip('no ACLs here');
    }
    const said = py(place, `say(E(open, 'f', 'r+'), E(open, 'd/made', 'w'), E(os.mkdir, 'd/sub'))`, OTHER);
    assert.deepEqual(said, ['ok', 'ok', 'ok']);
    assert.deepEqual(py(place, `say(E(open, 'f', 'r+'), E(os.listdir, 'd'))`, STRANGER), [
      'EACCES',
      'EACCES',
    ]);
    const acl = sh(place, 'umask 077; : > d/root; getfacl -cn f d d/root d/sub');
    assert.match(acl, new RegExp(`user:${OTHER.uid}:rw-`));
    assert.match(acl, new RegExp(`default:user:${OTHER.uid}:rwx`));
    assert.equal(modeOf(place, 'd/root'), 0o660); // the default ACL, not the umask
    sh(place, 'chmod 600 f');
    assert.deepEqual(py(place, `say(E(open, 'f', 'r+'))`, OTHER), 'EACCES');
    sh(place, 'setfacl -b f && chmod 640 f');
    assert.equal(sh(place, 'getfacl -cn f'), 'user::rw-\ngroup::r--\nother::---');
  },

  "trusted attributes are root's, user attributes follow the mode"(place) {
    open(place);
    file(place, 'f', 0o644);
    const value = Buffer.from('x');
    const first = outcome(sys.setxattr(place.path('f'), 'trusted.secret', value, 0));
    if (first !== 'ok') skip(`no trusted.* attributes here: ${first}`);
    sys.setxattr(place.path('f'), 'user.shown', value, 0);
    const said = py(
      place,
      `say(os.listxattr('f'), E(os.getxattr, 'f', 'trusted.secret'), E(os.setxattr, 'f', 'user.mine', b'x'), E(os.getxattr, 'f', 'user.shown'))`,
      OTHER,
    );
    assert.deepEqual(said, [['user.shown'], 'ENODATA', 'EACCES', 'ok']);
    assert.deepEqual(
      (py(place, `say(sorted(os.listxattr('f')))`) as string[]).filter((n) => !n.startsWith('security.')),
      ['trusted.secret', 'user.shown'],
    );
  },

  'chown: by root to anybody, by the owner to a group of theirs'(place) {
    open(place);
    file(place, 'f', 0o644, OTHER.uid, OTHER.gid);
    const said = py(
      place,
      `say(E(os.chown, 'f', -1, ${GROUP}), E(os.chown, 'f', ${STRANGER.uid}, -1), E(os.chown, 'f', -1, ${STRANGER.gid}), E(os.chmod, 'f', 0o2755))`,
      MEMBER,
    );
    assert.deepEqual(said, ['ok', 'EPERM', 'EPERM', 'ok']);
    assert.deepEqual([ownersOf(place, 'f'), modeOf(place, 'f')], [[OTHER.uid, GROUP], 0o2755]);
    fs.symlinkSync('f', place.path('l'));
    fs.lchownSync(place.path('l'), STRANGER.uid, STRANGER.gid);
    assert.deepEqual(
      [ownersOf(place, 'l'), ownersOf(place, 'f')],
      [
        [STRANGER.uid, STRANGER.gid],
        [OTHER.uid, GROUP],
      ],
    );
  },

  'utimes: the owner sets, a writer touches, others may not'(place) {
    open(place);
    file(place, 'f', 0o666);
    file(place, 'g', 0o644);
    const said = py(place, `say(E(os.utime, 'f'), E(os.utime, 'f', (1, 1)), E(os.utime, 'g'))`, OTHER);
    assert.deepEqual(said, ['ok', 'EPERM', 'EACCES']);
  },
};
