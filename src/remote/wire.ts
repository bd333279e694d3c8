/**
 * The remote mount's protocol: FUSE messages and a few of our own, as frames over any stream of bytes.
 *
 *     client                                   server (beside the view)
 *     HELLO   {version, host, ids, token?}  ->
 *                                           <- WELCOME {volume, token, resumed}
 *     ACTOR, REQUEST, FORGET, INTERRUPT     ->
 *                                           <- REPLY, NOTIFY, ASK
 *     ANSWER, ACK, BYE                      ->
 *                                           <- ACK, BYE
 *
 * A frame is its length with this header (u32), its type (u8), three zero bytes, and its content. Numbers are little-endian. Both ends
 * count the bytes of the frames behind HELLO and WELCOME; who comes back names what it has received, and the other end
 * goes on from there (stream.ts). So a connection may break at any byte, and nothing is lost or done twice.
 */
import type { Who } from '../lock/types.ts';

/** Both ends must speak the same. */
export const PROTOCOL = 1;

export const FRAME = {
  /** JSON, see Hello. */
  HELLO: 1,
  /** JSON, see Welcome; or Refusal. */
  WELCOME: 2,
  /** u32 number of the actor (0: it plays no part), u32 flags, and the request as the kernel wrote it. */
  REQUEST: 3,
  /** The answer as a kernel reads it. To an OPEN: the beginning of the file may follow. */
  REPLY: 4,
  /** What a kernel is told unasked, as it reads that. */
  NOTIFY: 5,
  /** u64: the request that its caller gives up. */
  INTERRUPT: 6,
  /** Pairs of u64: a node, and how often it is forgotten. */
  FORGET: 7,
  /** JSON, see ActorFrame. */
  ACTOR: 8,
  /** JSON, see Ask; the client answers with ANSWER. */
  ASK: 9,
  ANSWER: 10,
  /** u64: so many bytes of the other end's frames have arrived. Also the sign of life. */
  ACK: 11,
  /** The sender ends the session. No content. */
  BYE: 12,
} as const;

export const FRAME_HEADER_BYTES = 8;
/** The largest: a WRITE of 1 MiB with its headers. */
export const FRAME_BYTES_MAX = 1024 * 1024 + 8192;
/** Of frames that are JSON. */
export const JSON_BYTES_MAX = 256 * 1024;

/** Flag of a REQUEST: its caller has a descriptor of the node, so that it may have come by that. */
export const BY_DESCRIPTOR = 1;
/** Bytes before the kernel's own in a REQUEST. */
export const REQUEST_PREFIX_BYTES = 8;

/** How long a session outlives its connection, unless the server says otherwise. */
export const TTL_MS = 15_000;
/** The server waits so much longer, so that it never gives up first. */
export const TTL_MARGIN_MS = 3_000;
/** A sign of life at least so often; a connection without any for three times that long is broken. */
export const ALIVE_MS = 5_000;

/** How ids of users are translated: as they are, or the mounting user for the owner of the view's root and back. */
export type IdMap = 'none' | 'user';

export interface Hello {
  readonly protocol: number;
  /** Of Gate. */
  readonly version: string;
  /** Names the machine: what its actors are called by. */
  readonly host: string;
  readonly uid: number;
  readonly gid: number;
  readonly idMap: IdMap;
  /** Of the session to go on with, and how many bytes of it have arrived. */
  readonly token?: string;
  readonly received?: number;
}

export interface Welcome {
  readonly protocol: number;
  readonly version: string;
  /** What is mounted: the volume's id and the name of its root's folder. */
  readonly volume: string;
  readonly name: string;
  readonly ttlMs: number;
  readonly token: string;
  /** True: the named session goes on. False: a new one; nothing of an old one counts any more. */
  readonly resumed: boolean;
  readonly received: number;
}

/** In place of a welcome. */
export interface Refusal {
  readonly protocol: number;
  readonly version: string;
  readonly refused: string;
}

/** Who a number stands for from now on. */
export interface ActorFrame {
  readonly number: number;
  /** Without the host. */
  readonly owner: string;
  readonly pid: number;
  readonly groups: readonly number[];
  readonly who: Who;
  readonly agent?: { readonly main: boolean; readonly names: readonly string[] };
}

/** Which of this thread's process and its ancestors have this inode of the mount open? */
export interface Ask {
  readonly id: number;
  readonly tid: number;
  readonly ino: string;
}

export interface Answer {
  readonly id: number;
  readonly pids: readonly number[];
}
