/** The client's reactor, a thread of its own: /dev/fuse on one side, the connection on the other. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { READ_BUFFER_BYTES, TimerQueue } from '../fuse/index.ts';
import { Actors } from '../mount/actors.ts';
import type { FromProber } from '../mount/messages.ts';
import { groupsOf, hasInode, wantsToStop } from '../mount/proc.ts';
import { POLLIN, POLLOUT } from '../sys/constants.ts';
import * as sys from '../sys/index.ts';
import { RemoteKernel } from './kernel.ts';
import { Greeting, greeting, Link } from './link.ts';
import type { ClientData, FromClient, ToClient } from './messages.ts';
import { Nodes } from './nodes.ts';
import { Incoming, jsonOf, read64 } from './stream.ts';
import { ALIVE_MS, FRAME, type Hello, PROTOCOL, type Refusal, type Welcome } from './wire.ts';

const data = workerData as ClientData;
const post = (message: FromClient) => data.main.postMessage(message);
/** More than this is kept for the server: the kernel must wait. */
const BUSY_BYTES = 32 * 1024 * 1024;
const GREETING_MS = 20_000;
/** Requests read before the connection gets its turn. */
const BATCH = 64;

const clockOffset = Number(process.hrtime.bigint()) / 1e6 - performance.now();
const nowMs = () => performance.now() + clockOffset;
const timers = new TimerQueue(nowMs);
const request = Buffer.alloc(READ_BUFFER_BYTES);
let fuseFd = -1;
let mountDev = 0;
let ended: string | null = null;
let stopping = false;

let actors: Actors | null = null;
const nodes = new Nodes();
const kernel = new RemoteKernel(
  {
    write: (from, length) => (fuseFd < 0 ? -sys.ENODEV : sys.write(fuseFd, from, length)),
    tellKernel: (message) => post({ t: 'tell_kernel', message }),
    actors: {
      known: (caller) => actors?.known(caller) ?? null,
      resolve: (caller, done) => actors?.resolve(caller, done),
      ancestorsWithOpen: (caller, ino, done) => actors?.ancestorsWithOpen(caller, BigInt(ino), done),
    },
    groupsOf,
    wantsToStop,
    hasInode,
    timers,
    log: (level, message) => post({ t: 'log', level, message }),
  },
  nodes,
);

// ------------------------------------------------------------ the connection

let incoming = new Incoming();
let link: Link | null = null;
let hello: { fd: number; greeting: Greeting; timer: { cancel(): void } } | null = null;
let token: string | undefined;
let ttlMs = 0;
let heardMs = 0;
let aliveTimer: { cancel(): void } | null = null;
let ttlTimer: { cancel(): void } | null = null;

function connected(fd: number): void {
  const first: Hello = {
    protocol: PROTOCOL,
    version: data.version,
    host: data.host,
    uid: data.uid,
    gid: data.gid,
    idMap: data.idMap,
    ...(token !== undefined && { token, received: incoming.received }),
  };
  const bytes = greeting(FRAME.HELLO, first);
  const timer = timers.set(GREETING_MS, () => unwelcome('no answer'));
  hello = { fd, greeting: new Greeting(), timer };
  if (sys.write(fd, bytes) !== bytes.length) unwelcome('it broke at once');
}

function unwelcome(why: string, refused = false): void {
  if (hello === null) return;
  hello.timer.cancel();
  sys.close(hello.fd);
  hello = null;
  post({ t: 'broken', why, refused });
}

function greeted(): void {
  const got = hello!.greeting.receive(hello!.fd, FRAME.WELCOME);
  if (got === null) return;
  if (typeof got === 'number')
    return unwelcome(got === -sys.EPIPE ? 'nobody answers there' : sys.errnoName(got));
  const frame = jsonOf(got) as unknown as Welcome | Refusal | null;
  if (frame === null) return unwelcome('it answers something else');
  if ('refused' in frame) return unwelcome(frame.refused, true);
  if (frame.protocol !== PROTOCOL)
    return unwelcome(`it speaks version ${frame.protocol} of the protocol`, true);
  const { fd, timer } = hello!;
  timer.cancel();
  hello = null;
  ttlTimer?.cancel();
  ttlTimer = null;
  if (!frame.resumed || !kernel.out.goOn(frame.received)) {
    if (frame.resumed) {
      sys.close(fd);
      lost();
      return post({ t: 'broken', why: 'it forgot what it had', refused: false });
    }
    if (token !== undefined) lost();
    incoming = new Incoming();
    kernel.begin();
  }
  token = frame.token;
  ttlMs = frame.ttlMs;
  kernel.state = 'live';
  link = new Link(fd, incoming, kernel.out);
  heardMs = nowMs();
  stayAlive(link);
  post({ t: 'welcome', welcome: frame });
}

function stayAlive(current: Link): void {
  aliveTimer = timers.set(ALIVE_MS, () => {
    if (link !== current) return;
    if (nowMs() - heardMs > 3 * ALIVE_MS) return broke('it is silent');
    current.acknowledge();
    stayAlive(current);
  });
}

/** The connection is broken; the session goes on for its TTL. */
function broke(why: string): void {
  if (link === null) return;
  link.close();
  link = null;
  aliveTimer?.cancel();
  kernel.state = 'broken';
  if (token !== undefined) ttlTimer = timers.set(ttlMs, lost);
  post({ t: 'broken', why, refused: false });
}

function lost(): void {
  if (token === undefined) return;
  token = undefined;
  ttlTimer?.cancel();
  ttlTimer = null;
  kernel.lost();
  post({ t: 'lost' });
}

function frame(type: number, content: Buffer): void {
  switch (type) {
    case FRAME.REPLY:
      return kernel.reply(content);
    case FRAME.NOTIFY:
      return kernel.notify(content);
    case FRAME.ASK: {
      const question = jsonOf(content);
      if (question !== null) kernel.asked(question);
      return;
    }
    case FRAME.ACK:
      if (content.length >= 8) kernel.out.acknowledged(read64(content, 0));
      return;
  }
}

function receive(): void {
  heardMs = nowMs();
  const code = link!.receive(frame);
  if (code < 0) broke(code === -sys.EPIPE ? 'the other end closed it' : sys.errnoName(code));
}

// ------------------------------------------------------------ the kernel and the other threads

/** Reads requests until there are none for now. */
function serve(): void {
  for (let i = 0; i < BATCH && kernel.out.kept < BUSY_BYTES; i++) {
    const got = sys.read(fuseFd, request);
    if (got > 0) kernel.request(request.subarray(0, got));
    else if (got === -sys.ENODEV || got === -sys.ECONNABORTED) ended = 'unmounted';
    else if (got !== -sys.EINTR && got !== -sys.ENOENT && got !== -sys.EAGAIN) ended = sys.errnoName(got);
    if (got <= 0 && got !== -sys.EINTR && got !== -sys.ENOENT) return;
  }
}

function fromMain(message: ToClient): void {
  switch (message.t) {
    case 'connected':
      return connected(message.fd);
    case 'serve':
      mountDev = message.mountDev;
      actors = new Actors(data.prober, mountDev, data.owner);
      sys.fcntl(message.fuseFd, sys.F_SETFL, sys.fcntl(message.fuseFd, sys.F_GETFL) | sys.O_NONBLOCK);
      fuseFd = message.fuseFd;
      return;
    case 'stop':
      stopping = true;
  }
}

function takeMessages(): void {
  for (let got = receiveMessageOnPort(data.main); got !== undefined; got = receiveMessageOnPort(data.main))
    fromMain(got.message as ToClient);
  for (
    let got = receiveMessageOnPort(data.prober);
    got !== undefined;
    got = receiveMessageOnPort(data.prober)
  ) {
    const message = got.message as FromProber;
    if (message.t !== 'alone') actors?.answered(message);
  }
}

function failed(error: unknown): void {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  post({ t: 'log', level: 'warn', message: text });
}

function turn(): void {
  const fds = [{ fd: data.wakeFd, events: POLLIN }];
  const fuseAt =
    fuseFd >= 0 && kernel.out.kept < BUSY_BYTES ? fds.push({ fd: fuseFd, events: POLLIN }) - 1 : -1;
  const linkAt =
    link === null
      ? -1
      : fds.push({ fd: link.fd, events: kernel.out.unwritten > 0 ? POLLIN | POLLOUT : POLLIN }) - 1;
  const helloAt = hello === null ? -1 : fds.push({ fd: hello.fd, events: POLLIN }) - 1;
  const polled = pollSetFor(fds);
  const ready = sys.poll(polled, timers.sleepMs());
  if (ready > 0) {
    if (polled.revents(0) !== 0) {
      sys.eventfdDrain(data.wakeFd);
      takeMessages();
    }
    // Answers first: they free what waits.
    if (linkAt >= 0 && link !== null && (polled.revents(linkAt) & ~POLLOUT) !== 0) receive();
    if (helloAt >= 0 && hello !== null && polled.revents(helloAt) !== 0) greeted();
    if (fuseAt >= 0 && polled.revents(fuseAt) !== 0) serve();
  }
  timers.runDue(failed);
  kernel.endTurn();
  if (link === null || kernel.out.unwritten === 0) return;
  const code = link.flush();
  if (code < 0) broke(sys.errnoName(code));
}

function bye(last: Link | null): void {
  if (last === null) return;
  kernel.out.frame(FRAME.BYE, 0);
  last.flush();
  last.close();
}

let lastSet: sys.PollSet | null = null;
let lastKey = '';

/** Mostly the same descriptors as the last time. */
function pollSetFor(fds: readonly { fd: number; events: number }[]): sys.PollSet {
  let key = '';
  for (const { fd, events } of fds) key += `${fd}:${events} `;
  if (lastSet === null || key !== lastKey) {
    lastSet = new sys.PollSet(fds);
    lastKey = key;
  }
  return lastSet;
}

sys.setThreadName('gate-remote');
takeMessages();
while (ended === null && !stopping) {
  try {
    turn();
  } catch (error) {
    failed(error);
  }
}
bye(link);
post({ t: 'ended', why: ended ?? 'stopped' });
parentPort?.close();
