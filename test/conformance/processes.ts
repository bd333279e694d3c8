/** Several processes on one file: locks of their own, shared mappings, notifications, programs, databases. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { type Check, type Checks, Other, type Place, py, run, sh, thrown } from './kit.ts';

/** Runs `check` with another process, which ends with it. */
function beside(script: string, check: (place: Place, other: Other) => Promise<void>): Check {
  return async (place) => {
    const other = new Other(place, script);
    try {
      await check(place, other);
    } finally {
      await other.end();
    }
  };
}

export const processes: Checks = {
  'flock between processes': beside(
    `
f = open('lock', 'a'); fcntl.flock(f, fcntl.LOCK_EX); say('has'); input(); fcntl.flock(f, fcntl.LOCK_UN); say('free'); input()`,
    async (place, other) => {
      assert.equal(await other.said(), 'has');
      const tried = `say(E(fcntl.flock, open('lock'), fcntl.LOCK_SH | fcntl.LOCK_NB))`;
      assert.equal(py(place, tried), 'EAGAIN');
      other.tell();
      assert.equal(await other.said(), 'free');
      assert.equal(py(place, tried), 'ok');
    },
  ),

  'fcntl locks between processes, by range, and released with the process': beside(
    `
f = open('lock', 'a+'); fcntl.lockf(f, fcntl.LOCK_EX, 10, 100); say('has'); input()`,
    async (place, other) => {
      assert.equal(await other.said(), 'has');
      const tried = `
f = open('lock', 'a+')
say(E(fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0), E(fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 105),
    struct.unpack('hhqqi', fcntl.fcntl(f, fcntl.F_GETLK, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 100, 10, 0)))[4])`;
      assert.deepEqual(py(place, tried), ['ok', 'EAGAIN', other.child.pid]);
      await other.end();
      assert.deepEqual((py(place, tried) as string[]).slice(0, 2), ['ok', 'ok']);
    },
  ),

  'fcntl locks of open files, locks that wait, and circles of them': beside(
    `
f = open('lock', 'a+'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 0); say('has'); input()
say('waits'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 1); say('both'); input()`,
    async (place, other) => {
      assert.equal(await other.said(), 'has');
      const said = py(
        place,
        `
OFD_SETLK = 37
lock = lambda at: struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, at, 1, 0)
a, b = open('lock', 'a+'), open('lock', 'a+')
say(E(fcntl.fcntl, a, OFD_SETLK, lock(5)), E(fcntl.fcntl, b, OFD_SETLK, lock(5)), E(fcntl.fcntl, b, OFD_SETLK, lock(0)), E(fcntl.fcntl, b, OFD_SETLK, lock(6)))`,
      );
      assert.deepEqual(said, ['ok', 'EAGAIN', 'EAGAIN', 'ok']);
      const third = new Other(
        place,
        `
f = open('lock', 'a+'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 1); say('second'); input()
# The other one waits for us when /proc/locks shows it.
while not any('->' in l and ' ${other.child.pid} ' in l for l in open('/proc/locks')): time.sleep(0.01)
say(E(fcntl.lockf, f, fcntl.LOCK_EX, 1, 0)); input(); f.close(); say('closed'); input()`,
      );
      try {
        assert.equal(await third.said(), 'second');
        other.tell();
        assert.equal(await other.said(), 'waits');
        third.tell();
        assert.match(String(await third.said()), /^EDEADLO?C?K$/); // two names of one number
        third.tell();
        assert.equal(await third.said(), 'closed');
        assert.equal(await other.said(), 'both');
      } finally {
        await third.end();
      }
    },
  ),

  'of many processes that make one name, one succeeds'(place) {
    const said = py(
      place,
      `
open('src', 'w').close()
def rename(n, i):
    open('own%d' % i, 'w').close()
    if libc.renameat2(-100, b'own%d' % i, -100, n.encode(), 1) < 0: raise OSError(ctypes.get_errno(), '')
ways = [lambda n, i: os.close(os.open(n, os.O_CREAT | os.O_EXCL | os.O_WRONLY)), lambda n, i: os.mkdir(n), lambda n, i: os.link('src', n), lambda n, i: os.symlink('x', n), rename]
r, w = os.pipe(); go, start = os.pipe()
for i in range(4):
    if os.fork() == 0:
        os.close(start); os.read(go, 1)
        os.write(w, bytes(sum(1 << k for k in range(5) if E(ways[k], 'n%d-%d' % (round, k), i) == 'ok') for round in range(20)))
        os._exit(0)
os.close(start); os.close(w)
got = b''
while part := os.read(r, 4096): got += part
say(len(got), [[sum(got[p * 20 + round] >> k & 1 for p in range(4)) for k in range(5)] for round in range(20)])`,
    );
    assert.deepEqual(said, [80, Array(20).fill([1, 1, 1, 1, 1])]);
  },

  'a name that is replaced again and again is never missing, and never half written': beside(
    `
say('ready'); input()
for i in range(300):
    with open('new', 'w') as f: f.write('%d\\n' % i * 1000)
    os.rename('new', 'f')
say('done'); input()`,
    async (place, other) => {
      fs.writeFileSync(place.path('f'), 'first\n'.repeat(1000));
      assert.equal(await other.said(), 'ready');
      other.tell();
      let over = false;
      const done = other.said().then(() => {
        over = true;
      });
      const wrong: string[] = [];
      for (let i = 0; !over; i++) {
        const lines = new Set(fs.readFileSync(place.path('f'), 'utf8').trimEnd().split('\n'));
        if (lines.size !== 1) wrong.push(`${i}: ${[...lines].slice(0, 3).join()}`);
        fs.statSync(place.path('f'));
        if (i % 10 === 0) await new Promise((next) => setImmediate(next));
      }
      await done;
      assert.deepEqual(wrong, []);
    },
  ),

  'many processes append to one file: nothing is lost or torn'(place) {
    const said = py(
      place,
      `
for i in range(4):
    if os.fork() == 0:
        f = os.open('log.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for n in range(200): os.write(f, (('%d:%d ' % (i, n)).ljust(99, '.') + '\\n').encode())
        os._exit(0)
for i in range(4): os.wait()
lines = open('log.txt').read().split('\\n')
say(len(lines), len(set(lines)), all(len(l) == 99 for l in lines[:-1]), [[l.split(' ')[0] for l in lines if l.startswith('%d:' % i)] == ['%d:%d' % (i, n) for n in range(200)] for i in range(4)])`,
    );
    assert.deepEqual(said, [801, 801, true, [true, true, true, true]]);
  },

  'a mapped file that is cut: SIGBUS behind its end, zeroes when it grows again'(place) {
    const said = py(
      place,
      `
import signal
f = os.open('f', os.O_RDWR | os.O_CREAT); os.write(f, b'x' * 20000)
m = mmap.mmap(f, 20000)
m[0:5] = b'MMMMM'
pid = os.fork()
if pid == 0:
    os.ftruncate(f, 5000); m[12288]; os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
tail = m[5000:8192].strip(b'\\0')
os.ftruncate(f, 20000)
say(code == -signal.SIGBUS, m[0:6].decode(), len(tail), m[5000:20000].strip(b'\\0').decode(), os.pread(f, 20000, 4999).rstrip(b'\\0').decode(), os.stat('f').st_size)`,
    );
    assert.deepEqual(said, [true, 'MMMMMx', 0, '', 'x', 20_000]);
  },

  'sendfile, splice, vectors with flags, and synchronous descriptors'(place) {
    const said = py(
      place,
      `
import socket
data = os.urandom(200000)
open('a', 'wb').write(data)
a = os.open('a', os.O_RDONLY); b = os.open('b', os.O_RDWR | os.O_CREAT | os.O_SYNC); c = os.open('c', os.O_RDWR | os.O_CREAT | os.O_DSYNC)
at = 0
while at < 200000: at += os.sendfile(b, a, at, 200000 - at)
r, w = os.pipe()
at = 0
while at < 200000:
    n = os.splice(a, w, 60000, offset_src=at); at += n
    while n > 0: n -= os.splice(r, c, n)
v = [bytearray(1000), bytearray(3000)]
n = os.preadv(a, v, 500)
d = os.open('d', os.O_RDWR | os.O_CREAT)
out = [os.pwritev(d, v, 0, os.RWF_DSYNC), os.pwritev(d, [b'end'], 0, getattr(os, 'RWF_APPEND', 16)), os.fstat(d).st_size]
say(open('b', 'rb').read() == data, open('c', 'rb').read() == data, n, b''.join(v) == data[500:4500], out, os.pread(d, 10, 4000).decode())`,
    );
    assert.deepEqual(said, [true, true, 4000, true, [4000, 3, 4003], 'end']);
  },

  'a shared mapping is seen by other processes, and by read': beside(
    `
f = open('f', 'r+b'); m = mmap.mmap(f.fileno(), 8192); say('mapped')
while True:
    what = input()
    if what == 'write': m[4096:4100] = b'MMAP'; say('done')
    else: say(m[0:4].decode())`,
    async (place, other) => {
      fs.writeFileSync(place.path('f'), Buffer.alloc(8192, '.'));
      // It opened the file before that was written, or after: it says when it has mapped it.
      assert.equal(await other.said(), 'mapped');
      other.tell('write');
      assert.equal(await other.said(), 'done');
      assert.equal(fs.readFileSync(place.path('f'), 'latin1').slice(4095, 4101), '.MMAP.');
      fs.writeFileSync(place.path('f'), 'read', { flag: 'r+' });
      other.tell('read');
      assert.equal(await other.said(), 'read');
      const said = py(
        place,
        `
f = open('f', 'r+b'); m = mmap.mmap(f.fileno(), 8192); m[0:4] = b'TWO!'; m.flush(); f.close(); say(m[4096:4100].decode())`,
      );
      assert.equal(said, 'MMAP');
      other.tell('read');
      assert.equal(await other.said(), 'TWO!');
    },
  ),

  'a private mapping, and one of a file that is read only'(place) {
    fs.writeFileSync(place.path('f'), Buffer.alloc(4096, 'a'));
    const said = py(
      place,
      `
f = os.open('f', os.O_RDONLY)
m = mmap.mmap(f, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE); m[0:3] = b'own'
say(m[0:4].decode(), E(mmap.mmap, f, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE), open('f').read(4))`,
    );
    assert.deepEqual(said, ['owna', 'EACCES', 'aaaa']);
  },

  'inotify tells of changes': beside(
    `
fd = libc.inotify_init(); libc.inotify_add_watch(fd, b'.', 0xfff); say('watches')
seen = []
while 'end' not in [n for _, n in seen]:
    data = os.read(fd, 65536); at = 0
    while at < len(data):
        _, mask, _, length = struct.unpack_from('iIII', data, at)
        seen.append((mask & 0xffff, data[at + 16:at + 16 + length].rstrip(b'\\0').decode())); at += 16 + length
say(seen)`,
    async (place, other) => {
      assert.equal(await other.said(), 'watches');
      fs.writeFileSync(place.path('f'), 'x');
      fs.chmodSync(place.path('f'), 0o600);
      fs.renameSync(place.path('f'), place.path('g'));
      fs.readFileSync(place.path('g'));
      fs.unlinkSync(place.path('g'));
      fs.mkdirSync(place.path('end'));
      const seen = (await other.said()) as [number, string][];
      const has = (bit: number, name: string) => seen.some(([mask, n]) => (mask & bit) !== 0 && n === name);
      // IN_CREATE, IN_MODIFY, IN_CLOSE_WRITE, IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_OPEN, IN_DELETE
      for (const [bit, name] of [
        [0x100, 'f'],
        [2, 'f'],
        [8, 'f'],
        [4, 'f'],
        [0x40, 'f'],
        [0x80, 'g'],
        [0x20, 'g'],
        [0x200, 'g'],
        [0x100, 'end'],
      ] as const)
        assert.ok(has(bit, name), `${bit.toString(16)} ${name}: ${JSON.stringify(seen)}`);
    },
  ),

  'programs run from here: scripts, binaries, and a running one is not written to'(place) {
    fs.writeFileSync(place.path('script'), '#!/bin/sh\necho "ran $1"\n', { mode: 0o755 });
    assert.equal(run(place, place.path('script'), ['one']), 'ran one');
    fs.copyFileSync('/bin/sleep', place.path('program'));
    fs.chmodSync(place.path('program'), 0o755);
    const said = py(
      place,
      `
import subprocess
p = subprocess.Popen(['./program', '30'])
while os.readlink('/proc/%d/exe' % p.pid).rsplit('/', 1)[1] != 'program': time.sleep(0.01)
out = [E(open, 'program', 'r+b'), E(os.rename, 'program', 'other'), E(os.unlink, 'other')]
p.kill(); p.wait()
os.chmod('script', 0o644)
say(out, E(os.execv, './script', ['x']))`,
    );
    assert.deepEqual(said, [['ETXTBSY', 'ok', 'ok'], 'EACCES']);
  },

  'SQLite with a write-ahead log, from two processes': beside(
    `
import sqlite3
say('ready'); input()
db = sqlite3.connect('data.db', timeout=20)
for i in range(50):
    with db: db.execute("insert into t values ('other', ?)", (i,))
say(db.execute('pragma journal_mode').fetchone()[0]); input()`,
    async (place, other) => {
      assert.equal(await other.said(), 'ready');
      const db = new DatabaseSync(place.path('data.db'));
      db.exec('pragma busy_timeout = 20000; pragma journal_mode = wal; create table t (who text, n integer)');
      other.tell();
      const insert = db.prepare("insert into t values ('us', ?)");
      for (let i = 0; i < 50; i++) {
        insert.run(i);
        if (i % 10 === 0) await new Promise((done) => setImmediate(done));
      }
      assert.equal(await other.said(), 'wal');
      const counts = db.prepare('select who, count(*) as n from t group by who order by who').all();
      assert.deepEqual(
        counts.map((row) => ({ ...row })),
        [
          { who: 'other', n: 50 },
          { who: 'us', n: 50 },
        ],
      );
      assert.deepEqual(
        db
          .prepare('pragma integrity_check')
          .all()
          .map((row) => ({ ...row })),
        [{ integrity_check: 'ok' }],
      );
      db.exec('pragma wal_checkpoint(truncate)');
      db.close();
    },
  ),

  'a fifo and a socket connect processes'(place) {
    const said = py(
      place,
      `
import socket
os.mkfifo('p'); s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()
if os.fork() == 0:
    open('p', 'w').write('through'); c = socket.socket(socket.AF_UNIX); c.connect('s'); c.send(b'fifo'); os._exit(0)
got = open('p').read(); c, _ = s.accept()
say(got, c.recv(10).decode(), stat.S_ISSOCK(os.stat('s').st_mode), E(os.open, 's', os.O_RDONLY))`,
    );
    assert.deepEqual(said, ['through', 'fifo', true, 'ENXIO']);
  },

  'descriptors go on in children and after exec'(place) {
    assert.equal(
      sh(
        place,
        '{ echo one; (echo two); sh -c "echo three"; } > f; exec 3>>f; echo four >&3; sh -c "echo five >&3"; cat f',
      ),
      'one\ntwo\nthree\nfour\nfive',
    );
    assert.equal(sh(place, 'cat f | sed s/o/0/ > g; cat < g | head -1; wc -l < f'), '0ne\n5');
  },

  "the limit of a file's size"(place) {
    const said = py(
      place,
      `
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
f = os.open('f', os.O_RDWR | os.O_CREAT)
say(os.pwrite(f, b'x' * 9000, 0), E(os.pwrite, f, b'x', 5000), E(os.ftruncate, f, 6000), E(os.truncate, 'f', 6000))`,
    );
    assert.deepEqual(said, [5000, 'EFBIG', 'EFBIG', 'EFBIG']);
  },

  'many descriptors of one file, and many files at once'({ path }) {
    const fds = Array.from({ length: 500 }, (_, i) => fs.openSync(path(i % 2 === 0 ? 'one' : `f${i}`), 'a'));
    for (const fd of fds) fs.writeSync(fd, 'x');
    for (const fd of fds) fs.closeSync(fd);
    assert.equal(fs.statSync(path('one')).size, 250);
    assert.equal(
      thrown(() => fs.openSync(path('one'), 'ax')),
      'EEXIST',
    );
  },
};
