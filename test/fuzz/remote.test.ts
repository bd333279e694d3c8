/**
 * Garbage at the socket for remote mounts: frames and FUSE requests that are nearly right, and connections that end anywhere. The view must go on
 * serving everybody else, and give away nothing that the client was not given.
 *
 *   GATE_SEED=… node --test test/fuzz/remote.test.ts
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { IN_HEADER_BYTES, OP, OPERATIONS } from '../../src/fuse/index.ts';
import { greeting } from '../../src/remote/link.ts';
import { Incoming, Outgoing, write64 } from '../../src/remote/stream.ts';
import { FRAME, type Hello, PROTOCOL } from '../../src/remote/wire.ts';
import { startGate } from '../e2e/harness.ts';
import { below, generator, seedOf } from './kit.ts';

const SEED = seedOf(1);
const SESSIONS = 40;
const FRAMES = 150;

function chance(seed: number): (limit: number) => number {
  const random = generator(seed);
  return (limit) => below(random, limit);
}

type Chance = ReturnType<typeof chance>;

const hello: Hello = { protocol: PROTOCOL, version: 'fuzz', host: 'fuzz', uid: 0, gid: 0, idMap: 'user' };

/** A request for some operation, with a body of random numbers and perhaps a name. */
function request(pick: Chance, unique: number, opcode = pick(56)): Buffer {
  const fixed = OPERATIONS[opcode]?.bodyBytes ?? 8;
  const names = Buffer.from(
    ['f\0', 'none\0', '..\0', 'a/b\0', 'f\0g\0', '\xff\0', 'no end', ''][pick(8)]!,
    'latin1',
  );
  const bytes = Buffer.alloc(IN_HEADER_BYTES + Math.max(0, fixed - (pick(8) === 0 ? 4 : 0)) + names.length);
  for (let at = IN_HEADER_BYTES; at + 4 <= bytes.length - names.length; at += 4)
    bytes.writeUInt32LE([0, 1, 2, 7, 0xffff_ffff, pick(65_536), 0x8000_0000][pick(7)]!, at);
  names.copy(bytes, bytes.length - names.length);
  bytes.writeUInt32LE(pick(30) === 0 ? pick(100_000) : bytes.length, 0);
  bytes.writeUInt32LE(opcode, 4);
  write64(bytes, 8, unique);
  write64(bytes, 16, [1, 1, 2, 3, 0, 99_999, 2 ** 40][pick(7)]!);
  bytes.writeUInt32LE(pick(3) * 100, 32);
  return bytes;
}

function init(): Buffer {
  const bytes = Buffer.alloc(IN_HEADER_BYTES + 64);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt32LE(OP.INIT, 4);
  write64(bytes, 8, 2);
  bytes.writeUInt32LE(7, IN_HEADER_BYTES);
  bytes.writeUInt32LE(45, IN_HEADER_BYTES + 4);
  bytes.writeUInt32LE(0xffff_ffff, IN_HEADER_BYTES + 12);
  return bytes;
}

function frames(pick: Chance): Buffer {
  const out = new Outgoing();
  const put = (type: number, ...parts: Buffer[]) => {
    const content = Buffer.concat(parts);
    content.copy(out.frame(type, content.length));
  };
  const prefix = (number: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(number, 0);
    bytes.writeUInt32LE(pick(4), 4);
    return bytes;
  };
  put(FRAME.REQUEST, prefix(0), init());
  const who = { pid: 5, uid: 0, command: 'fuzz' };
  out.json(FRAME.ACTOR, { number: 1, owner: '0/fuzz', pid: 5, groups: [], who });
  for (let i = 0; i < FRAMES; i++) {
    const kind = pick(40);
    if (kind < 34)
      put(FRAME.REQUEST, prefix(pick(20) === 0 ? pick(9999) : pick(2)), request(pick, 4 + i * 2));
    else if (kind === 34) put(FRAME.INTERRUPT, prefix(pick(500)));
    else if (kind === 35) put(FRAME.FORGET, prefix(pick(5)), prefix(pick(5)));
    else if (kind === 36) put(FRAME.ANSWER, Buffer.from('{"id":1,"pids":[1]}'));
    else if (kind === 37)
      put([FRAME.ACTOR, FRAME.ASK, 77, 0][pick(4)]!, Buffer.from('{"number":-1,"owner":[]}'));
    else if (kind === 38) put(FRAME.ACK, prefix(pick(3) === 0 ? 0xffff : 0));
    else put(FRAME.REQUEST, Buffer.alloc(pick(60), pick(256)));
  }
  const bytes = Buffer.concat(out.next(10_000));
  // Some bytes are others, and it may end anywhere.
  for (let i = pick(3); i > 0; i--) bytes[pick(bytes.length)] = pick(256);
  return pick(3) === 0 ? bytes.subarray(0, pick(bytes.length)) : bytes;
}

/** Sends all that, and waits until the other end closes or has had time to. */
function session(path: string, bytes: Buffer, ends: boolean): Promise<void> {
  return new Promise((done) => {
    const socket: Socket = connect(path);
    socket.on('error', () => {});
    socket.on('close', () => done());
    let heard = 0;
    socket.on('data', (part: Buffer) => {
      heard += part.length;
      if (heard > 200) socket.end();
    });
    socket.write(greeting(FRAME.HELLO, hello));
    socket.write(bytes);
    if (ends) socket.end();
  });
}

test(`the view stands garbage from remote clients (GATE_SEED=${SEED})`, { timeout: 120_000 }, async (t) => {
  const gate = await startGate(t, { serve: { ttlMs: 100 } });
  fs.writeFileSync(`${gate.root}/f`, 'text');
  const before = gate.mounter.pid;
  const pick = chance(SEED);
  const there = await gate.remoteMount();
  const all = [];
  for (let i = 0; i < SESSIONS; i++) all.push(session(gate.serveSocket, frames(pick), pick(2) === 0));
  for (const bad of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.alloc(100, 0xff), greeting(FRAME.BYE, {})])
    all.push(
      new Promise<void>((done) => {
        const socket = connect(gate.serveSocket, () => socket.end(bad));
        socket.on('error', () => {});
        socket.on('data', () => {});
        socket.on('close', () => done());
      }),
    );
  await Promise.all(all);
  assert.equal(gate.mounter.exitCode, null, 'the view died');
  assert.equal(gate.mounter.pid, before);
  const done = await gate.sh('echo new > g; cat g; rm g; ls -d .', { cwd: there }).done;
  assert.deepEqual([done.status, done.out], [0, 'new\n.\n'], done.err);
  assert.equal((await gate.sh('echo new > g; cat g; rm g').done).out, 'new\n');
  await gate.idle();
});

test(`frames are what was put in, however they are cut (GATE_SEED=${SEED})`, () => {
  const pick = chance(SEED);
  const out = new Outgoing();
  const incoming = new Incoming();
  const sent: string[] = [];
  const got: string[] = [];
  let position = 0;
  for (let i = 0; i < 3000; i++) {
    const content = Buffer.alloc(pick(50) === 0 ? pick(1_000_000) : pick(300), i % 251);
    content.copy(out.frame(1 + (i % 5), content.length));
    sent.push(`${1 + (i % 5)} ${content.length} ${content[0]}`);
    // Now and then the connection breaks, and the other end names what it has.
    if (pick(20) === 0) assert.ok(out.goOn(incoming.received));
    for (let writes = pick(4); writes > 0; writes--) {
      const next = out.next(1 + pick(3))[0];
      if (next === undefined) break;
      const room = incoming.room();
      const bytes = Math.min(next.length, room.length, 1 + pick(100_000));
      next.copy(room, 0, 0, bytes);
      out.wrote(bytes);
      incoming.arrived(bytes);
      for (let frame = incoming.take(); frame !== null; frame = incoming.take()) {
        assert.ok(frame);
        got.push(`${frame.type} ${frame.content.length} ${frame.content[0]}`);
      }
    }
    if (pick(10) === 0) assert.ok(out.acknowledged(incoming.received));
    position = Math.max(position, incoming.received);
  }
  while (out.unwritten > 0) {
    const next = out.next(1)[0]!;
    const room = incoming.room();
    const bytes = Math.min(next.length, room.length);
    next.copy(room, 0, 0, bytes);
    out.wrote(bytes);
    incoming.arrived(bytes);
    for (let frame = incoming.take(); frame !== null; frame = incoming.take())
      got.push(`${frame!.type} ${frame!.content.length} ${frame!.content[0]}`);
  }
  assert.deepEqual(got, sent);
  assert.equal(incoming.received, out.total);
});
