/**
 * Takes connections of remote clients on the reactor's thread, beside /dev/fuse: each session is a door to the one view. A session
 * outlives its connection for a TTL, and goes on with the next one that knows its token.
 */
import { randomBytes } from 'node:crypto';
import type { ReactorControl, ReactorTimer } from '../fuse/index.ts';
import { Greeting, greeting, Link } from '../remote/link.ts';
import { Incoming, jsonOf, read64 } from '../remote/stream.ts';
import {
  ALIVE_MS,
  FRAME,
  type Hello,
  JSON_BYTES_MAX,
  PROTOCOL,
  type Refusal,
  TTL_MARGIN_MS,
  type Welcome,
} from '../remote/wire.ts';
import { POLLIN, POLLOUT } from '../sys/constants.ts';
import * as sys from '../sys/index.ts';
import type { AllActors } from './remote-actors.ts';
import { type DoorParts, RemoteDoor } from './remote-door.ts';

const GREETINGS_MAX = 64;
const SESSIONS_MAX = 256;
const GREETING_MS = 10_000;
/** More than this waits to be written: nothing more is read from that client. */
const BUSY_BYTES = 8 * 1024 * 1024;
/** A client that leaves so much unread is given up. */
const BACKLOG_BYTES_MAX = 256 * 1024 * 1024;

export interface ServerParts {
  /** The listening socket. */
  readonly listenFd: number;
  readonly control: ReactorControl;
  readonly nowMs: () => number;
  readonly version: string;
  readonly volume: string;
  /** Of the root's folder. */
  readonly name: string;
  readonly ttlMs: number;
  readonly owner: DoorParts['owner'];
  readonly actors: AllActors;
  readonly frontend: DoorParts['frontend'];
  readonly log: (level: 'info' | 'warn', line: string) => void;
}

interface Session {
  readonly number: number;
  readonly token: string;
  readonly host: string;
  readonly door: RemoteDoor;
  readonly incoming: Incoming;
  link: Link | null;
  heardMs: number;
  timer: ReactorTimer | null;
}

export class RemoteServer {
  readonly #parts: ServerParts;
  readonly #sessions = new Map<string, Session>();
  #greetings = 0;
  #nextNumber = 1;

  constructor(parts: ServerParts) {
    this.#parts = parts;
    parts.control.watch(parts.listenFd, POLLIN, () => this.#accept());
  }

  get sessions(): number {
    return this.#sessions.size;
  }

  // ------------------------------------------------------------ connections

  #accept(): void {
    for (;;) {
      const fd = sys.accept(this.#parts.listenFd);
      if (fd < 0) return;
      if (this.#greetings >= GREETINGS_MAX) sys.close(fd);
      else this.#greet(fd);
    }
  }

  #greet(fd: number): void {
    const { control } = this.#parts;
    const hello = new Greeting();
    this.#greetings++;
    const over = (): void => {
      this.#greetings--;
      timer.cancel();
      control.unwatch(fd);
    };
    const timer = control.timers.set(GREETING_MS, () => {
      over();
      sys.close(fd);
    });
    control.watch(fd, POLLIN, () => {
      const got = hello.receive(fd, FRAME.HELLO);
      if (got === null) return;
      over();
      if (typeof got === 'number' || !this.#hello(fd, got)) sys.close(fd);
    });
  }

  /** False: nothing came of it. */
  #hello(fd: number, content: Buffer): boolean {
    const { version } = this.#parts;
    const hello = helloOf(jsonOf(content));
    if (typeof hello === 'string') {
      const refusal: Refusal = { protocol: PROTOCOL, version, refused: hello };
      sys.write(fd, greeting(FRAME.WELCOME, refusal));
      return false;
    }
    const named = hello.token === undefined ? undefined : this.#sessions.get(hello.token);
    const resumed = named?.door.out.goOn(hello.received ?? -1) ?? false;
    if (named !== undefined && !resumed) this.#end(named, 'it came back at a place where it cannot go on');
    const session = resumed ? named! : this.#begin(hello);
    if (session === null) return false;
    if (session.link !== null) this.#drop(session, 'it came back over another connection', false);
    const { volume, name, ttlMs } = this.#parts;
    const { token } = session;
    const received = session.incoming.received;
    const welcome: Welcome = { protocol: PROTOCOL, version, volume, name, ttlMs, token, resumed, received };
    const bytes = greeting(FRAME.WELCOME, welcome);
    if (sys.write(fd, bytes) !== bytes.length) {
      if (!resumed) this.#end(session, 'it left at once');
      return false;
    }
    session.timer?.cancel();
    session.link = new Link(fd, session.incoming, session.door.out);
    session.heardMs = this.#parts.nowMs();
    this.#parts.control.watch(fd, POLLIN, (revents) => this.#ready(session, revents));
    this.#stayAlive(session);
    this.#parts.log('info', `${session.host} ${resumed ? 'is back' : 'has the view mounted'}`);
    return true;
  }

  #begin(hello: Hello): Session | null {
    const { control, nowMs, owner, actors, frontend, log } = this.#parts;
    if (this.#sessions.size >= SESSIONS_MAX) return null;
    const number = this.#nextNumber++;
    const door = new RemoteDoor({
      number,
      hello,
      owner,
      timers: control.timers,
      nowMs,
      log: (line) => log('warn', `${hello.host}: ${line}`),
      frontend,
    });
    actors.remote.set(number, door.actors);
    const token = randomBytes(24).toString('hex');
    const incoming = new Incoming();
    const session = { number, token, host: hello.host, door, incoming, link: null, heardMs: 0, timer: null };
    this.#sessions.set(token, session);
    return session;
  }

  // ------------------------------------------------------------ sessions

  #ready(session: Session, revents: number): void {
    const { link } = session;
    if (link === null) return;
    if ((revents & ~POLLOUT) !== 0) {
      session.heardMs = this.#parts.nowMs();
      let why: string | null = null;
      const code = link.receive((type, content) => {
        if (why === null && !session.door.ended) why = this.#frame(session, type, content);
      });
      if (why !== null) return this.#end(session, why);
      if (code < 0) return this.#drop(session, sys.errnoName(code), code === -sys.EPROTO);
    }
    this.#flush(session);
  }

  /** Null, or why this session ends. */
  #frame(session: Session, type: number, content: Buffer): string | null {
    const { door } = session;
    const json = (use: (frame: Record<string, unknown>) => boolean) => {
      const frame = content.length > JSON_BYTES_MAX ? null : jsonOf(content);
      return frame !== null && use(frame) ? null : 'it sent something else than the protocol has';
    };
    switch (type) {
      case FRAME.REQUEST:
        return door.request(content) ? null : 'it sent what is no request';
      case FRAME.FORGET:
        door.forget(content);
        return null;
      case FRAME.INTERRUPT:
        if (content.length >= 8) door.interrupt(read64(content, 0));
        return null;
      case FRAME.ACTOR:
        return json((frame) => door.actors.tell(frame));
      case FRAME.ANSWER:
        return json((frame) => door.actors.answered(frame));
      case FRAME.ACK:
        return content.length >= 8 && door.out.acknowledged(read64(content, 0))
          ? null
          : 'it has what was never sent';
      case FRAME.BYE:
        return 'it unmounted';
      default:
        return `it sent a frame of type ${type}`;
    }
  }

  /** Notifications for kernels, one behind the other: each client is told what concerns it. */
  broadcast(messages: Buffer): void {
    for (let at = 0; at + 16 <= messages.length; ) {
      const length = messages.readUInt32LE(at);
      if (length < 16) return;
      for (const { door } of this.#sessions.values()) door.tell(messages.subarray(at, at + length));
      at += length;
    }
  }

  /** At the end of every turn: what the view has said since goes out, in one write for each client. */
  flush(): void {
    for (const session of this.#sessions.values()) if (session.door.out.unwritten > 0) this.#flush(session);
  }

  #flush(session: Session): void {
    const { link, door } = session;
    if (door.out.kept > BACKLOG_BYTES_MAX) return this.#end(session, 'it reads too slowly');
    if (link === null) return;
    const code = link.flush();
    if (code < 0) return this.#drop(session, sys.errnoName(code), false);
    const { unwritten } = door.out;
    const events = unwritten === 0 ? POLLIN : unwritten > BUSY_BYTES ? POLLOUT : POLLIN | POLLOUT;
    this.#parts.control.watch(link.fd, events, (revents) => this.#ready(session, revents));
  }

  #stayAlive(session: Session): void {
    const { link } = session;
    session.timer = this.#parts.control.timers.set(ALIVE_MS, () => {
      if (session.link !== link || link === null) return;
      if (this.#parts.nowMs() - session.heardMs > 3 * ALIVE_MS)
        return this.#drop(session, 'it is silent', false);
      link.acknowledge();
      this.#stayAlive(session);
    });
  }

  /** The connection is broken. `ends`: nothing good would come of another one. */
  #drop(session: Session, why: string, ends: boolean): void {
    const { link } = session;
    if (link === null) return;
    const { control, ttlMs, log } = this.#parts;
    control.unwatch(link.fd);
    link.close();
    session.link = null;
    session.timer?.cancel();
    if (ends) return this.#end(session, why);
    log('info', `the connection of ${session.host} broke: ${why}`);
    session.timer = control.timers.set(ttlMs + TTL_MARGIN_MS, () =>
      this.#end(session, 'it did not come back'),
    );
  }

  #end(session: Session, why: string): void {
    const { control, actors, log } = this.#parts;
    if (!this.#sessions.delete(session.token)) return;
    session.timer?.cancel();
    if (session.link !== null) {
      control.unwatch(session.link.fd);
      session.link.close();
      session.link = null;
    }
    session.door.end();
    actors.remote.delete(session.number);
    log('info', `the session of ${session.host} ended: ${why}`);
  }
}

/** A client's first frame; else why it is refused. */
function helloOf(frame: Record<string, unknown> | null): Hello | string {
  if (frame === null) return 'no greeting';
  if (frame.protocol !== PROTOCOL)
    return `this view speaks version ${PROTOCOL} of the protocol, not ${String(frame.protocol).slice(0, 20)}: use the same version of Gate on both machines`;
  const { host, uid, gid, idMap, token, received, version } = frame;
  const id = (value: unknown) =>
    Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32;
  if (typeof host !== 'string' || !/^[\w.@-]{1,100}$/.test(host)) return "the machine's name is not one";
  if (!id(uid) || !id(gid) || (idMap !== 'none' && idMap !== 'user')) return 'the ids are none';
  if (token !== undefined && typeof token !== 'string') return 'the token is none';
  if (received !== undefined && !Number.isSafeInteger(received)) return 'the position is none';
  return { ...frame, version: String(version) } as unknown as Hello;
}
