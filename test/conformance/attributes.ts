/** Modes, owners, times, links, extended attributes. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as sys from '../../src/sys/index.ts';
import { type Checks, needsRoot, outcome, py, skip, thrown } from './kit.ts';

const OMIT = sys.UTIME_OMIT;

function timesOf(path: string): [bigint, bigint] {
  const stat = fs.lstatSync(path, { bigint: true });
  return [stat.atimeNs, stat.mtimeNs];
}

export const attributes: Checks = {
  'utimensat: nanoseconds, omitted ones, before 1970, after 2038'({ path }) {
    fs.writeFileSync(path('f'), 'x');
    const set = (...t: [number, number, number, number]) =>
      outcome(sys.utimensat(sys.AT_FDCWD, path('f'), ...t, sys.AT_SYMLINK_NOFOLLOW));
    assert.equal(set(1_000_000_000, 123_456_789, 1_500_000_000, 999_999_999), 'ok');
    assert.deepEqual(timesOf(path('f')), [1_000_000_000_123_456_789n, 1_500_000_000_999_999_999n]);
    assert.equal(set(0, OMIT, 7, 8), 'ok');
    assert.deepEqual(timesOf(path('f')), [1_000_000_000_123_456_789n, 7_000_000_008n]);
    assert.equal(set(-1000, 5, 4_000_000_000, 1), 'ok');
    assert.deepEqual(timesOf(path('f')), [-999_999_999_995n, 4_000_000_000_000_000_001n]);
    assert.equal(set(0, OMIT, 0, OMIT), 'ok');
    assert.equal(set(0, 1_000_000_000, 0, 0), 'EINVAL');
    fs.writeFileSync(path('f'), 'y');
    assert.ok(Math.abs(fs.statSync(path('f')).mtimeMs - Date.now()) < 60_000);
  },

  'what changes which time'({ dir, path }) {
    const past = () => {
      for (const p of [path('f'), dir]) sys.utimensat(sys.AT_FDCWD, p, 1, 0, 1, 0, 0);
    };
    const old = (p: string) => fs.lstatSync(p).mtimeMs === 1000;
    fs.writeFileSync(path('f'), 'x');
    past();
    fs.readFileSync(path('f'));
    fs.chmodSync(path('f'), 0o600);
    assert.deepEqual([old(path('f')), old(dir)], [true, true]);
    fs.appendFileSync(path('f'), 'y');
    assert.deepEqual([old(path('f')), old(dir)], [false, true]);
    for (const change of [
      () => fs.linkSync(path('f'), path('g')),
      () => fs.renameSync(path('g'), path('h')),
      () => fs.unlinkSync(path('h')),
      () => fs.mkdirSync(path('d')),
      () => fs.rmdirSync(path('d')),
      () => fs.symlinkSync('x', path('l')),
    ]) {
      past();
      change();
      assert.deepEqual([old(path('f')), old(dir)], [true, false]);
    }
    past();
    fs.truncateSync(path('f'), 1);
    assert.equal(old(path('f')), false);
  },

  'reading moves the access time as relatime says, and O_NOATIME leaves it'(place) {
    fs.writeFileSync(place.path('f'), Buffer.alloc(10_000, 'x'));
    fs.mkdirSync(place.path('d'));
    fs.symlinkSync('f', place.path('l'));
    const said = py(
      place,
      `
NOATIME, RELATIME = 1024, 4096
flags = os.statvfs('${place.beneath}').f_flag
if flags & NOATIME or not flags & RELATIME:
    say('other'); sys.exit()
now = time.time()
day = 24 * 3600
def moved(name, atime, mtime, use):
    os.utime(name, (atime, mtime), follow_symlinks=False)
    use()
    return os.lstat(name).st_atime != atime
def read(flags=0):
    f = os.open('f', os.O_RDONLY | flags); os.read(f, 4096); os.close(f)
def mapped():
    f = os.open('f', os.O_RDONLY); m = mmap.mmap(f, 4096, mmap.MAP_SHARED, mmap.PROT_READ); m[0]; m.close(); os.close(f)
out = {}
out['read, unread since written'] = moved('f', 1000, 2000, read)
out['again'] = moved('f', now + 100, now - 200, read)
out['a day later'] = moved('f', now - 2 * day, now - 3 * day, read)
out['O_NOATIME'] = moved('f', 1000, 2000, lambda: read(os.O_NOATIME))
out['mapped'] = moved('f', 1000, 2000, mapped)
out['only opened'] = moved('f', 1000, 2000, lambda: os.close(os.open('f', os.O_RDONLY)))
out['stat'] = moved('f', 1000, 2000, lambda: os.stat('f'))
out['listed'] = moved('d', 1000, 2000, lambda: os.listdir('d'))
out['link read'] = moved('l', 1000, 2000, lambda: os.readlink('l'))
say(out)`,
    );
    if (said === 'other') skip('not mounted with relatime');
    assert.deepEqual(said, {
      'read, unread since written': true,
      again: false,
      'a day later': true,
      O_NOATIME: false,
      mapped: true,
      'only opened': false,
      stat: false,
      listed: true,
      'link read': true,
    });
  },

  'ctime moves with every change of an inode'({ path }) {
    fs.writeFileSync(path('f'), 'x');
    const ctime = () => fs.statSync(path('f'), { bigint: true }).ctimeNs;
    for (const [what, change] of Object.entries({
      chmod: () => fs.chmodSync(path('f'), 0o640),
      utimes: () => fs.utimesSync(path('f'), 1, 1),
      link: () => fs.linkSync(path('f'), path('g')),
      unlink: () => fs.unlinkSync(path('g')),
      write: () => fs.appendFileSync(path('f'), 'z'),
      truncate: () => fs.truncateSync(path('f'), 1),
      rename: () => {
        fs.renameSync(path('f'), path('h'));
        fs.renameSync(path('h'), path('f'));
      },
    })) {
      const before = ctime();
      const until = Date.now() + 12;
      while (Date.now() < until); // the clock of files moves in ticks
      change();
      assert.ok(ctime() > before, what);
    }
  },

  'birth time is told and stays'({ path }) {
    fs.writeFileSync(path('f'), 'x');
    const stat = new sys.StatBuf();
    const mask = sys.STATX_BASIC_STATS | sys.STATX_BTIME;
    assert.equal(sys.statx(sys.AT_FDCWD, path('f'), 0, stat, mask), 0);
    if ((stat.mask & sys.STATX_BTIME) === 0) skip('no birth times here');
    const born = [stat.btimeSec, stat.btimeNsec];
    fs.utimesSync(path('f'), 1, 1);
    fs.renameSync(path('f'), path('g'));
    sys.statx(sys.AT_FDCWD, path('g'), 0, stat, mask);
    assert.deepEqual([stat.btimeSec, stat.btimeNsec], born);
  },

  'modes: every bit, of files and directories, and the umask'({ path }) {
    const before = process.umask(0o027);
    fs.writeFileSync(path('f'), '', { mode: 0o777 });
    fs.mkdirSync(path('d'), 0o777);
    process.umask(0o777);
    fs.writeFileSync(path('none'), '', { mode: 0o777 });
    process.umask(before);
    const mode = (name: string) => fs.statSync(path(name)).mode & 0o7777;
    assert.deepEqual([mode('f'), mode('d'), mode('none')], [0o750, 0o750, 0]);
    for (const bits of [0o7777, 0, 0o4711, 0o2755, 0o1777]) {
      fs.chmodSync(path('f'), bits);
      fs.chmodSync(path('d'), bits);
      assert.deepEqual([mode('f'), mode('d')], [bits, bits]);
    }
  },

  'hard links: one inode, several names, across directories'({ path }) {
    fs.mkdirSync(path('d'));
    fs.writeFileSync(path('a'), 'x');
    fs.linkSync(path('a'), path('d/b'));
    fs.symlinkSync('nowhere', path('s'));
    fs.linkSync(path('s'), path('t'));
    assert.equal(fs.lstatSync(path('t')).ino, fs.lstatSync(path('s')).ino);
    assert.deepEqual([fs.statSync(path('a')).nlink, fs.statSync(path('d/b')).nlink], [2, 2]);
    assert.equal(fs.statSync(path('a')).ino, fs.statSync(path('d/b')).ino);
    fs.appendFileSync(path('d/b'), 'y');
    assert.equal(fs.readFileSync(path('a'), 'utf8'), 'xy');
    assert.equal(fs.statSync(path('a')).size, 2);
    fs.chmodSync(path('a'), 0o611);
    assert.equal(fs.statSync(path('d/b')).mode & 0o777, 0o611);
    fs.renameSync(path('a'), path('d/b')); // two names of one inode: nothing happens
    assert.deepEqual([fs.existsSync(path('a')), fs.statSync(path('a')).nlink], [true, 2]);
    fs.unlinkSync(path('a'));
    assert.equal(fs.statSync(path('d/b')).nlink, 1);
    assert.equal(
      thrown(() => fs.linkSync(path('d'), path('e'))),
      'EPERM',
    );
    assert.equal(
      thrown(() => fs.linkSync(path('d/b'), path('s'))),
      'EEXIST',
    );
  },

  'rename: onto files, directories, itself, into itself'({ path }) {
    for (const name of ['d', 'd/sub', 'e', 'full']) fs.mkdirSync(path(name));
    fs.writeFileSync(path('full/x'), '');
    fs.writeFileSync(path('f'), 'f');
    const rename = (a: string, b: string) => thrown(() => fs.renameSync(path(a), path(b)));
    assert.equal(rename('f', 'd'), 'EISDIR');
    assert.equal(rename('d', 'f'), 'ENOTDIR');
    assert.equal(rename('d', 'd/sub/x'), 'EINVAL');
    assert.equal(rename('d', 'full'), 'ENOTEMPTY');
    assert.equal(rename('gone', 'f'), 'ENOENT');
    assert.equal(rename('f', 'f'), 'ok');
    assert.equal(rename('d', 'e'), 'ok');
    assert.ok(fs.existsSync(path('e/sub')) && !fs.existsSync(path('d')));
    assert.equal(rename('e/sub', 'sub'), 'ok');
    assert.equal(fs.statSync(path('sub/..')).ino, fs.statSync(path('.')).ino);
    assert.equal(
      thrown(() => fs.rmdirSync(path('full'))),
      'ENOTEMPTY',
    );
  },

  'renameat2: NOREPLACE, EXCHANGE, of files and directories'({ path }) {
    fs.writeFileSync(path('f'), 'f');
    fs.writeFileSync(path('g'), 'g');
    fs.mkdirSync(path('d'));
    fs.writeFileSync(path('d/in'), 'in');
    const rename = (a: string, b: string, flags: number) =>
      outcome(sys.renameat2(sys.AT_FDCWD, path(a), sys.AT_FDCWD, path(b), flags));
    assert.equal(rename('f', 'g', sys.RENAME_NOREPLACE), 'EEXIST');
    assert.equal(rename('f', 'new', sys.RENAME_NOREPLACE), 'ok');
    assert.equal(rename('new', 'g', sys.RENAME_EXCHANGE), 'ok');
    assert.equal(fs.readFileSync(path('g'), 'utf8') + fs.readFileSync(path('new'), 'utf8'), 'fg');
    assert.equal(rename('g', 'd', sys.RENAME_EXCHANGE), 'ok');
    assert.equal(fs.readFileSync(path('g/in'), 'utf8') + fs.readFileSync(path('d'), 'utf8'), 'inf');
    assert.equal(rename('g', 'gone', sys.RENAME_EXCHANGE), 'ENOENT');
    assert.equal(rename('g', 'd', sys.RENAME_EXCHANGE | sys.RENAME_NOREPLACE), 'EINVAL');
    assert.equal(rename('g', 'd', 1 << 10), 'EINVAL');
  },

  'renameat2 with RENAME_WHITEOUT leaves a whiteout'({ path }) {
    fs.writeFileSync(path('f'), 'f');
    const code = sys.renameat2(sys.AT_FDCWD, path('f'), sys.AT_FDCWD, path('g'), sys.RENAME_WHITEOUT);
    assert.equal(outcome(code), 'ok');
    const stat = fs.lstatSync(path('f'));
    assert.deepEqual([stat.isCharacterDevice(), stat.rdev], [true, 0]);
    assert.equal(fs.readFileSync(path('g'), 'utf8'), 'f');
  },

  'special files: fifo, socket, device'({ path }) {
    needsRoot();
    assert.equal(
      outcome(sys.mknodat(sys.AT_FDCWD, path('null'), sys.S_IFCHR | 0o666, sys.makeDev(1, 3))),
      'ok',
    );
    fs.chmodSync(path('null'), 0o620);
    const stat = fs.statSync(path('null'));
    assert.deepEqual(
      [stat.isCharacterDevice(), stat.rdev, stat.mode & 0o777],
      [true, sys.makeDev(1, 3), 0o620],
    );
    fs.writeFileSync(path('null'), 'gone');
    assert.equal(fs.readFileSync(path('null')).length, 0);
  },

  'extended attributes: set, list, replace, remove, of files, directories, by descriptor'({ path }) {
    fs.writeFileSync(path('f'), '');
    fs.mkdirSync(path('d'));
    fs.symlinkSync('f', path('l'));
    const into = Buffer.alloc(65_536);
    for (const name of ['f', 'd']) {
      const p = path(name);
      const first = outcome(sys.setxattr(p, 'user.one', Buffer.from('1'), 0));
      if (first === 'EOPNOTSUPP') skip('no user.* attributes here');
      assert.equal(first, 'ok');
      assert.equal(outcome(sys.setxattr(p, 'user.one', Buffer.from('2'), sys.XATTR_CREATE)), 'EEXIST');
      assert.equal(outcome(sys.setxattr(p, 'user.two', Buffer.from('2'), sys.XATTR_REPLACE)), 'ENODATA');
      assert.equal(outcome(sys.setxattr(p, 'user.empty', Buffer.alloc(0), 0)), 'ok');
      assert.equal(outcome(sys.setxattr(p, 'user.bytes', Buffer.from([0, 255, 10]), 0)), 'ok');
      assert.equal(outcome(sys.setxattr(p, 'user.long', Buffer.alloc(2000, 5), 0)), 'ok');
      assert.equal(outcome(sys.setxattr(p, 'wrong.one', Buffer.from('1'), 0)), 'EOPNOTSUPP');
      assert.equal(outcome(sys.setxattr(p, `user.${'n'.repeat(300)}`, Buffer.from('1'), 0)), 'ERANGE');
      const listed = into
        .toString('latin1', 0, sys.listxattr(p, into))
        .split('\0')
        .filter((n) => n.startsWith('user.'));
      assert.deepEqual(listed.sort(), ['user.bytes', 'user.empty', 'user.long', 'user.one']);
      assert.equal(sys.getxattr(p, 'user.long', Buffer.alloc(0)), 2000);
      assert.equal(outcome(sys.getxattr(p, 'user.long', Buffer.alloc(10))), 'ERANGE');
      assert.equal(sys.getxattr(p, 'user.bytes', into), 3);
      assert.deepEqual([...into.subarray(0, 3)], [0, 255, 10]);
      assert.equal(outcome(sys.removexattr(p, 'user.one')), 'ok');
      assert.equal(outcome(sys.removexattr(p, 'user.one')), 'ENODATA');
      assert.equal(outcome(sys.getxattr(p, 'user.one', into)), 'ENODATA');
    }
    assert.equal(outcome(sys.lsetxattr(path('l'), 'user.one', Buffer.from('1'), 0)), 'EPERM');
    const fd = fs.openSync(path('f'), 'r+');
    assert.equal(outcome(sys.fsetxattr(fd, 'user.by-fd', Buffer.from('x'), 0)), 'ok');
    fs.closeSync(fd);
    assert.equal(sys.getxattr(path('l'), 'user.by-fd', into), 1);
  },

  'access tells what open does'(place) {
    const said = py(
      place,
      `
open('f', 'w').close(); os.chmod('f', 0o444); os.mkdir('d')
say([os.access('f', m) for m in (os.F_OK, os.R_OK, os.X_OK)], os.access('gone', os.F_OK), os.access('d', os.W_OK | os.X_OK))`,
    );
    assert.deepEqual(said, [[true, true, false], false, true]);
  },
};
