/** Unix sockets (unix(7)): a descriptor passed over a pair (how fusermount3 hands over /dev/fuse), names, peers. */
import koffi from 'koffi';
import {
  AF_UNIX,
  F_GETFL,
  F_SETFL,
  MSG_CMSG_CLOEXEC,
  O_NONBLOCK,
  SOCK_CLOEXEC,
  SOCK_STREAM,
} from './constants.ts';
import { ENAMETOOLONG, EPROTO } from './errno.ts';
import { close } from './files.ts';
import { fcntl } from './io.ts';
import { bind, result } from './libc.ts';

const c = {
  socketpair: bind('socketpair', 'int', ['int', 'int', 'int', 'void *']),
  recvmsg: bind('recvmsg', 'int64', ['int', 'void *', 'int']),
  getsockname: bind('getsockname', 'int', ['int', 'void *', 'void *']),
  getpeername: bind('getpeername', 'int', ['int', 'void *', 'void *']),
  getsockopt: bind('getsockopt', 'int', ['int', 'int', 'int', 'void *', 'void *']),
  socket: bind('socket', 'int', ['int', 'int', 'int']),
  bind: bind('bind', 'int', ['int', 'void *', 'uint32']),
  connect: bind('connect', 'int', ['int', 'void *', 'uint32']),
  listen: bind('listen', 'int', ['int', 'int']),
  accept4: bind('accept4', 'int', ['int', 'void *', 'void *', 'int']),
};

const pair = new Int32Array(2);

export function socketpair(domain: number, type: number, protocol = 0): [number, number] | number {
  const code = result(c.socketpair(domain, type, protocol, pair));
  return code < 0 ? code : [pair[0]!, pair[1]!];
}

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SO_PEERCRED = 17;
/** sockaddr_un: u16 family, 108 bytes of path. */
const SOCKADDR_UN_BYTES = 110;
/** `struct msghdr`: name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48. */
const MSGHDR_BYTES = 56;

/**
 * Waits for one message and returns the descriptor in it (close-on-exec). EPROTO: a message, or the end of the
 * stream, without a descriptor.
 */
export function recvFd(socket: number): number {
  const byte = Buffer.alloc(64);
  const control = Buffer.alloc(64);
  const iov = new BigUint64Array([koffi.address(byte), 64n]);
  const header = Buffer.alloc(MSGHDR_BYTES);
  header.writeBigUInt64LE(koffi.address(iov), 16);
  header.writeBigUInt64LE(1n, 24);
  header.writeBigUInt64LE(koffi.address(control), 32);
  header.writeBigUInt64LE(64n, 40);
  const code = result(c.recvmsg(socket, header, MSG_CMSG_CLOEXEC));
  if (code < 0) return code;
  const length = Number(header.readBigUInt64LE(40));
  // struct cmsghdr: len 0, level 8, type 12, data 16
  if (length < 20 || control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS)
    return -EPROTO;
  return control.readInt32LE(16);
}

/** Name of a Unix socket or of its other end, one character a byte; '': it has none; null: not a Unix socket, or not connected. */
export function socketName(socket: number, end: 'own' | 'peer'): string | null {
  const address = Buffer.alloc(SOCKADDR_UN_BYTES);
  const length = new Uint32Array([SOCKADDR_UN_BYTES]);
  const code = (end === 'own' ? c.getsockname : c.getpeername)(socket, address, length);
  if (result(code) < 0 || address.readUInt16LE(0) !== AF_UNIX) return null;
  return address.toString('latin1', 2, Math.min(length[0]!, SOCKADDR_UN_BYTES));
}

/** The process at the other end when it connected (or listened, seen from a client); or `-errno` (SO_PEERCRED). */
export function socketPeerPid(socket: number): number {
  // struct ucred: pid, uid, gid
  const ucred = new Int32Array(3);
  const length = new Uint32Array([12]);
  const code = result(c.getsockopt(socket, SOL_SOCKET, SO_PEERCRED, ucred, length));
  return code < 0 ? code : ucred[0]!;
}

/** `struct sockaddr_un` for a path, or null when it is too long. */
function unixAddress(path: string): Buffer | null {
  const bytes = Buffer.from(path);
  if (bytes.length > SOCKADDR_UN_BYTES - 3) return null;
  const address = Buffer.alloc(2 + bytes.length + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  return address;
}

function onUnix(path: string, use: (fd: number, address: Buffer) => number): number {
  const address = unixAddress(path);
  if (address === null) return -ENAMETOOLONG;
  const fd = result(c.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd < 0) return fd;
  const code = use(fd, address);
  if (code >= 0) return fd;
  close(fd);
  return code;
}

/** A socket that listens at a new path, not blocking, or `-errno`. Its mode is what the umask leaves. */
export function listenUnix(path: string, backlog = 16): number {
  const fd = onUnix(path, (socket, address) => {
    const code = result(c.bind(socket, address, address.length));
    return code < 0 ? code : result(c.listen(socket, backlog));
  });
  if (fd >= 0) setNonblocking(fd);
  return fd;
}

/** A stream connected to the socket at this path, not blocking, or `-errno`. */
export function connectUnix(path: string): number {
  const fd = onUnix(path, (socket, address) => result(c.connect(socket, address, address.length)));
  if (fd >= 0) setNonblocking(fd);
  return fd;
}

/** The next connection of a listening socket, not blocking, or `-errno`. */
export function accept(fd: number): number {
  return result(c.accept4(fd, null, null, SOCK_CLOEXEC | O_NONBLOCK));
}

function setNonblocking(fd: number): void {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}
