/** Names and directories: any bytes, any length, any depth, any number. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import * as sys from '../../src/sys/index.ts';
import { type Checks, needs, needsRoot, outcome, py, sh, skip, thrown } from './kit.ts';

const MANY = 50_000;

export const names: Checks = {
  'a name of 255 bytes; 256 are too many'({ path }) {
    fs.writeFileSync(path('n'.repeat(255)), 'x');
    assert.equal(fs.readFileSync(path('n'.repeat(255)), 'utf8'), 'x');
    const wide = 'é'.repeat(127);
    fs.mkdirSync(path(wide));
    assert.ok(fs.readdirSync(path('.')).includes(wide));
    for (const call of [
      () => fs.writeFileSync(path('n'.repeat(256)), 'x'),
      () => fs.mkdirSync(path('n'.repeat(256))),
      () => fs.statSync(path('n'.repeat(256))),
      () => fs.renameSync(path(wide), path('n'.repeat(256))),
      () => fs.symlinkSync('x', path('n'.repeat(256))),
      () => fs.linkSync(path('n'.repeat(255)), path('n'.repeat(256))),
    ])
      assert.equal(thrown(call), 'ENAMETOOLONG');
  },

  'names of any bytes but / and NUL'({ dir, path }) {
    const odd = [
      Buffer.from([0xff, 0xfe, 0x80]),
      Buffer.from([0xed, 0xa0, 0x80]),
      Buffer.from('a\nb\tc\\d\'e"f'),
      Buffer.from(' '),
      Buffer.from('-rf *'),
      Buffer.from('...'),
      Buffer.from('\u202e'),
      Buffer.from([0x01]),
    ];
    const at = (name: Buffer) => Buffer.concat([Buffer.from(`${dir}/`), name]);
    for (const [i, name] of odd.entries()) {
      fs.writeFileSync(at(name), String(i));
      fs.renameSync(at(name), path('between'));
      fs.renameSync(path('between'), at(name));
      fs.chmodSync(at(name), 0o600 + i);
    }
    const listed = fs.readdirSync(dir, { encoding: 'buffer' }).map((n) => n.toString('hex'));
    assert.deepEqual(listed.sort(), odd.map((n) => n.toString('hex')).sort());
    for (const [i, name] of odd.entries()) {
      assert.equal(fs.readFileSync(at(name), 'utf8'), String(i));
      assert.equal(fs.statSync(at(name)).mode & 0o777, 0o600 + i);
    }
  },

  'names that differ in case or in normalisation are different'({ dir, path }) {
    for (const name of ['a', 'A', 'é', 'e\u0301']) fs.writeFileSync(path(name), name);
    for (const name of ['a', 'A', 'é', 'e\u0301']) assert.equal(fs.readFileSync(path(name), 'utf8'), name);
    assert.equal(fs.readdirSync(dir).length, 4);
  },

  'a path as long as PATH_MAX, relative to a directory'(place) {
    const said = py(
      place,
      `
name = 'd' * 240
path = '/'.join([name] * 16) + '/'
path += 'f' * (4095 - len(path))
os.makedirs(os.path.dirname(path))
out = [E(lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))), E(os.chmod, path, 0o600), E(os.stat, path)]
out += [E(os.rename, path, 'short'), E(os.rename, 'short', path), E(os.unlink, path), E(os.mkdir, path), E(os.rmdir, path)]
out += [E(os.symlink, 'x', path), E(os.unlink, path), E(os.stat, path + 'x')]
say(out)`,
    );
    assert.deepEqual(said, [...Array(10).fill('ok'), 'ENAMETOOLONG']);
  },

  'a tree deeper than PATH_MAX'({ dir }) {
    const name = 'deeper-and-deeper-and-deeper-and-deeper';
    let fd = sys.openat(sys.AT_FDCWD, dir, sys.O_RDONLY | sys.O_DIRECTORY);
    const step = (next: number) => {
      assert.ok(next >= 0, outcome(next));
      sys.close(fd);
      fd = next;
    };
    for (let i = 0; i < 150; i++) {
      assert.equal(outcome(sys.mkdirat(fd, name, 0o755)), 'ok', `level ${i}`);
      step(sys.openat(fd, name, sys.O_RDONLY | sys.O_DIRECTORY));
    }
    const file = sys.openat(fd, 'file', sys.O_CREAT | sys.O_RDWR, 0o644);
    assert.ok(file >= 0, outcome(file));
    assert.equal(sys.pwrite(file, Buffer.from('deep'), 0), 4);
    sys.close(file);
    assert.equal(outcome(sys.renameat2(fd, 'file', fd, 'moved', 0)), 'ok');
    assert.equal(outcome(sys.unlinkat(fd, 'moved', 0)), 'ok');
    for (let i = 0; i < 150; i++) {
      step(sys.openat(fd, '..', sys.O_RDONLY | sys.O_DIRECTORY));
      assert.equal(outcome(sys.unlinkat(fd, name, sys.AT_REMOVEDIR)), 'ok', `level ${i}`);
    }
    sys.close(fd);
  },

  'changes of the current directory by the name .'(place) {
    fs.mkdirSync(place.path('d'));
    const said = py(
      place,
      `
os.chdir('d')
out = []
for mode in range(0o700, 0o720):
    out.append(E(os.chmod, '.', mode))
    assert os.stat('.').st_mode & 0o7777 == mode
out += [E(os.chmod, '.', 0o755), E(os.utime, '.', ns=(1, 2)), E(os.chmod, '../d', 0o700), E(os.chmod, './', 0o755)]
out += [E(os.chown, '.', os.getuid(), os.getgid()), E(os.setxattr, '.', 'user.a', b'b')]
say(out, E(os.rmdir, '.'), E(os.mkdir, '.'), E(os.rename, '.', '../e'), E(os.unlink, '.'))`,
    );
    assert.deepEqual(said, [Array(22).fill('ok'), 'EINVAL', 'EEXIST', 'EBUSY', 'EISDIR']);
  },

  "changes through a directory's or a file's descriptor"(place) {
    const said = py(
      place,
      `
os.mkdir('d'); open('f', 'w').close()
d = os.open('d', os.O_RDONLY | os.O_DIRECTORY)
out = [E(os.fchmod, d, 0o711), E(os.utime, d, ns=(5, 6)), E(os.fchown, d, os.getuid(), os.getgid()), E(os.chmod, '/proc/self/fd/%d' % d, 0o700)]
f = os.open('f', os.O_RDONLY)
out += [E(os.fchmod, f, 0o644), E(os.utime, f, ns=(5, 6)), E(os.fchown, f, os.getuid(), os.getgid()), E(os.chmod, '/proc/self/fd/%d' % f, 0o600)]
p = os.open('f', os.O_PATH)
out += [E(os.chmod, '/proc/self/fd/%d' % p, 0o640), E(os.utime, '/proc/self/fd/%d' % p, ns=(7, 8))]
os.close(f)
out += [E(os.chmod, '/proc/self/fd/%d' % p, 0o604)]
pid = os.fork()
if pid == 0: os._exit(E(os.fchmod, d, 0o755) != 'ok')
out += [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
say(out, oct(os.stat('d').st_mode), oct(os.stat('f').st_mode), os.stat('f').st_mtime_ns)`,
    );
    assert.deepEqual(said, [[...Array(11).fill('ok'), 0], '0o40755', '0o100604', 8]);
  },

  'trailing slashes and files that are no directories'({ path }) {
    fs.writeFileSync(path('f'), '');
    fs.mkdirSync(path('d'));
    fs.symlinkSync('d', path('l'));
    assert.equal(
      thrown(() => fs.statSync(path('f/'))),
      'ENOTDIR',
    );
    assert.equal(
      thrown(() => fs.writeFileSync(path('f/x'), '')),
      'ENOTDIR',
    );
    assert.equal(
      thrown(() => fs.readdirSync(path('f'))),
      'ENOTDIR',
    );
    assert.equal(
      thrown(() => fs.rmdirSync(path('f'))),
      'ENOTDIR',
    );
    assert.equal(
      thrown(() => fs.unlinkSync(path('d'))),
      'EISDIR',
    );
    assert.equal(
      thrown(() => fs.writeFileSync(path('new/'), '')),
      'EISDIR',
    );
    assert.equal(fs.lstatSync(path('l/')).isDirectory(), true);
    assert.equal(
      thrown(() => fs.openSync(path('d'), 'w')),
      'EISDIR',
    );
  },

  'symlinks: any target, loops end, the link itself is not followed'({ path }) {
    const long = 't'.repeat(4095);
    fs.symlinkSync(long, path('long'));
    assert.equal(fs.readlinkSync(path('long')), long);
    assert.equal(fs.lstatSync(path('long')).size, 4095);
    fs.symlinkSync(Buffer.from([0xff, 0x2f, 0xfe]), path('bytes'));
    assert.deepEqual(fs.readlinkSync(path('bytes'), 'buffer'), Buffer.from([0xff, 0x2f, 0xfe]));
    fs.symlinkSync('b', path('a'));
    fs.symlinkSync('a', path('b'));
    assert.equal(
      thrown(() => fs.readFileSync(path('a'))),
      'ELOOP',
    );
    fs.writeFileSync(path('f'), 'x');
    fs.symlinkSync('f', path('l'));
    fs.lutimesSync(path('l'), 1000, 1000);
    assert.equal(fs.lstatSync(path('l')).mtimeMs, 1_000_000);
    assert.notEqual(fs.statSync(path('l')).mtimeMs, 1_000_000);
    assert.equal(outcome(sys.openat(sys.AT_FDCWD, path('l'), sys.O_RDONLY | sys.O_NOFOLLOW)), 'ELOOP');
    fs.symlinkSync('made', path('dangling'));
    fs.writeFileSync(path('dangling'), 'through');
    assert.equal(fs.readFileSync(path('made'), 'utf8'), 'through');
    assert.equal(
      outcome(sys.openat(sys.AT_FDCWD, path('dangling'), sys.O_CREAT | sys.O_EXCL | sys.O_RDWR, 0o644)),
      'EEXIST',
    );
  },

  'a large directory: every name once, and its cookies stay valid while names come and go'(place) {
    const fill = join(place.beneath, 'many');
    fs.mkdirSync(fill);
    for (let i = 0; i < MANY; i++) fs.closeSync(fs.openSync(join(fill, `file-${i}`), 'w'));
    const said = py(
      place,
      `
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
libc.telldir.argtypes = libc.readdir.argtypes = libc.rewinddir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
d = libc.opendir(b'many')
def name():
    e = libc.readdir(d)
    return None if not e else ctypes.string_at(e + 19)
seen, cookies = [], {}
while True:
    at = libc.telldir(d)
    n = name()
    if n is None: break
    if len(seen) % 1000 == 0: cookies[n] = at
    seen.append(n)
for n in list(cookies)[:3]:
    if n not in (b'.', b'..'): os.unlink(b'many/' + n); del cookies[n]
open('many/new', 'w').close()
wrong = []
for n, at in reversed(cookies.items()):
    libc.seekdir(d, at)
    got = name()
    if got != n: wrong.append([n.decode(), got and got.decode()])
libc.rewinddir(d)
again = []
while (n := name()) is not None: again.append(n)
libc.closedir(d)
say(len(seen), len(set(seen)), wrong, b'new' in again, len(again) == len(set(again)), len(os.listdir('many')) == len(again) - 2)`,
    );
    assert.deepEqual(said, [MANY + 2, MANY + 2, [], true, true, true]);
    fs.rmSync(fill, { recursive: true });
  },

  'a directory listed half way goes on as it began, whatever changes and whoever lists it meanwhile'(place) {
    const said = py(
      place,
      `
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.readdir.argtypes = libc.rewinddir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
def some(d, n):
    names = []
    while len(names) < n and (e := libc.readdir(d)): names.append(ctypes.string_at(e + 19).decode())
    return names
def whole(d): return some(d, 10**9)
os.mkdir('d')
stay = {f'{i:04}' + 's' * 60 for i in range(2000)}
for n in stay: open('d/' + n, 'w').close()
wrong = []
def check(what, names, expected):
    if len(set(names)) != len(names): wrong.append(what + ': a name twice')
    if not expected <= set(names): wrong.append(what + ': a name is missing')
quiet = lambda: time.sleep(0.15)
for round in range(6):
    quiet()
    if round % 2: os.listdir('d')
    a, b = libc.opendir(b'd'), libc.opendir(b'd')
    first = some(a, 700)
    if round > 2: os.listdir('d')
    # Names that come and go move the others about.
    for n in first[:300]:
        if n in stay: os.unlink('d/' + n); stay.discard(n)
    for i in range(200): open(f'd/new{round}-{i}' + 'n' * 50, 'w').close()
    if round % 3: quiet()
    check('listed meanwhile', os.listdir('d'), stay)
    half = some(b, 700)
    c = libc.opendir(b'd')
    some(c, 10)
    libc.rewinddir(c)
    check('begun anew', whole(c), stay | {'.', '..', f'new{round}-0' + 'n' * 50})
    check('half way', first + whole(a), stay | {'.', '..'})
    if round % 2: os.unlink(f'd/new{round}-1' + 'n' * 50); quiet()
    libc.rewinddir(a)
    check('after rewinddir', whole(a), stay | {'.', '..', f'new{round}-0' + 'n' * 50})
    if round % 2 and f'new{round}-1' + 'n' * 50 in os.listdir('d'): wrong.append('what is gone is listed')
    check('the other half', half + whole(b), stay | {'.', '..'})
    for d in (a, b, c): libc.closedir(d)
    for n in os.listdir('d'):
        if n.startswith('new'): os.unlink('d/' + n)
say(wrong)`,
    );
    assert.deepEqual(said, []);
  },

  'a directory whose listing was remembered shows what came beneath, at its next open'({ path, beneath }) {
    fs.mkdirSync(path('d'));
    const list = () => fs.readdirSync(path('d')).sort().join(' ');
    const quiet = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 150);
    const there: string[] = [];
    for (let i = 0; i < 6; i++) {
      fs.writeFileSync(i % 2 === 0 ? join(beneath, 'd', `n${i}`) : path(`d/n${i}`), '');
      there.push(`n${i}`);
      if (i % 3 !== 0) quiet();
      for (let j = 0; j < 3; j++) assert.equal(list(), there.join(' '));
      quiet();
      for (let j = 0; j < 3; j++) assert.equal(list(), there.join(' '));
      if (i !== 3) continue;
      fs.unlinkSync(join(beneath, 'd', there.shift()!));
      assert.equal(list(), there.join(' '));
    }
  },

  'a directory that is removed while it is listed or stood in'(place) {
    const said = py(
      place,
      `
os.mkdir('d'); os.mkdir('d/e'); open('d/f', 'w').close()
it = os.scandir('d'); next(it)
fd = os.open('d/e', os.O_RDONLY)
os.chdir('d/e')
os.rmdir('../e')
out = [E(os.listdir, fd), os.listdir(fd), E(lambda: open('x', 'w')), E(os.mkdir, 'y'), E(os.stat, '.'), os.stat('.').st_nlink, E(os.getcwd)]
os.chdir('../..') if E(os.stat, '..') == 'ok' else None
say(out)`,
    );
    assert.deepEqual(said, ['ok', [], 'ENOENT', 'ENOENT', 'ok', 0, 'ENOENT']);
  },

  'a directory that is emptied while it is listed'(place) {
    const said = py(
      place,
      `
os.mkdir('d')
for i in range(1000): os.mknod('d/n%d' % i)
seen = 0
with os.scandir('d') as it:
    for e in it: os.unlink('d/' + e.name); seen += 1
say(seen, os.listdir('d'), E(os.rmdir, 'd'))`,
    );
    assert.deepEqual(said, [1000, [], 'ok']);
  },

  'another file system mounted inside'(place) {
    needsRoot();
    needs('mount');
    fs.mkdirSync(join(place.beneath, 'tmp'));
    try {
      sh(place, `mount -t tmpfs -o size=16m none '${join(place.beneath, 'tmp')}'`);
    } catch {
      skip('nothing can be mounted here');
    }
    try {
      const said = py(
        place,
        `
open('f', 'w').write('below'); open('tmp/g', 'w').write('inside'); os.mkdir('tmp/d'); os.link('tmp/g', 'tmp/d/h')
open('tmp/d/h', 'a').write(' it')
m = open('tmp/m', 'w+b'); m.truncate(4096); mm = mmap.mmap(m.fileno(), 4096); mm[0:2] = b'mm'; mm.close(); m.close()
say(E(os.rename, 'f', 'tmp/f'), E(os.link, 'f', 'tmp/f'), E(os.rename, 'tmp/g', 'tmp/d/g'), open('tmp/d/g').read(), open('tmp/m').read(2),
    sorted(os.listdir('tmp')), os.stat('tmp/d/g').st_nlink, os.statvfs('tmp').f_blocks * os.statvfs('tmp').f_frsize, E(os.rmdir, 'tmp'),
    os.stat('tmp/d/g').st_ino == os.stat('tmp/d/h').st_ino, E(os.rename, 'tmp', 'moved'))`,
      );
      const size = 16 * 1024 * 1024;
      const [busy, list] = ['EBUSY', ['d', 'm']];
      assert.deepEqual(said, ['EXDEV', 'EXDEV', 'ok', 'inside it', 'mm', list, 2, size, busy, true, busy]);
    } finally {
      sh(place, `umount '${join(place.beneath, 'tmp')}' || umount -l '${join(place.beneath, 'tmp')}'`);
    }
  },

  'd_type, inode numbers and link counts agree with stat'({ dir, path }) {
    fs.writeFileSync(path('file'), '');
    fs.mkdirSync(path('directory'));
    fs.symlinkSync('x', path('link'));
    assert.equal(outcome(sys.mknodat(sys.AT_FDCWD, path('fifo'), sys.S_IFIFO | 0o600, 0)), 'ok');
    for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
      const stat = fs.lstatSync(path(entry.name));
      assert.equal(entry.isFile(), stat.isFile());
      assert.equal(entry.isDirectory(), stat.isDirectory());
      assert.equal(entry.isSymbolicLink(), stat.isSymbolicLink());
      assert.equal(entry.isFIFO(), stat.isFIFO());
    }
    const inos = new Map<string, number | bigint>();
    const fd = fs.openSync(dir, 'r');
    const reader = new sys.DirentReader(65_536);
    while (reader.fill(fd) > 0) while (reader.next()) inos.set(reader.name, reader.ino);
    fs.closeSync(fd);
    for (const name of ['file', 'directory', 'link', 'fifo', '.'])
      assert.equal(inos.get(name), fs.lstatSync(path(name)).ino, name);
    assert.equal(fs.statSync(dir).nlink, 3);
    assert.equal(fs.statSync(path('directory/..')).ino, fs.statSync(dir).ino);
  },
};
