/** Whatever an SFTP client sends: each request has one answer, nothing outside the root is touched, and nothing is left when it is gone. */
import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock, until } from '../../src/base/clock.ts';
import { LockCore } from '../../src/lock/index.ts';
import { SftpActors } from '../../src/sftp/actors.ts';
import { Connection } from '../../src/sftp/connection.ts';
import { Fields, Framer, ProtocolError } from '../../src/sftp/packets.ts';
import { FX, FXF, FXP, SFTP_LIMITS } from '../../src/sftp/protocol.ts';
import { Walker } from '../../src/sftp/walk.ts';
import * as sys from '../../src/sys/index.ts';
import type { LockAnswers, LockPort, LockRequest } from '../../src/view/locks.ts';
import { LostFolder } from '../../src/view/lost/folder.ts';
import { Tree } from '../../src/view/tree.ts';
import { View } from '../../src/view/view.ts';
import { bytes, generator, pick, type Random, seedOf } from './kit.ts';

/** The lock core as a port, whose answers come a turn later, as a broker's do. */
class CorePort implements LockPort {
  readonly core: LockCore;
  readonly #answers = new Map<string, LockAnswers>();
  onQueued: (tid: number) => void = () => {};
  /** A broker that is away. */
  silent = false;

  constructor() {
    let next = 1;
    const counters = { nextTicket: () => next++, nextToken: () => next++, newLockId: () => `L${next++}` };
    this.core = new LockCore({ counters });
  }

  #apply(command: Parameters<LockCore['apply']>[0]): void {
    for (const effect of this.core.apply(command, systemClock.nowMs())) {
      if (effect.type === 'granted') {
        const { lockId, token } = effect.hold;
        this.#later(effect.requestId, (answers) => answers.granted(lockId, token));
      } else if (effect.type === 'refused')
        this.#later(effect.request.requestId, (answers) => answers.refused('timeout', effect.message));
    }
  }

  #later(requestId: string, use: (answers: LockAnswers) => void): void {
    setImmediate(() => {
      const answers = this.#answers.get(requestId);
      this.#answers.delete(requestId);
      if (answers) use(answers);
      else this.#apply({ type: 'cancel', requestId, session: 's' });
    });
  }

  tryNow(): null {
    return null;
  }

  acquire(request: LockRequest, answers: LockAnswers): void {
    const { requestId, owner, kind, targets, waitMs, tid } = request;
    this.#answers.set(requestId, answers);
    if (this.silent) return;
    const more = { session: 's', volume: 'v', leaseMs: null, holdCapMs: null };
    this.#apply({ type: 'acquire', request: { requestId, owner, kind, targets, waitMs, ...more } });
    if (this.core.waits().some((wait) => wait.request.requestId === requestId))
      setImmediate(() => this.onQueued(tid));
    if (waitMs !== null) setTimeout(() => this.#apply({ type: 'tick' }), waitMs + 1);
  }

  cancel(requestId: string): void {
    this.#answers.delete(requestId);
    this.#apply({ type: 'cancel', requestId, session: 's' });
  }

  release(lockId: string, owner: string): void {
    try {
      this.#apply({ type: 'release', lockId, owner });
    } catch {
      // It went with what was removed.
    }
  }

  move(from: string, to: string, tree: boolean): void {
    this.#apply({ type: 'move', volume: 'v', from, to, tree });
  }

  exchange(a: string, b: string, tree: boolean): void {
    this.#apply({ type: 'exchange', volume: 'v', a, b, tree });
  }

  detach(path: string, tree: boolean): void {
    this.#apply({ type: 'detach', volume: 'v', path, tree });
  }

  addTarget(): void {}
}

interface Bench {
  readonly root: string;
  readonly outside: string;
  readonly view: View;
  readonly port: CorePort;
  readonly walker: Walker;
  open(): Client;
}

class Client {
  readonly connection: Connection;
  readonly #framer = new Framer();
  /** Answers by the number of their request; VERSION is under -1. */
  readonly answers = new Map<number, { type: number; fields: Fields }>();
  readonly twice: number[] = [];

  constructor(make: (client: Client) => Connection) {
    this.connection = make(this);
  }

  take(packet: Buffer): void {
    this.#framer.push(packet);
    for (let got = this.#framer.next(); got !== null; got = this.#framer.next()) {
      const type = got[0]!;
      const fields = new Fields(got, 1);
      const id = type === FXP.VERSION ? -1 : fields.u32();
      if (this.answers.has(id)) this.twice.push(id);
      this.answers.set(id, { type, fields });
    }
  }

  /** The answer, when it is there. */
  async answer(id: number): Promise<{ type: number; fields: Fields }> {
    const there = await until(() => this.answers.has(id), 20_000, 1);
    assert.ok(there, `request ${id} has no answer`);
    return this.answers.get(id)!;
  }

  async status(id: number): Promise<number> {
    const { type, fields } = await this.answer(id);
    assert.equal(type, FXP.STATUS);
    return fields.u32();
  }
}

function bench(t: TestContext): Bench {
  const outside = mkdtempSync('/var/tmp/gate-sftp-fuzz-');
  const root = join(outside, 'root');
  mkdirSync(root);
  writeFileSync(join(outside, 'canary'), 'sings');
  for (const dir of ['a', 'a/b', 'c']) mkdirSync(join(root, dir));
  for (const file of ['x', 'y', 'a/x', 'a/b/y', 'c/z']) writeFileSync(join(root, file), `${file}\n`);
  symlinkSync('../../..', join(root, 'a/up'));
  symlinkSync(outside, join(root, 'out'));
  symlinkSync('loop', join(root, 'loop'));
  const rootFd = openSync(root, sys.O_PATH | constants.O_DIRECTORY);
  const port = new CorePort();
  const actors = new SftpActors();
  const tree = new Tree(rootFd, 64, new sys.StatBuf());
  const view = new View({
    tree,
    options: {
      waitMs: 60,
      lockIgnored: false,
      scanners: [],
      nonblockWaiters: [],
      staleWrites: 'off',
      keepBytes: 0,
      requestPrefix: 'r',
      privileged: false,
      passthrough: false,
    },
    clock: systemClock,
    locks: port,
    actors,
    hasAuthority: () => true,
    lost: new LostFolder(rootFd, systemClock.wallMs),
    events: { note() {} },
    rescue: {
      fresh: (_job, done) => done('no'),
      findWriters: (done) => done(null),
      copy: (_job, done) => done('no'),
      added: (_kept, done) => done(0),
      cleaned() {},
    },
  });
  const walker = new Walker(tree);
  const connections: Connection[] = [];
  port.onQueued = (tid) => void connections.some((connection) => connection.queued(tid));
  const shared = {
    ...{ view, walker, actors, uid: sys.geteuid(), gid: sys.getegid(), umask: 0o022, about: '{}\n' },
    wallMs: systemClock.wallMs,
    who: (done: (text: string) => void) => done('Nobody waits.\n'),
    sync: (_fd: number, done: (result: number) => void) => void setImmediate(done, 0),
  };
  t.after(() => {
    closeSync(rootFd);
    rmSync(outside, { recursive: true, force: true });
  });
  return {
    root,
    outside,
    view,
    port,
    walker,
    open() {
      return new Client((client) => {
        const transport = { send: (packet: Buffer) => client.take(packet), queuedBytes: 0 };
        const connection = new Connection(shared, connections.length + 1, {}, transport);
        // As a socket that was paused would go on.
        connection.onReady = () => void setImmediate(() => connection.pump());
        connections.push(connection);
        return connection;
      });
    },
  };
}

// ------------------------------------------------------------ packets

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};
const str = (value: Buffer | string) => {
  const content = Buffer.from(value as string);
  return Buffer.concat([u32(content.length), content]);
};
const packet = (type: number, ...parts: Buffer[]) => str(Buffer.concat([Buffer.of(type), ...parts]));
const u64 = (value: number) => Buffer.concat([u32(Math.floor(value / 2 ** 32)), u32(value % 2 ** 32)]);
const INIT = packet(FXP.INIT, u32(3));
const NO_ATTRIBUTES = u32(0);

const NAMES = [
  'a',
  'b',
  'c',
  'x',
  'y',
  'z',
  '..',
  '.',
  '',
  'up',
  'out',
  'loop',
  'canary',
  'new',
  '.gate',
  'about',
  '\u00ff',
];

function somePath(random: Random): Buffer {
  if (random() < 0.03) return bytes(random, Math.floor(random() * 300));
  const names = Array.from({ length: 1 + Math.floor(random() * 4) }, () => pick(random, NAMES));
  return Buffer.from((random() < 0.5 ? '/' : '') + names.join('/'), 'latin1');
}

const EXTENDED = [
  'posix-rename@openssh.com',
  'hardlink@openssh.com',
  'fsync@openssh.com',
  'statvfs@openssh.com',
  'lsetstat@openssh.com',
  'limits@openssh.com',
  'constructor',
  '__proto__',
  'toString',
];

/** A request that is well-formed, mostly, about files that are there, mostly. */
function someRequest(random: Random, id: number): Buffer {
  const path = () => str(somePath(random));
  const handle = () => str(u32(1 + Math.floor(random() * 40)));
  const attributes = () =>
    pick(random, [
      NO_ATTRIBUTES,
      Buffer.concat([u32(1), u64(Math.floor(random() * 5000))]),
      Buffer.concat([u32(4), u32(0o640)]),
      Buffer.concat([u32(8), u32(1e9), u32(1e9)]),
    ]);
  const type = pick(random, [
    ...Object.values(FXP).filter((each) => each >= FXP.OPEN && each <= FXP.SYMLINK),
    FXP.OPEN,
    FXP.OPEN,
    FXP.CLOSE,
    FXP.EXTENDED,
    77,
  ]);
  const n = u32(id);
  switch (type) {
    case FXP.OPEN:
      return packet(type, n, path(), u32(Math.floor(random() * 64)), attributes());
    case FXP.READ:
      return packet(type, n, handle(), u64(Math.floor(random() * 5000)), u32(Math.floor(random() * 70_000)));
    case FXP.WRITE:
      return packet(
        type,
        n,
        handle(),
        u64(Math.floor(random() * 5000)),
        str(bytes(random, Math.floor(random() * 2000))),
      );
    case FXP.CLOSE:
    case FXP.FSTAT:
    case FXP.READDIR:
      return packet(type, n, handle());
    case FXP.FSETSTAT:
      return packet(type, n, handle(), attributes());
    case FXP.SETSTAT:
    case FXP.MKDIR:
      return packet(type, n, path(), attributes());
    case FXP.RENAME:
    case FXP.SYMLINK:
      return packet(type, n, path(), path());
    case FXP.EXTENDED: {
      const name = pick(random, EXTENDED);
      const rest = name.startsWith('fsync')
        ? [handle()]
        : name.startsWith('lset')
          ? [path(), attributes()]
          : [path(), path()];
      return packet(type, n, str(name), ...rest);
    }
    default:
      return packet(type, n, path());
  }
}

/** Everything of the tree by name, and what stands beside its root. */
function outsideOf(bench: Bench): string {
  return `${readdirSync(bench.outside).sort().join()}:${readFileSync(join(bench.outside, 'canary'), 'utf8')}`;
}

function clean({ view, port, walker }: Bench): void {
  assert.equal(view.handles.size, 0);
  walker.close();
  assert.equal(view.tree.nodes, 1, 'only the root is known still');
  assert.deepEqual([...port.core.holdsOf('s')], []);
  assert.deepEqual(port.core.waits(), []);
}

test('each request has one answer, whatever it asks, and nothing is left', async (t) => {
  const seed = seedOf(11);
  t.diagnostic(`GATE_SEED=${seed} node --test test/fuzz/sftp.test.ts`);
  const random = generator(seed);
  const all = bench(t);
  const before = outsideOf(all);
  for (let round = 0; round < 12; round++) {
    const client = all.open();
    client.connection.feed(INIT);
    const count = 400;
    let queue = Buffer.concat(Array.from({ length: count }, (_, id) => someRequest(random, id)));
    while (queue.length > 0) {
      const size = 1 + Math.floor(random() * 3000);
      client.connection.feed(queue.subarray(0, size));
      queue = queue.subarray(size);
      if (random() < 0.2) await new Promise((done) => setImmediate(done));
    }
    // Some clients go with everything under way.
    if (round % 3 !== 2) {
      await until(() => client.answers.size === count + 1, 20_000, 5);
      const missing = Array.from({ length: count }, (_, id) => id).filter((id) => !client.answers.has(id));
      assert.deepEqual(missing, []);
    }
    assert.deepEqual(client.twice, []);
    client.connection.close();
    await until(() => all.port.core.waits().length === 0 && all.view.handles.size === 0, 5000, 5);
    await new Promise((done) => setTimeout(done, 20));
    clean(all);
    assert.equal(outsideOf(all), before);
  }
});

test('however a stream is split, its answers are the same', async (t) => {
  const run = async (split: (stream: Buffer) => Buffer[]) => {
    const all = bench(t);
    const client = all.open();
    const stream = Buffer.concat([
      INIT,
      packet(FXP.REALPATH, u32(1), str('a/../a/b/.')),
      packet(FXP.LSTAT, u32(2), str('nowhere')),
      packet(FXP.READLINK, u32(3), str('a/up')),
      packet(FXP.OPEN, u32(4), str('.gate/about'), u32(FXF.READ), NO_ATTRIBUTES),
      packet(FXP.READ, u32(5), str(u32(1)), u64(0), u32(100)),
      packet(FXP.STAT, u32(6), str('a/up/canary')),
    ]);
    for (const part of split(stream)) client.connection.feed(part);
    await client.answer(6);
    const told = [...client.answers].map(([id, { type, fields }]) => `${id} ${type} ${fields.left}`);
    client.connection.close();
    return told;
  };
  const whole = await run((stream) => [stream]);
  assert.deepEqual(await run((stream) => [...stream].map((byte) => Buffer.of(byte))), whole);
  assert.deepEqual(
    await run((stream) => [stream.subarray(0, 7), stream.subarray(7, 100), stream.subarray(100)]),
    whole,
  );
  assert.equal(whole.length, 7);
});

test('a packet that is too long, empty, or before its time ends the connection', (t) => {
  const all = bench(t);
  for (const garbage of [
    u32(0),
    u32(SFTP_LIMITS.packetBytes + 1),
    u32(0xffff_ffff),
    packet(FXP.LSTAT, u32(1), str('x')),
    Buffer.concat([INIT, INIT]),
    Buffer.concat([INIT, packet(FXP.LSTAT, Buffer.of(0, 0))]),
  ]) {
    const client = all.open();
    assert.throws(() => client.connection.feed(garbage), ProtocolError);
    client.connection.close();
  }
});

test('noise throws nothing but ProtocolError', (t) => {
  const seed = seedOf(11);
  t.diagnostic(`GATE_SEED=${seed} node --test test/fuzz/sftp.test.ts`);
  const random = generator(seed);
  const all = bench(t);
  for (let round = 0; round < 300; round++) {
    const client = all.open();
    const body = Buffer.concat([
      Buffer.of(Math.floor(random() * 256)),
      u32(round),
      bytes(random, Math.floor(random() * 200)),
    ]);
    try {
      client.connection.feed(Buffer.concat([INIT, str(body)]));
    } catch (error) {
      assert.ok(error instanceof ProtocolError, String(error));
    }
    client.connection.close();
  }
});

test('limits: parked opens, open files, long paths', async (t) => {
  const all = bench(t);
  const holder = all.open();
  holder.connection.feed(INIT);
  holder.connection.feed(packet(FXP.OPEN, u32(1), str('x'), u32(FXF.READ | FXF.WRITE), NO_ATTRIBUTES));
  assert.equal((await holder.answer(1)).type, FXP.HANDLE);
  const client = all.open();
  client.connection.feed(INIT);
  const readers = SFTP_LIMITS.parkedOpens + 3;
  for (let id = 1; id <= readers; id++)
    client.connection.feed(packet(FXP.OPEN, u32(id), str('x'), u32(FXF.READ), NO_ATTRIBUTES));
  // The first LSTAT behind a parked open belongs to it; another is for somebody else.
  client.connection.feed(packet(FXP.LSTAT, u32(100), str('x')));
  client.connection.feed(packet(FXP.LSTAT, u32(101), str('x')));
  await client.answer(101);
  await until(() => client.answers.size >= 5, 5000, 1);
  assert.equal(client.connection.parked <= SFTP_LIMITS.parkedOpens, true);
  for (let id = SFTP_LIMITS.parkedOpens + 1; id <= readers; id++)
    assert.equal(await client.status(id), FX.FAILURE);
  holder.connection.feed(packet(FXP.CLOSE, u32(2), str(u32(1))));
  for (let id = 1; id <= SFTP_LIMITS.parkedOpens; id++)
    assert.equal((await client.answer(id)).type, FXP.HANDLE);

  client.connection.feed(packet(FXP.LSTAT, u32(200), str('x'.repeat(SFTP_LIMITS.pathBytes + 1))));
  assert.equal(await client.status(200), FX.BAD_MESSAGE);
  client.connection.feed(packet(FXP.LSTAT, u32(201), str('x\0y')));
  assert.equal(await client.status(201), FX.BAD_MESSAGE);
  for (let id = 1000; id < 1000 + SFTP_LIMITS.handles; id++) {
    client.connection.feed(packet(FXP.OPENDIR, u32(id), str('a')));
  }
  await client.answer(1000 + SFTP_LIMITS.handles - 1);
  assert.equal(client.connection.openFiles, SFTP_LIMITS.handles);
  client.connection.close();
  holder.connection.close();
  clean(all);
});

test('a broker that is away stops nobody for long', async (t) => {
  const all = bench(t);
  const client = all.open();
  client.connection.feed(INIT);
  all.port.silent = true;
  const names = Array.from({ length: 12 }, (_, i) => i + 1);
  for (const id of names)
    client.connection.feed(packet(FXP.OPEN, u32(id), str('x'), u32(FXF.READ), NO_ATTRIBUTES));
  client.connection.feed(packet(FXP.REMOVE, u32(20), str('y')));
  client.connection.feed(packet(FXP.OPEN, u32(21), str('made'), u32(FXF.WRITE | FXF.CREAT), NO_ATTRIBUTES));
  for (const id of [...names, 20, 21]) assert.equal(await client.status(id), FX.FAILURE);
  client.connection.close();
  clean(all);
});
