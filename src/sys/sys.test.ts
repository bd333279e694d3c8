import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { decodePath } from '../base/bytes.ts';
import * as sys from './index.ts';

let dir = '';
let fd = -1;

before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'gate-sys-'));
  fd = sys.openat(sys.AT_FDCWD, dir, sys.O_PATH | sys.O_DIRECTORY | sys.O_CLOEXEC);
  assert.ok(fd >= 0);
});

after(() => {
  sys.close(fd);
  fs.rmSync(dir, { recursive: true, force: true });
});

function create(name: string, text = ''): number {
  const file = sys.openat(fd, name, sys.O_RDWR | sys.O_CREAT | sys.O_EXCL | sys.O_CLOEXEC, 0o644);
  assert.ok(file >= 0, sys.errnoName(file));
  if (text !== '') assert.equal(sys.pwrite(file, Buffer.from(text), 0), text.length);
  return file;
}

test('flags agree with Node, whatever the architecture', () => {
  const { O_DIRECTORY, O_NOFOLLOW, O_DIRECT, O_NOATIME, O_SYNC, O_DSYNC, O_NONBLOCK } = sys;
  for (const [name, flag] of Object.entries({
    O_DIRECTORY,
    O_NOFOLLOW,
    O_DIRECT,
    O_NOATIME,
    O_SYNC,
    O_DSYNC,
    O_NONBLOCK,
  })) {
    assert.equal(flag, (fs.constants as unknown as Record<string, number>)[name], name);
  }
  for (const [name, number] of Object.entries(sys.ERRNO)) {
    const known = (os.constants.errno as Record<string, number>)[name];
    if (known !== undefined) assert.equal(number, known, name);
  }
  assert.equal(sys.errnoName(-sys.ENOENT), 'ENOENT');
  assert.equal(sys.errnoNumber('EDEADLK'), 35);
});

test('a name of any bytes, and a name with a NUL', () => {
  const name = decodePath(Buffer.from([0x61, 0xff, 0xc3, 0xa9, 0x80]));
  sys.close(create(name, 'x'));
  assert.ok(fs.readdirSync(dir, { encoding: 'buffer' }).some((raw) => decodePath(raw) === name));
  assert.equal(sys.unlinkat(fd, name, 0), 0);
  assert.equal(sys.unlinkat(fd, name, 0), -sys.ENOENT);
  assert.equal(sys.openat(fd, 'a\0b', sys.O_RDWR | sys.O_CREAT, 0o644), -sys.ENAMETOOLONG);
});

test('statx agrees with fs.stat', () => {
  const file = create('stat', 'hello');
  const st = new sys.StatBuf();
  assert.equal(sys.futimens(file, -5, 7, 2 ** 33, 999_999_999), 0);
  assert.equal(sys.fstatx(file, st), 0);
  const expected = fs.statSync(path.join(dir, 'stat'), { bigint: true });
  assert.equal(BigInt(st.ino), expected.ino);
  assert.equal(st.mode, Number(expected.mode));
  assert.equal(st.size, 5);
  assert.equal(BigInt(st.dev), expected.dev);
  assert.equal(BigInt(st.blocks), expected.blocks);
  assert.deepEqual([st.mtimeSec, st.mtimeNsec], [2 ** 33, 999_999_999]);
  assert.equal(BigInt(st.ctimeSec), expected.ctimeNs / 1_000_000_000n);
  assert.ok(st.mntId > 0);
  assert.equal(sys.statx(fd, 'none', 0, st), -sys.ENOENT);
  assert.equal(sys.statx(sys.AT_FDCWD, '/dev/null', 0, st), 0);
  assert.deepEqual(sys.splitDev(st.rdev), { major: 1, minor: 3 });
  const big = sys.makeDev(259, 70_000);
  assert.deepEqual(sys.splitDev(big), { major: 259, minor: 70_000 });
  sys.close(file);
});

test('an inode number above 2^53 is a bigint', () => {
  const st = new sys.StatBuf();
  st.words[8] = 5;
  st.words[9] = 0xffff_ffff;
  assert.equal(st.ino, 0xffff_ffff_0000_0005n);
});

test('openat2 stays beneath', () => {
  assert.equal(sys.openat2(fd, '../', sys.O_PATH, 0, sys.RESOLVE_BENEATH), -sys.EXDEV);
  const own = sys.openat2(
    fd,
    '.',
    sys.O_PATH | sys.O_CLOEXEC,
    0,
    sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS,
  );
  assert.ok(own >= 0);
  sys.close(own);
});

test('names: mkdir, mknod, symlink, link, rename, unlink', () => {
  assert.equal(sys.mkdirat(fd, 'd', 0o700), 0);
  assert.equal(sys.mkdirat(fd, 'd', 0o700), -sys.EEXIST);
  assert.equal(sys.mknodat(fd, 'd/fifo', sys.S_IFIFO | 0o600, 0), 0);
  assert.equal(sys.symlinkat(Buffer.from([0x74, 0xff]), fd, 'link'), 0);
  assert.deepEqual(sys.readlinkat(fd, 'link'), Buffer.from([0x74, 0xff]));
  assert.equal(sys.readlinkat(fd, 'd'), -sys.EINVAL);
  const file = create('one', '1');
  assert.equal(sys.linkat(sys.AT_FDCWD, `/proc/self/fd/${file}`, fd, 'two', sys.AT_SYMLINK_FOLLOW), 0);
  assert.equal(sys.renameat2(fd, 'one', fd, 'link', sys.RENAME_NOREPLACE), -sys.EEXIST);
  assert.equal(sys.renameat2(fd, 'one', fd, 'link', sys.RENAME_EXCHANGE), 0);
  assert.equal(sys.unlinkat(fd, 'd', 0), -sys.EISDIR);
  assert.equal(sys.unlinkat(fd, 'd/fifo', 0), 0);
  assert.equal(sys.unlinkat(fd, 'd', sys.AT_REMOVEDIR), 0);
  sys.close(file);
});

test('an O_PATH descriptor: modes, owner, times, xattrs', () => {
  sys.close(create('opath', 'x'));
  const file = sys.openat(fd, 'opath', sys.O_PATH | sys.O_NOFOLLOW | sys.O_CLOEXEC);
  const st = new sys.StatBuf();
  assert.equal(sys.fchmodat(sys.AT_FDCWD, `/proc/self/fd/${file}`, 0o640), 0);
  assert.equal(sys.fchownat(file, '', -1, -1, sys.AT_EMPTY_PATH), 0);
  assert.equal(sys.utimensat(file, '', 1, 2, 0, sys.UTIME_OMIT, sys.AT_EMPTY_PATH), 0);
  sys.fstatx(file, st);
  assert.deepEqual([st.mode & 0o777, st.atimeSec, st.atimeNsec], [0o640, 1, 2]);
  const own = `/proc/self/fd/${file}`;
  const value = Buffer.alloc(64);
  assert.equal(sys.setxattr(own, 'user.a', Buffer.from('v1'), 0), 0);
  assert.equal(sys.getxattr(own, 'user.a', Buffer.alloc(0)), 2);
  assert.equal(sys.getxattr(own, 'user.a', value), 2);
  assert.equal(sys.getxattr(own, 'user.b', value), -sys.ENODATA);
  assert.ok(value.subarray(0, sys.listxattr(own, value)).includes('user.a\0'));
  assert.equal(sys.removexattr(own, 'user.a'), 0);
  sys.close(file);
});

test('read, write, seek, copy, allocate', async () => {
  const from = create('from', 'hello world');
  const to = create('to');
  assert.equal(sys.copyFileRange(from, 6, to, 2, 5), 5);
  const got = Buffer.alloc(7);
  assert.equal(sys.pread(to, got, 0), 7);
  assert.equal(got.toString('latin1'), '\0\0world');
  assert.equal(sys.pread(to, got.subarray(1), 2, 2), 2);
  assert.equal(got.toString('latin1', 1, 3), 'wo');
  assert.equal(sys.writev(to, [Buffer.from('ab'), Buffer.from('cde')]), 5);
  assert.equal(sys.fallocate(to, 0, 0, 8192), 0);
  assert.equal(sys.ftruncate(to, 2 ** 32), 0);
  assert.equal(sys.lseek(to, 0, sys.SEEK_END), 2 ** 32);
  assert.equal(sys.lseek(to, 2 ** 32, sys.SEEK_DATA), -sys.ENXIO);
  assert.equal(await sys.copyFileRangeAsync(from, 0, to, 0, 5), 5);
  assert.equal(await sys.copyFileRangeAsync(-1, 0, to, 0, 5), -sys.EBADF);
  assert.equal(await sys.fsyncAsync(to), 0);
  assert.equal(await sys.fsyncAsync(0x7fffffff), -sys.EBADF);
  assert.equal(await sys.fallocateAsync(-1, 0, 0, 1), -sys.EBADF);
  assert.equal(await sys.syncfsAsync(to), 0);
  sys.close(from);
  sys.close(to);
});

test('a directory of many names', () => {
  assert.equal(sys.mkdirat(fd, 'many', 0o755), 0);
  for (let i = 0; i < 500; i++) fs.writeFileSync(path.join(dir, 'many', `file-${i}`), '');
  const many = sys.openat(fd, 'many', sys.O_RDONLY | sys.O_DIRECTORY | sys.O_CLOEXEC);
  const reader = new sys.DirentReader(4096);
  const names = new Set<string>();
  let dots = 0;
  while (reader.fill(many) > 0) {
    while (reader.next()) {
      if (reader.isDots) dots++;
      else names.add(reader.name);
      assert.ok(reader.type === sys.DT_REG || reader.isDots);
      assert.ok(Number(reader.ino) > 0);
    }
  }
  assert.equal(names.size, 500);
  assert.equal(dots, 2);
  sys.close(many);
});

test('pipes, eventfd, poll, flags, leases', async () => {
  const [from, to] = sys.pipe2(sys.O_CLOEXEC | sys.O_NONBLOCK) as [number, number];
  const event = sys.eventfd(0, sys.EFD_NONBLOCK | sys.EFD_CLOEXEC);
  const set = new sys.PollSet([
    { fd: from, events: sys.POLLIN },
    { fd: event, events: sys.POLLIN },
  ]);
  assert.equal(sys.poll(set, 0), 0);
  assert.equal(sys.eventfdSignal(event), 8);
  assert.equal(sys.poll(set, 1000), 1);
  assert.deepEqual([set.revents(0), set.revents(1)], [0, sys.POLLIN]);
  assert.equal(sys.eventfdDrain(event), 8);
  assert.equal(sys.eventfdDrain(event), -sys.EAGAIN);
  const waiting = sys.pollAsync(set, 5000);
  sys.write(to, Buffer.from('x'));
  assert.equal(await waiting, 1);
  assert.equal(set.revents(0), sys.POLLIN);
  assert.ok((sys.fcntl(from, sys.F_GETFL) & sys.O_NONBLOCK) !== 0);
  assert.equal(sys.fcntl(from, sys.F_SETPIPE_SZ, 8192), 8192);
  for (const each of [from, to, event]) sys.close(each);

  const writer = create('lease');
  const reader = sys.openat(fd, 'lease', sys.O_RDONLY | sys.O_CLOEXEC);
  assert.equal(sys.fcntl(reader, sys.F_SETLEASE, sys.F_RDLCK), -sys.EAGAIN);
  sys.close(writer);
  assert.equal(sys.fcntl(reader, sys.F_SETLEASE, sys.F_RDLCK), 0);
  assert.equal(sys.fcntl(reader, sys.F_SETLEASE, sys.F_UNLCK), 0);
  assert.equal(sys.flock(reader, sys.LOCK_EX | sys.LOCK_NB), 0);
  assert.equal(sys.ioctl(reader, sys.TCGETS, Buffer.alloc(64)), -sys.ENOTTY);
  sys.close(reader);
});

test('processes, limits, clocks', async () => {
  assert.equal(sys.getpid(), process.pid);
  assert.equal(sys.tgkill(process.pid, sys.gettid(), 0), 0);
  const child = spawn('sleep', ['60']);
  const pidfd = sys.pidfdOpen(child.pid!);
  assert.ok(pidfd >= 0);
  const exit = new Promise((done) => child.once('exit', (_code, signal) => done(signal)));
  assert.equal(sys.pidfdSendSignal(pidfd, sys.SIGTERM), 0);
  assert.equal(await exit, 'SIGTERM');
  assert.equal(sys.pidfdSendSignal(pidfd, 0), -sys.ESRCH);
  sys.close(pidfd);
  const limit = sys.getrlimit(sys.RLIMIT_NOFILE) as { soft: number; hard: number };
  assert.ok(limit.soft > 0 && limit.hard >= limit.soft);
  assert.ok(sys.raiseOpenFiles() >= limit.soft);
  assert.ok(sys.clockBoottimeMs() >= sys.clockMonotonicMs() - 1);
  assert.ok(Math.abs(sys.clockMonotonicMs() - Number(process.hrtime.bigint()) / 1e6) < 100);
  assert.ok(sys.getpagesize() >= 4096);
});

test('a descriptor passed over a socket', () => {
  const [a, b] = sys.socketpair(sys.AF_UNIX, sys.SOCK_STREAM | sys.SOCK_CLOEXEC) as [number, number];
  const script = [
    'import array, os, socket',
    's = socket.socket(fileno=3)',
    'f = os.open("/proc/self/comm", os.O_RDONLY)',
    's.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [f]))])',
  ].join('\n');
  execFileSync('python3', ['-c', script], { stdio: ['ignore', 'inherit', 'inherit', b] });
  const got = sys.recvFd(a);
  assert.ok(got >= 0, sys.errnoName(got));
  sys.close(b);
  assert.equal(sys.recvFd(a), -sys.EPROTO);
  assert.equal(sys.close(got), 0);
  sys.close(a);
});

test('file handles name an inode', () => {
  sys.close(create('handle'));
  const one = sys.nameToHandleAt(fd, 'handle', 0);
  if (one === -sys.EOPNOTSUPP) return;
  sys.linkat(fd, 'handle', fd, 'handle2', 0);
  assert.deepEqual(sys.nameToHandleAt(fd, 'handle2', 0), one);
});

test('as a user: the file is theirs, and capabilities are reduced', {
  skip: process.geteuid!() !== 0 && 'needs root',
}, () => {
  const st = new sys.StatBuf();
  const caps = new Uint32Array(6);
  sys.capget(caps);
  const full = caps[0];
  for (const uid of [1234, 1235, 1234, 0]) {
    assert.equal(sys.asUser(uid, uid + 1), 0);
    assert.equal(sys.asUser(uid, uid + 1), 0);
    sys.close(create(`owned-${uid}`));
    sys.capget(caps);
    assert.equal(caps[0], sys.USER_CAPS);
    sys.statx(fd, `owned-${uid}`, 0, st);
    assert.deepEqual([st.uid, st.gid], [uid, uid + 1]);
    sys.unlinkat(fd, `owned-${uid}`, 0);
  }
  sys.asRoot();
  assert.equal(sys.asUser(0xffff_ffff, 5), -sys.EPERM);
  sys.capget(caps);
  assert.equal(caps[0], full);
  assert.equal(sys.setfsuid(-1), 0);
  assert.equal(sys.setfsgid(-1), 0);
  assert.equal(sys.fchownat(fd, '', 0, 0, sys.AT_EMPTY_PATH), 0);
});
