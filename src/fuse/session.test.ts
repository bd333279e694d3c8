/** Real mounts: the example file system in a worker, used by this process's thread pool and by child processes. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync, promises as fs } from 'node:fs';
import path from 'node:path';
import { afterEach, test } from 'node:test';
import { promisify } from 'node:util';
import { until } from '../base/clock.ts';
import * as sys from '../sys/index.ts';
import {
  connectionAbort,
  encodeInvalEntry,
  FuseMountError,
  mountAt,
  mountFuse,
  unmountFuse,
} from './index.ts';
import { type ExampleMount, mountExample } from './testing/mounted.ts';

const run = promisify(execFile);
const mounts: ExampleMount[] = [];
/** PASSTHROUGH needs Linux 6.9 and root. */
const modes = [true, false];

async function example(options: Parameters<typeof mountExample>[0]): Promise<ExampleMount> {
  const mount = await mountExample(options);
  mounts.push(mount);
  return mount;
}

afterEach(async () => {
  for (const mount of mounts.splice(0)) await mount.close();
});

test('/dev/fuse is there', () => {
  assert.ok(existsSync('/dev/fuse'), '/dev/fuse is missing: run `modprobe fuse`');
});

for (const passthrough of modes) {
  const name = passthrough ? 'passthrough' : 'cached';

  test(`${name}: files, names, attributes, xattrs`, async () => {
    const { dir, backing, stats } = await example({ passthrough });
    const at = (...parts: string[]) => path.join(dir, ...parts);
    await fs.mkdir(at('d'), 0o750);
    await fs.writeFile(at('d', 'f'), 'hello');
    assert.equal(await fs.readFile(path.join(backing, 'd', 'f'), 'utf8'), 'hello');
    assert.equal(await fs.readFile(at('d', 'f'), 'utf8'), 'hello');
    await fs.appendFile(at('d', 'f'), ' world');
    assert.equal((await fs.stat(at('d', 'f'))).size, 11);
    await fs.truncate(at('d', 'f'), 4);
    assert.equal(await fs.readFile(at('d', 'f'), 'utf8'), 'hell');
    await fs.writeFile(at('d', 'f'), 'x', { flag: 'r+' });
    await fs.chmod(at('d', 'f'), 0o600);
    await fs.utimes(at('d', 'f'), 1, 2 ** 32 + 0.5);
    const st = await fs.stat(at('d', 'f'));
    const below = await fs.stat(path.join(backing, 'd', 'f'));
    assert.deepEqual([st.mode, st.mtimeMs, st.ino], [0o100600, (2 ** 32 + 0.5) * 1000, below.ino]);
    assert.equal(st.birthtimeMs, below.birthtimeMs);

    await fs.symlink('../t', at('d', 'l'));
    assert.equal(await fs.readlink(at('d', 'l')), '../t');
    await fs.link(at('d', 'f'), at('hard'));
    assert.equal((await fs.stat(at('hard'))).nlink, 2);
    await fs.rename(at('d', 'f'), at('d', 'g'));
    await assert.rejects(fs.stat(at('d', 'f')), { code: 'ENOENT' });
    await assert.rejects(fs.rmdir(at('d')), { code: 'ENOTEMPTY' });
    await fs.unlink(at('d', 'g'));
    await fs.unlink(at('d', 'l'));
    await fs.rmdir(at('d'));
    assert.ok((await fs.statfs(dir)).blocks > 0);

    const script = [
      'import os, sys',
      'p = sys.argv[1]',
      'os.setxattr(p, "user.a", b"v" * 300)',
      'assert os.getxattr(p, "user.a") == b"v" * 300',
      'assert "user.a" in os.listxattr(p)',
      'os.removexattr(p, "user.a")',
      'assert "user.a" not in os.listxattr(p)',
      'raised = 0',
      'try: os.getxattr(p, "user.a")',
      'except OSError as e: raised = e.errno',
      'assert raised == 61, raised',
    ].join('\n');
    await run('python3', ['-c', script, at('hard')]);
    const { log, negotiated } = await stats();
    assert.deepEqual(log, []);
    assert.equal(negotiated?.passthrough, passthrough);
  });

  test(`${name}: large reads and writes, seek, allocate, copy`, async () => {
    const { dir, backing, stats } = await example({ passthrough });
    const data = Buffer.alloc(5 * 1024 * 1024 + 123);
    for (let i = 0; i < data.length; i += 7) data[i] = i % 251;
    await fs.writeFile(path.join(dir, 'big'), data);
    assert.ok((await fs.readFile(path.join(dir, 'big'))).equals(data));
    assert.ok((await fs.readFile(path.join(backing, 'big'))).equals(data));
    const script = [
      'import os, sys, errno',
      'd = sys.argv[1]',
      'a = os.open(d + "/big", os.O_RDWR); b = os.open(d + "/copy", os.O_RDWR | os.O_CREAT)',
      'n = 0',
      'while n < 3000000: n += os.copy_file_range(a, b, 3000000 - n, n, n)',
      'assert os.pread(a, 100, 2999900) == os.pread(b, 100, 2999900)',
      'os.posix_fallocate(b, 0, 4000000); assert os.fstat(b).st_size == 4000000',
      'os.ftruncate(b, 1 << 33); assert os.lseek(b, 5000000, os.SEEK_HOLE) == 5000000',
      'try: os.lseek(b, 1 << 34, os.SEEK_DATA); sys.exit("no ENXIO")',
      'except OSError as e: assert e.errno == errno.ENXIO, e',
      'try: os.ftruncate(b, (1 << 63) - 1); sys.exit("no EFBIG")',
      'except OSError as e: assert e.errno == errno.EFBIG, e',
      'os.fsync(b); os.fdatasync(b); os.close(a); os.close(b)',
      'x = os.open(d + "/big", os.O_RDONLY | os.O_TRUNC); os.close(x)',
      'assert os.stat(d + "/big").st_size == 0',
    ].join('\n');
    await run('python3', ['-c', script, dir]);
    const { counters, log } = await stats();
    assert.deepEqual(log, []);
    assert.equal(
      (counters.READ?.requests ?? 0) === 0,
      passthrough,
      'data passes through us exactly when it must',
    );
    assert.equal((counters.WRITE?.requests ?? 0) === 0, passthrough);
    if (!passthrough)
      assert.ok(counters.WRITE!.requests < 40, `a WRITE is up to 1 MiB: ${counters.WRITE!.requests}`);
  });

  test(`${name}: a directory of 2,000 names`, async () => {
    const { dir, backing, stats } = await example({ passthrough });
    const names = Array.from({ length: 2000 }, (_, i) => `file-${i}-${'x'.repeat(i % 100)}`);
    await Promise.all(names.map((file) => fs.writeFile(path.join(backing, file), '')));
    assert.deepEqual((await fs.readdir(dir)).sort(), [...names].sort());
    const { stdout } = await run('ls', ['-l', dir]);
    assert.equal(stdout.split('\n').length, 2002);
    const { counters } = await stats();
    assert.ok((counters.READDIRPLUS?.requests ?? 0) > 0);
  });
}

test('files belong to who makes them, also without our groups', async () => {
  const { dir } = await example({ passthrough: true });
  await fs.chmod(dir, 0o777);
  await run('touch', [path.join(dir, 'theirs')], { uid: 1234, gid: 2345 });
  const st = await fs.stat(path.join(dir, 'theirs'));
  assert.deepEqual([st.uid, st.gid], [1234, 2345]);
  await fs.chmod(dir, 0o755);
  await assert.rejects(run('touch', [path.join(dir, 'not')], { uid: 1234, gid: 2345 }), /Permission denied/);
});

test('a handler that throws is EIO, and the mount lives on', async () => {
  const { dir, stats } = await example({ passthrough: true });
  await assert.rejects(fs.stat(path.join(dir, 'boom')), { code: 'EIO' });
  await fs.writeFile(path.join(dir, 'after'), 'x');
  assert.match((await stats()).log[0]!, /LOOKUP failed: Error: boom/);
});

test('a parked OPEN: signals end it, a message releases it, and others are free meanwhile', async () => {
  const { dir, backing, ask, stats } = await example({ passthrough: true });
  await fs.writeFile(path.join(backing, 'parked'), 'text');
  const parked = (count: number) => until(async () => (await stats()).parkedCount === count, 3000);
  for (const signal of ['SIGINT', 'SIGKILL'] as const) {
    const child = spawn('cat', [path.join(dir, 'parked')], { stdio: 'ignore' });
    const exit = new Promise((done) => child.once('exit', (_code, by) => done(by)));
    assert.ok(await parked(1));
    await fs.writeFile(path.join(dir, 'free'), 'x');
    child.kill(signal);
    assert.equal(await exit, signal);
    assert.ok(await parked(0));
  }
  const cat = run('cat', [path.join(dir, 'parked')]);
  assert.ok(await parked(1));
  await ask('release');
  assert.equal((await cat).stdout, 'text');
  const { counters, log } = await stats();
  assert.equal(counters.INTERRUPT?.requests, 2);
  assert.deepEqual(log, []);
});

test('timers run while the mount is idle and while it is busy', async () => {
  const { dir, ask, stats } = await example({ passthrough: true, validMs: 0 });
  await ask('tick', 10);
  assert.ok(await until(async () => (await stats()).ticks >= 3, 2000));
  const before = (await stats()).ticks;
  const end = performance.now() + 300;
  while (performance.now() < end) await fs.stat(dir);
  assert.ok((await stats()).ticks - before >= 10);
});

test('trace: names and latencies', async () => {
  const { dir, ask, stats } = await example({ passthrough: true, validMs: 0 });
  await ask('trace', true);
  await fs.stat(path.join(dir));
  await ask('trace', false);
  await fs.stat(path.join(dir));
  const { trace } = await stats();
  const replies = trace.filter((line) => /^reply (GETATTR|STATX) \d+$/.test(line));
  assert.ok(replies.length >= 1);
});

test('an idle mount is unmounted cleanly; a busy one says EBUSY', async () => {
  const mount = await example({ passthrough: true });
  const file = await fs.open(path.join(mount.dir, 'open'), 'w');
  await assert.rejects(
    unmountFuse(mount.dir),
    (error) => error instanceof FuseMountError && error.code === 'EBUSY',
  );
  await file.close();
  await until(
    () =>
      unmountFuse(mount.dir).then(
        () => true,
        () => false,
      ),
    2000,
  );
  assert.equal(await mount.end, 'unmounted');
  assert.equal(mountAt(mount.dir), undefined);
  await assert.rejects(unmountFuse(mount.dir), { code: 'EINVAL' });
});

test('abort frees a hang', async () => {
  const mount = await example({ passthrough: true });
  await fs.writeFile(path.join(mount.backing, 'parked'), '');
  const cat = run('cat', [path.join(mount.dir, 'parked')]);
  const failed = assert.rejects(cat, /Software caused connection abort|not connected/);
  assert.ok(await until(async () => (await mount.stats()).parkedCount === 1, 3000));
  assert.equal(connectionAbort(mount.dir), 0);
  await failed;
  assert.equal(await mount.end, 'unmounted');
  assert.equal(connectionAbort('/nonexistent'), -sys.EINVAL);
});

test('the reactor can be stopped', async () => {
  const mount = await example({ passthrough: true });
  void mount.ask('stop');
  assert.equal(await mount.end, 'stopped');
});

test('a name is invalidated from inside, and from another thread', async () => {
  const { dir, backing, fd, ask } = await example({ passthrough: true, validMs: 60_000 });
  await fs.writeFile(path.join(backing, 'n'), '1');
  assert.equal((await fs.stat(path.join(dir, 'n'))).size, 1);
  assert.equal(await ask('invalidate', 'n'), 0);
  assert.equal(await ask('invalidate', 'never-seen'), -sys.ENOENT);
  await fs.rm(path.join(backing, 'n'));
  await fs.writeFile(path.join(backing, 'n'), 'four');
  assert.equal((await fs.stat(path.join(dir, 'n'))).size, 4);
  const message = encodeInvalEntry(1, 'n');
  assert.equal(await sys.writeAsync(fd, message), message.length);
  assert.equal(await sys.writeAsync(fd, message), -sys.ENOENT);
  await fs.rm(path.join(backing, 'n'));
  await assert.rejects(fs.stat(path.join(dir, 'n')), { code: 'ENOENT' });
});

test('a server that dies leaves nothing hanging', async () => {
  const mount = await example({ passthrough: true });
  await fs.writeFile(path.join(mount.dir, 'x'), '');
  void mount.ask('stop');
  await mount.end;
  const stuck = run('ls', ['-l', mount.dir]).then(
    () => 'listed',
    () => 'failed',
  );
  assert.equal(connectionAbort(mount.dir), 0);
  assert.equal(await stuck, 'failed');
  await unmountFuse(mount.dir);
});

test('mounting where one cannot', async () => {
  const options = { fsName: 'x', subtype: 'x', allowOther: false, defaultPermissions: true };
  await assert.rejects(mountFuse({ ...options, mountPoint: '/nonexistent/dir' }), (error) => {
    assert.ok(error instanceof FuseMountError);
    assert.match(error.message, /ENOENT.*Make the directory/);
    return true;
  });
});

test('an ordinary user mounts through fusermount3, or is told what is missing', async () => {
  const script = path.join(import.meta.dirname, 'testing', 'unprivileged.ts');
  const env = { ...process.env, HOME: '/nonexistent' };
  const { stdout } = await run(process.execPath, [script], { uid: 65_534, gid: 65_534, env });
  const open = ((await fs.stat('/dev/fuse')).mode & 0o006) === 0o006;
  const helper = ['/usr/local/bin', '/usr/bin', '/bin'].some((dir) => existsSync(`${dir}/fusermount3`));
  if (!helper) assert.match(stdout, /fusermount3 is not installed. Run `apt-get install fuse3`/);
  else if (open) assert.equal(stdout, 'ok');
  else assert.match(stdout, /cannot be mounted: .*\/dev\/fuse/);
});
