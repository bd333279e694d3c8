/** A pair of Unix sockets and one descriptor passed over it (SCM_RIGHTS, unix(7)): how fusermount3 hands over /dev/fuse. */
import koffi from 'koffi';
import { MSG_CMSG_CLOEXEC } from './constants.ts';
import { EPROTO } from './errno.ts';
import { bind, result } from './libc.ts';

const c = {
  socketpair: bind('socketpair', 'int', ['int', 'int', 'int', 'void *']),
  recvmsg: bind('recvmsg', 'int64', ['int', 'void *', 'int']),
};

const pair = new Int32Array(2);

export function socketpair(domain: number, type: number, protocol = 0): [number, number] | number {
  const code = result(c.socketpair(domain, type, protocol, pair));
  return code < 0 ? code : [pair[0]!, pair[1]!];
}

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
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
