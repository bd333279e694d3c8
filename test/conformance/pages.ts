/** What the page cache shows: to other descriptors, to mappings, after opening again, and of changes beneath. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { type Checks, py } from './kit.ts';

export const pages: Checks = {
  'opened again, a file shows what was written last'({ path }) {
    const file = path('f');
    const times = new Date('2020-01-01');
    for (let i = 0; i < 100; i++) {
      // The same size and modification time each time.
      fs.writeFileSync(file, `text ${i % 10}`, { flag: i % 2 === 0 ? 'w' : 'r+' });
      fs.utimesSync(file, times, times);
      for (let j = 0; j < 3; j++) assert.equal(fs.readFileSync(file, 'utf8'), `text ${i % 10}`);
    }
  },

  'changed beneath, a file shows it at its next open'({ path, beneath }) {
    const file = path('f');
    const below = join(beneath, 'f');
    const times = new Date('2020-01-01');
    for (let i = 0; i < 100; i++) {
      fs.writeFileSync(below, `text ${i % 10}`, { flag: i % 2 === 0 ? 'w' : 'r+' });
      fs.utimesSync(below, times, times);
      for (let j = 0; j < 3; j++) assert.equal(fs.readFileSync(file, 'utf8'), `text ${i % 10}`);
    }
  },

  'grown and cut beneath, a file has its new size at its next open'({ path, beneath }) {
    const file = path('f');
    for (let i = 0; i < 100; i++) {
      fs.writeFileSync(join(beneath, 'f'), 'x'.repeat((i * 37) % 100));
      const fd = fs.openSync(file, 'r');
      try {
        assert.equal(fs.fstatSync(fd).size, (i * 37) % 100);
      } finally {
        fs.closeSync(fd);
      }
    }
  },

  'replaced beneath, a name leads to the new file at its next open'({ path, beneath }) {
    for (const name of ['f', 'f.log']) {
      fs.writeFileSync(path(name), 'first');
      for (let i = 0; i < 100; i++) {
        fs.writeFileSync(join(beneath, 'new'), `text ${i}`);
        fs.renameSync(join(beneath, 'new'), join(beneath, name));
        assert.equal(fs.readFileSync(path(name), 'utf8'), `text ${i}`, name);
      }
    }
  },

  'changed after a quiet time, a file shows it at its next open'({ path, beneath }) {
    const times = new Date('2020-01-01');
    const places = [join(beneath, 'f'), path('f')];
    for (const [i, file] of [...places, ...places].entries()) {
      fs.writeFileSync(file, `text ${i}`);
      fs.utimesSync(file, times, times);
      // A file that changed just now is not trusted to stay as it is.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 150);
      for (let j = 0; j < 3; j++) assert.equal(fs.readFileSync(path('f'), 'utf8'), `text ${i}`);
    }
  },

  'stored beneath through a mapping, it shows at the next open'({ dir, beneath }) {
    const script = `

view, below = ${JSON.stringify([join(dir, 'f'), join(beneath, 'f')])}
with open(below, 'wb') as f: f.write(b'.' * 4096)
def look():
    with open(view, 'rb') as f: return f.read(1).decode()
seen = []
with open(below, 'r+b') as f: m = mmap.mmap(f.fileno(), 4096)
# Only the first store to a page moves the times of the file.
for c in b'abcde':
    m[0] = c
    for i in range(3): seen.append(look())
    time.sleep(0.12)
    seen.append(look())
m.close()
for i in range(3): seen.append(look())
say(''.join(seen))
`;
    assert.equal(py({ dir, beneath, path: (name) => join(dir, name) }, script), 'aaaabbbbccccddddeeeeeee');
  },

  'a mapping shows what is written, cut off, and copied in'(place) {
    const script = `
fd = os.open('f', os.O_RDWR | os.O_CREAT)
os.write(fd, b'a' * 8192)
m = mmap.mmap(fd, 8192, mmap.MAP_SHARED, mmap.PROT_READ)
seen = [m[0:1], m[4096:4097]]
other = os.open('f', os.O_WRONLY)
os.pwrite(other, b'bb', 4095)
seen += [m[4094:4098]]
os.truncate('f', 100)
os.truncate('f', 8192)
seen += [m[99:101], m[4095:4097]]
with open('g', 'wb') as g: g.write(b'c' * 4096)
source = os.open('g', os.O_RDONLY)
os.copy_file_range(source, other, 4096, 0, 4096)
seen += [m[4095:4097], os.pread(fd, 2, 4095)]
FALLOC_FL_PUNCH_HOLE = 3
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
if libc.fallocate(other, FALLOC_FL_PUNCH_HOLE, 4096, 4096) == 0: seen += [m[4096:4097], os.pread(fd, 1, 4096)]
else: seen += [bytes(1), bytes(1)]
say([s.decode() for s in seen])
`;
    assert.deepEqual(py(place, script), ['a', 'a', 'abba', 'a\0', '\0\0', '\0c', '\0c', '\0', '\0']);
  },

  'what is stored in a shared mapping shows to every reader'(place) {
    const script = `
with open('f', 'wb') as f: f.write(b'.' * 8192)
early = os.open('f', os.O_RDONLY)
os.pread(early, 1, 0)
fd = os.open('f', os.O_RDWR)
m = mmap.mmap(fd, 8192)
m[0:1] = b'x'
seen = [os.pread(early, 1, 0)]
with open('f', 'rb') as f: seen += [f.read(1)]
m[1:2] = b'y'
os.close(fd)
m[2:3] = b'z'
with open('f', 'rb') as f: seen += [f.read(3)]
m.close()
with open('f', 'rb') as f: seen += [f.read(3)]
seen += [os.pread(early, 3, 0)]
say([s.decode() for s in seen])
`;
    assert.deepEqual(py(place, script), ['x', 'x', 'xyz', 'xyz', 'xyz']);
  },

  'cut and made longer again, a file shows zeroes'({ path }) {
    const file = path('f');
    fs.writeFileSync(file, Buffer.alloc(10_000, 'a'));
    const reader = fs.openSync(file, 'r');
    const got = Buffer.alloc(10_000);
    fs.readSync(reader, got, 0, 10_000, 0);
    fs.truncateSync(file, 10);
    assert.equal(fs.readSync(reader, got, 0, 10_000, 0), 10);
    fs.truncateSync(file, 10_000);
    const expected = Buffer.alloc(10_000);
    expected.fill('a', 0, 10);
    assert.equal(fs.readSync(reader, got, 0, 10_000, 0), 10_000);
    assert.deepEqual(got, expected);
    assert.deepEqual(fs.readFileSync(file), expected);
    fs.closeSync(reader);
  },

  'O_DIRECT and the page cache see the same bytes'(place) {
    const script = `
DIRECT = getattr(os, 'O_DIRECT', 0)
def buffer(c):
    m = mmap.mmap(-1, 4096)
    m[:] = c * 4096
    return m
fd = os.open('f', os.O_RDWR | os.O_CREAT)
os.write(fd, b'a' * 8192)
direct = os.open('f', os.O_RDWR | DIRECT)
m = buffer(b'-')
os.preadv(direct, [m], 4096)
seen = [m[0:1]]
os.pwritev(direct, [buffer(b'b')], 4096)
seen += [os.pread(fd, 2, 4095)]
mapped = mmap.mmap(fd, 8192)
mapped[0:1] = b'c'
os.preadv(direct, [m], 0)
seen += [m[0:2]]
os.pwritev(direct, [buffer(b'd')], 0)
seen += [mapped[0:2], os.pread(fd, 2, 4095)]
with open('f', 'rb') as f: seen += [f.read(1)]
say([s.decode() for s in seen])
`;
    assert.deepEqual(py(place, script), ['a', 'ab', 'ca', 'dd', 'db', 'd']);
  },

  'a directory opened again lists what is there now'({ path, beneath }) {
    const list = () => fs.readdirSync(path('.')).sort().join(' ');
    for (let i = 0; i < 50; i++) {
      // Names of their own: what a name leads to may be remembered for a while when it changes beneath.
      const names = [path(`a${i}`), join(beneath, `b${i}`)];
      for (const name of names) fs.writeFileSync(name, '');
      for (let j = 0; j < 3; j++) assert.equal(list(), `a${i} b${i}`);
      for (const name of names) fs.unlinkSync(name);
      for (let j = 0; j < 3; j++) assert.equal(list(), '');
    }
  },
};
