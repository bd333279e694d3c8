/** One table of checks that every store passes, and what only SQLite can do. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, test } from 'node:test';
import { GateError } from '../base/errors.ts';
import type { Hold } from '../lock/types.ts';
import { MemoryDisk, MemoryStore, SqliteStore, type Store } from './index.ts';
import { NoRoom } from './types.ts';

const HISTORY = 3000;
const byKey = (a: Hold, b: Hold) => (a.lockId < b.lockId ? -1 : 1);

function hold(lockId: string, path = 'a'): Hold {
  return {
    lockId,
    requestId: `r-${lockId}`,
    session: 's',
    volume: 'v',
    owner: 'o',
    kind: 'name',
    targets: [{ path, mode: 'write', scope: 'file' }],
    ticket: 1,
    token: 1,
    count: 1,
    grantedAtMs: 1,
    coveredSinceMs: 1,
    leaseMs: null,
    leaseExpiresAtMs: null,
    holdCapMs: null,
    detached: false,
  };
}

/** `open` opens the same disk again each time; only the last one opened is used. */
interface Subject {
  open(): Store;
  end(): void;
}

const subjects: Record<string, () => Subject> = {
  memory() {
    const disk = new MemoryDisk();
    return { open: () => new MemoryStore(disk, HISTORY), end() {} };
  },
  sqlite() {
    const dir = mkdtempSync(join(tmpdir(), 'gate-store-'));
    let store: SqliteStore | undefined;
    return {
      open() {
        store?.close();
        store = new SqliteStore({ path: join(dir, 'broker.db'), historyEvents: HISTORY });
        return store;
      },
      end() {
        store?.close();
        rmSync(dir, { recursive: true });
      },
    };
  },
};

const checks: Record<string, (subject: Subject) => void> = {
  'a committed batch is there when opened again'(subject) {
    const store = subject.open();
    const batch = store.batch();
    batch.put('hold', 'l1', hold('l1'));
    batch.put('meta', 'tokens', 2 ** 53 - 1);
    batch.event({ seq: 1 });
    store.commit(batch, { synced: true });
    const again = subject.open();
    assert.deepEqual([...again.rows('hold')], [['l1', hold('l1')]]);
    assert.deepEqual([...again.rows('meta')], [['tokens', 2 ** 53 - 1]]);
    assert.deepEqual([...again.events()], [{ seq: 1 }]);
    assert.equal(again.head, 1);
  },
  'a hold with everything comes back as it was'(subject) {
    const store = subject.open();
    const batch = store.batch();
    const rows: Hold[] = [
      { ...hold('a'), leaseMs: 5, leaseExpiresAtMs: 6, holdCapMs: 7, who: { pid: 1, command: 'x' } },
      { ...hold('j'), count: 3, joined: ['r2', 'r3'] },
      { ...hold('k'), who: { uid: 0 }, joined: ['r2'] },
      { ...hold('l'), spread: true },
      { ...hold('b'), detached: true, kind: 'handle', coveredSinceMs: -5 },
      {
        ...hold('c'),
        targets: [
          { path: '', mode: 'replace', scope: 'tree' },
          { path: 'b', mode: 'read', scope: 'file' },
        ],
      },
    ];
    for (const row of rows) batch.put('hold', row.lockId, row);
    store.commit(batch);
    assert.deepEqual([...subject.open().rows('hold')].map(([, row]) => row).sort(byKey), rows.sort(byKey));
  },
  'paths that are not UTF-8 come back as they were'(subject) {
    const store = subject.open();
    const batch = store.batch();
    const row = hold('l1', 'caf\udce9/\u{1f600}');
    batch.put('hold', 'l1', row);
    batch.event({ seq: 1, path: row.targets[0]!.path } as { seq: number });
    store.commit(batch);
    const again = subject.open();
    assert.deepEqual([...again.rows('hold')][0]![1], row);
    assert.equal([...again.events(JSON.stringify('caf\udce9/').slice(1, -1))].length, 1);
  },
  'the last change of a row in a batch counts'(subject) {
    const store = subject.open();
    let batch = store.batch();
    batch.put('hold', 'kept', hold('kept'));
    batch.put('hold', 'dropped', hold('dropped'));
    store.commit(batch);
    batch = store.batch();
    batch.put('hold', 'kept', { ...hold('kept'), count: 2 });
    batch.put('hold', 'kept', { ...hold('kept'), count: 3 });
    batch.put('hold', 'dropped', { ...hold('dropped'), count: 2 });
    batch.delete('hold', 'dropped');
    store.commit(batch);
    assert.deepEqual([...subject.open().rows('hold')], [['kept', { ...hold('kept'), count: 3 }]]);
  },
  'a fresh row that goes in the same batch is nothing, and an empty batch writes nothing'(subject) {
    const store = subject.open();
    const batch = store.batch();
    batch.put('hold', 'l1', hold('l1'), true);
    batch.put('hold', 'l1', { ...hold('l1'), count: 2 });
    batch.delete('hold', 'l1');
    assert.equal(batch.empty, true);
    store.commit(batch);
    assert.equal(store.head, 0);
    batch.put('hold', 'l1', hold('l1'), true);
    store.commit(batch);
    assert.equal(store.head, 1);
  },
  'history is bounded, newest first, and found by what it contains'(subject) {
    const store = subject.open();
    for (let seq = 1; seq <= 9000; ) {
      const batch = store.batch();
      for (let i = 0; i < 10; i++, seq++) batch.event({ seq, path: `p${seq}` } as { seq: number });
      store.commit(batch);
    }
    const seqs = [...store.events()].map((event) => event.seq);
    assert.equal(seqs[0], 9000);
    assert.ok(seqs.length >= HISTORY && seqs.length < HISTORY + 1100, `${seqs.length} events`);
    assert.deepEqual(
      seqs,
      seqs.toSorted((a, b) => b - a),
    );
    const found = [...store.events('"p8765"')].map((event) => event.seq);
    assert.ok(found.includes(8765) && found.length <= 10);
    assert.equal([...store.events('"p1"')].length, 0);
  },
};

for (const [name, make] of Object.entries(subjects))
  describe(`store ${name}`, () => {
    for (const [title, check] of Object.entries(checks))
      test(title, () => {
        const subject = make();
        try {
          check(subject);
        } finally {
          subject.end();
        }
      });
  });

test('memory: a batch that another writer overtook is refused whole', () => {
  const disk = new MemoryDisk();
  const one = new MemoryStore(disk);
  const two = new MemoryStore(disk);
  const batch = () => {
    const made = one.batch();
    made.put('meta', 'x', 1);
    return made;
  };
  one.commit(batch());
  assert.throws(() => two.commit(batch()), { code: 'unavailable' });
});

describe('store sqlite', () => {
  const withDir = (run: (path: string) => void) => () => {
    const dir = mkdtempSync(join(tmpdir(), 'gate-store-'));
    try {
      run(join(dir, 'broker.db'));
    } finally {
      rmSync(dir, { recursive: true });
    }
  };
  const refused = (path: string, pattern: RegExp) =>
    assert.throws(
      () => {
        const store = new SqliteStore({ path });
        try {
          for (const table of ['hold', 'meta'] as const) for (const _ of store.rows(table));
        } finally {
          store.close();
        }
      },
      (error) => error instanceof GateError && pattern.test(error.message),
    );
  const filled = (path: string) => {
    const store = new SqliteStore({ path });
    const batch = store.batch();
    for (let i = 0; i < 200; i++) batch.put('hold', `l${i}`, hold(`l${i}`));
    store.commit(batch);
    store.close();
  };

  test(
    'mode 0600, and for one process alone',
    withDir((path) => {
      const store = new SqliteStore({ path });
      assert.equal(statSync(path).mode & 0o777, 0o600);
      refused(path, /in use by another process/);
      store.close();
      new SqliteStore({ path }).close();
    }),
  );

  test(
    'a newer database is refused and left as it is',
    withDir((path) => {
      filled(path);
      const db = new DatabaseSync(path);
      db.exec('PRAGMA user_version = 99');
      db.close();
      const before = readFileSync(path);
      refused(path, /newer Gate \(its schema is 99/);
      assert.deepEqual(readFileSync(path), before);
    }),
  );

  test(
    'a damaged database is refused and left as it is',
    withDir((path) => {
      for (const spoil of [
        (bytes: Buffer) => bytes.fill(0x5a, 0, 100),
        (bytes: Buffer) => bytes.fill(0x5a, 4096, bytes.length),
        (bytes: Buffer) => bytes.subarray(0, 5000),
        (bytes: Buffer) => bytes.write('#oops!', bytes.lastIndexOf('["r-l')),
        () => Buffer.from('this was never a database, but it is long enough to look like one. '.repeat(20)),
      ]) {
        rmSync(path, { force: true });
        filled(path);
        const bytes = readFileSync(path);
        const spoilt = spoil(bytes);
        writeFileSync(path, Buffer.isBuffer(spoilt) ? spoilt : bytes);
        const before = readFileSync(path);
        refused(path, /is damaged .*Gate leaves it as it is/);
        assert.deepEqual(readFileSync(path), before);
      }
    }),
  );

  test(
    "somebody else's database is refused",
    withDir((path) => {
      const db = new DatabaseSync(path);
      db.exec('CREATE TABLE mine (x)');
      db.close();
      refused(path, /not a database of Gate/);
    }),
  );
});

test('a full disk: nothing of the batch is written, and it can be committed again', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'gate-room-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'gate-room', dir]).status === 0;
  let store: SqliteStore | undefined;
  t.after(() => {
    store?.close();
    if (mounted) spawnSync('umount', ['-l', dir]);
    rmSync(dir, { recursive: true, force: true });
  });
  if (!mounted) return t.skip('it takes root to mount a small disk');
  fillsUp(dir, (store = new SqliteStore({ path: join(dir, 'broker.db') })));
});

function fillsUp(dir: string, store: SqliteStore): void {
  const rows = (count: number) => {
    const batch = store.batch();
    for (let i = 0; i < count; i++) batch.put('meta', `row ${store.head} ${i} ${'x'.repeat(200)}`, i);
    return batch;
  };
  store.commit(rows(10));
  writeFileSync(join(dir, 'filler'), Buffer.alloc(600_000));
  const { head } = store;
  const large = rows(2000);
  assert.throws(() => store.commit(large), NoRoom);
  assert.equal(store.head, head);
  assert.equal([...store.rows('meta')].length, 10);
  rmSync(join(dir, 'filler'));
  store.commit(rows(100));
  assert.equal([...store.rows('meta')].length, 110);
}
