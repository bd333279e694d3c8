/** What is in files, and how it gets there. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as sys from '../../src/sys/index.ts';
import { type Checks, outcome, py, skip, thrown } from './kit.ts';

const TIB = 2 ** 40;

export const data: Checks = {
  'O_APPEND writes at the end, whoever else wrote'({ path }) {
    const a = fs.openSync(path('f'), 'a');
    const b = fs.openSync(path('f'), 'a');
    for (let i = 0; i < 50; i++) {
      fs.writeSync(a, `a${i}\n`);
      fs.writeSync(b, `b${i}\n`);
    }
    fs.closeSync(a);
    fs.closeSync(b);
    const lines = fs.readFileSync(path('f'), 'utf8').trimEnd().split('\n');
    assert.deepEqual(
      lines,
      Array.from({ length: 100 }, (_, i) => `${i % 2 === 0 ? 'a' : 'b'}${i >> 1}`),
    );
  },

  'holes: SEEK_DATA, SEEK_HOLE, blocks, zeroes'({ path }) {
    const fd = fs.openSync(path('f'), 'w+');
    fs.writeSync(fd, 'x', 1024 * 1024);
    assert.equal(fs.fstatSync(fd).size, 1024 * 1024 + 1);
    assert.ok(fs.fstatSync(fd).blocks < 64);
    assert.equal(sys.lseek(fd, 0, sys.SEEK_DATA), 1024 * 1024);
    assert.equal(sys.lseek(fd, 0, sys.SEEK_HOLE), 0);
    assert.equal(sys.lseek(fd, 1024 * 1024, sys.SEEK_HOLE), 1024 * 1024 + 1);
    assert.equal(outcome(sys.lseek(fd, 1024 * 1024 + 1, sys.SEEK_DATA)), 'ENXIO');
    const zeroes = Buffer.alloc(4096, 1);
    fs.readSync(fd, zeroes, 0, 4096, 4096);
    assert.ok(zeroes.every((byte) => byte === 0));
    fs.closeSync(fd);
  },

  'huge offsets, and the end of what is possible'({ path }) {
    const fd = fs.openSync(path('f'), 'w+');
    assert.equal(sys.pwrite(fd, Buffer.from('far'), 3 * TIB + 7), 3);
    assert.equal(fs.fstatSync(fd).size, 3 * TIB + 10);
    const got = Buffer.alloc(10);
    assert.equal(sys.pread(fd, got, 3 * TIB + 5), 5);
    assert.equal(got.toString('latin1', 0, 5), '\0\0far');
    assert.equal(outcome(sys.pwrite(fd, Buffer.from('x'), 2 ** 53 - 1)), 'EFBIG');
    assert.equal(outcome(sys.ftruncate(fd, 2 ** 53 - 1)), 'EFBIG');
    assert.equal(outcome(sys.ftruncate(fd, -1)), 'EINVAL');
    assert.equal(outcome(sys.ftruncate(fd, 4 * TIB)), 'ok');
    fs.closeSync(fd);
    fs.truncateSync(path('f'), 5 * TIB);
    assert.equal(fs.statSync(path('f')).size, 5 * TIB);
    fs.truncateSync(path('f'), 0);
    assert.equal(fs.statSync(path('f')).blocks, 0);
  },

  'fallocate: space, without the length, holes punched, ranges zeroed'({ path }) {
    const fd = fs.openSync(path('f'), 'w+');
    fs.writeSync(fd, Buffer.alloc(65_536, 7));
    const first = outcome(sys.fallocate(fd, sys.FALLOC_FL_KEEP_SIZE, 0, 1024 * 1024));
    if (first === 'EOPNOTSUPP') skip('no fallocate here');
    assert.equal(first, 'ok');
    assert.equal(fs.fstatSync(fd).size, 65_536);
    assert.ok(fs.fstatSync(fd).blocks >= 2048);
    assert.equal(outcome(sys.fallocate(fd, 0, 0, 200_000)), 'ok');
    assert.equal(fs.fstatSync(fd).size, 200_000);
    const punch = sys.FALLOC_FL_PUNCH_HOLE | sys.FALLOC_FL_KEEP_SIZE;
    assert.equal(outcome(sys.fallocate(fd, punch, 4096, 8192)), 'ok');
    assert.equal(outcome(sys.fallocate(fd, sys.FALLOC_FL_ZERO_RANGE, 20_000, 100)), 'ok');
    const bytes = fs.readFileSync(path('f'));
    for (const [at, value] of [
      [4095, 7],
      [4096, 0],
      [12_287, 0],
      [12_288, 7],
      [19_999, 7],
      [20_000, 0],
      [20_099, 0],
      [20_100, 7],
      [70_000, 0],
    ])
      assert.equal(bytes[at!], value, `byte ${at}`);
    assert.equal(outcome(sys.fallocate(fd, 0, -1, 10)), 'EINVAL');
    assert.equal(outcome(sys.fallocate(fd, 0, 0, 0)), 'EINVAL');
    fs.closeSync(fd);
    const reader = fs.openSync(path('f'), 'r');
    assert.equal(outcome(sys.fallocate(reader, 0, 0, 10)), 'EBADF');
    fs.closeSync(reader);
  },

  'copy_file_range: within and between files, at offsets, past the end'({ path }) {
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7) & 255));
    fs.writeFileSync(path('a'), bytes);
    const a = fs.openSync(path('a'), 'r+');
    const b = fs.openSync(path('b'), 'w+');
    let at = 0;
    while (at < 250_000) {
      const copied = sys.copyFileRange(a, 1000 + at, b, 500 + at, 250_000 - at);
      assert.ok(copied > 0, outcome(copied));
      at += copied;
    }
    assert.deepEqual(fs.readFileSync(path('b')).subarray(500), bytes.subarray(1000, 251_000));
    assert.equal(sys.copyFileRange(a, 300_000, b, 0, 10), 0);
    assert.equal(sys.copyFileRange(a, 299_995, b, 0, 10), 5);
    assert.equal(outcome(sys.copyFileRange(a, 0, a, 100, 1000)), 'EINVAL');
    const reader = fs.openSync(path('b'), 'r');
    assert.equal(outcome(sys.copyFileRange(a, 0, reader, 0, 10)), 'EBADF');
    for (const fd of [a, b, reader]) fs.closeSync(fd);
    fs.copyFileSync(path('a'), path('c'));
    assert.deepEqual(fs.readFileSync(path('c')), bytes);
  },

  'access modes of a descriptor hold, whatever the mode of the file'({ path }) {
    const fd = sys.openat(sys.AT_FDCWD, path('f'), sys.O_CREAT | sys.O_RDWR, 0o000);
    assert.ok(fd >= 0, outcome(fd));
    assert.equal(sys.pwrite(fd, Buffer.from('text'), 0), 4);
    assert.equal(outcome(sys.ftruncate(fd, 2)), 'ok');
    const got = Buffer.alloc(4);
    assert.equal(sys.pread(fd, got, 0), 2);
    sys.close(fd);
    fs.chmodSync(path('f'), 0o644);
    const reader = fs.openSync(path('f'), 'r');
    const writer = fs.openSync(path('f'), fs.constants.O_WRONLY);
    assert.equal(
      thrown(() => fs.writeSync(reader, 'x')),
      'EBADF',
    );
    assert.equal(
      thrown(() => fs.readSync(writer, got)),
      'EBADF',
    );
    assert.equal(
      thrown(() => fs.ftruncateSync(reader, 0)),
      'EINVAL',
    );
    fs.closeSync(reader);
    fs.closeSync(writer);
    assert.equal(fs.statSync(path('f')).mode & 0o7777, 0o644);
  },

  'O_TRUNC empties, also when only read; O_EXCL refuses'({ path }) {
    fs.writeFileSync(path('f'), 'text');
    const before = fs.statSync(path('f')).ino;
    const fd = sys.openat(sys.AT_FDCWD, path('f'), sys.O_RDONLY | sys.O_TRUNC);
    assert.equal(fs.fstatSync(fd).size, 0);
    sys.close(fd);
    fs.writeFileSync(path('f'), 'again');
    assert.equal(fs.statSync(path('f')).ino, before);
    assert.equal(
      outcome(sys.openat(sys.AT_FDCWD, path('f'), sys.O_CREAT | sys.O_EXCL | sys.O_RDWR, 0o644)),
      'EEXIST',
    );
    assert.equal(fs.readFileSync(path('f'), 'utf8'), 'again');
  },

  'an unlinked file lives while it is open'({ dir, path }) {
    const fd = fs.openSync(path('f'), 'w+');
    fs.writeSync(fd, 'one');
    fs.unlinkSync(path('f'));
    assert.equal(fs.fstatSync(fd).nlink, 0);
    fs.writeSync(fd, 'two');
    fs.fsyncSync(fd);
    fs.fchmodSync(fd, 0o600);
    fs.futimesSync(fd, 5, 6);
    fs.ftruncateSync(fd, 5);
    const got = Buffer.alloc(10);
    assert.equal(fs.readSync(fd, got, 0, 10, 0), 5);
    assert.equal(fs.fstatSync(fd).mtimeMs > 0, true);
    const again = fs.openSync(`/proc/self/fd/${fd}`, 'r');
    assert.equal(fs.readFileSync(again, 'utf8'), 'onetw');
    fs.closeSync(again);
    fs.closeSync(fd);
    assert.deepEqual(fs.readdirSync(dir), []);
  },

  'a file that another is renamed over lives while it is open'({ path }) {
    fs.writeFileSync(path('f'), 'old');
    const fd = fs.openSync(path('f'), 'r+');
    fs.writeFileSync(path('g'), 'new');
    fs.renameSync(path('g'), path('f'));
    assert.equal(fs.readFileSync(path('f'), 'utf8'), 'new');
    fs.writeSync(fd, 'OLD', 0);
    const got = Buffer.alloc(3);
    fs.readSync(fd, got, 0, 3, 0);
    assert.equal(got.toString(), 'OLD');
    assert.equal(fs.fstatSync(fd).nlink, 0);
    fs.closeSync(fd);
    assert.equal(fs.readFileSync(path('f'), 'utf8'), 'new');
  },

  'O_TMPFILE: nameless until it is linked; with O_EXCL for ever'({ dir, path }) {
    const fd = sys.openat(sys.AT_FDCWD, dir, sys.O_TMPFILE | sys.O_RDWR, 0o640);
    if (outcome(fd) === 'EOPNOTSUPP') skip('no O_TMPFILE here');
    assert.ok(fd >= 0, outcome(fd));
    sys.pwrite(fd, Buffer.from('text'), 0);
    assert.deepEqual(fs.readdirSync(dir), []);
    assert.equal(fs.fstatSync(fd).nlink, 0);
    const link = (from: number, name: string) =>
      outcome(
        sys.linkat(sys.AT_FDCWD, `/proc/self/fd/${from}`, sys.AT_FDCWD, path(name), sys.AT_SYMLINK_FOLLOW),
      );
    assert.equal(link(fd, 'f'), 'ok');
    assert.equal(link(fd, 'f'), 'EEXIST');
    assert.equal(fs.fstatSync(fd).nlink, 1);
    sys.pwrite(fd, Buffer.from('TEXT'), 0);
    sys.close(fd);
    assert.equal(fs.readFileSync(path('f'), 'utf8'), 'TEXT');
    assert.equal(fs.statSync(path('f')).mode & 0o777, 0o640);
    const never = sys.openat(sys.AT_FDCWD, dir, sys.O_TMPFILE | sys.O_RDWR | sys.O_EXCL, 0o640);
    assert.equal(link(never, 'g'), 'ENOENT');
    sys.close(never);
  },

  'O_DIRECT, aligned, agrees with what others see'({ path }) {
    fs.writeFileSync(path('f'), Buffer.alloc(16_384, 3));
    const fd = sys.openat(sys.AT_FDCWD, path('f'), sys.O_RDWR | sys.O_DIRECT);
    if (fd === -sys.EINVAL) skip('no O_DIRECT here');
    sys.close(fd);
    const said = py(
      { dir: path('.'), beneath: path('.'), path },
      `
fd = os.open('f', os.O_RDWR | os.O_DIRECT)
b = mmap.mmap(-1, 4096)
b.write(b'd' * 4096)
n = os.pwritev(fd, [b], 4096)
with open('f', 'rb') as f: seen = f.read()
with open('f', 'r+b') as f: f.seek(8192); f.write(b'c' * 4096)
m = os.preadv(fd, [b], 8192)
say(n, seen[4095], chr(seen[4096]), chr(seen[8191]), seen[8192], m, b[:4].decode())`,
    );
    assert.deepEqual(said, [4096, 3, 'd', 'd', 3, 4096, 'cccc']);
  },

  'many sizes at many offsets, against a copy in memory'({ path }) {
    const fd = fs.openSync(path('f'), 'w+');
    let model = Buffer.alloc(0);
    let seed = 12_345;
    const next = (below: number) => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    for (let i = 0; i < 300; i++) {
      const at = next(200_000);
      const what = next(5);
      if (what === 0) {
        const size = next(200_000);
        fs.ftruncateSync(fd, size);
        const cut = Buffer.alloc(size);
        model.copy(cut);
        model = cut;
      } else if (what < 4) {
        const bytes = Buffer.alloc(1 + next(70_000), 1 + (i % 255));
        assert.equal(fs.writeSync(fd, bytes, 0, bytes.length, at), bytes.length);
        const grown = Buffer.alloc(Math.max(model.length, at + bytes.length));
        model.copy(grown);
        bytes.copy(grown, at);
        model = grown;
      }
      const got = Buffer.alloc(50_000, 255);
      const length = fs.readSync(fd, got, 0, got.length, at);
      assert.ok(got.subarray(0, length).equals(model.subarray(at, at + 50_000)), `step ${i}`);
      assert.equal(fs.fstatSync(fd).size, model.length);
    }
    fs.closeSync(fd);
    assert.ok(fs.readFileSync(path('f')).equals(model));
  },

  'statfs tells of a real disk'({ dir }) {
    const stat = new sys.StatfsBuf();
    assert.equal(sys.statfs(dir, stat), 0);
    assert.ok(stat.blocks > 0 && stat.bfree > 0 && stat.bavail > 0 && stat.files > 0 && stat.ffree > 0);
    assert.equal(stat.namelen, 255);
    assert.equal(stat.bsize, 4096);
  },

  'fsync and sync of files and directories'({ dir, path }) {
    const file = fs.openSync(path('f'), 'w');
    fs.writeSync(file, 'x');
    fs.fsyncSync(file);
    fs.fdatasyncSync(file);
    assert.equal(outcome(sys.syncfs(file)), 'ok');
    fs.closeSync(file);
    const directory = fs.openSync(dir, 'r');
    fs.fsyncSync(directory);
    fs.closeSync(directory);
    const reader = fs.openSync(path('f'), 'r');
    fs.fsyncSync(reader);
    fs.closeSync(reader);
  },
};
