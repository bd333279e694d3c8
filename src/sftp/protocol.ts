/**
 * The SSH File Transfer Protocol, version 3: draft-ietf-secsh-filexfer-02, with OpenSSH's extensions and its departures from the
 * draft (PROTOCOL, section 4, in OpenSSH's source): SSH_FXP_SYMLINK has its arguments the other way round.
 */
export const VERSION = 3;

export const FXP = {
  INIT: 1,
  VERSION: 2,
  OPEN: 3,
  CLOSE: 4,
  READ: 5,
  WRITE: 6,
  LSTAT: 7,
  FSTAT: 8,
  SETSTAT: 9,
  FSETSTAT: 10,
  OPENDIR: 11,
  READDIR: 12,
  REMOVE: 13,
  MKDIR: 14,
  RMDIR: 15,
  REALPATH: 16,
  STAT: 17,
  RENAME: 18,
  READLINK: 19,
  SYMLINK: 20,
  STATUS: 101,
  HANDLE: 102,
  DATA: 103,
  NAME: 104,
  ATTRS: 105,
  EXTENDED: 200,
  EXTENDED_REPLY: 201,
} as const;

export const FX = {
  OK: 0,
  EOF: 1,
  NO_SUCH_FILE: 2,
  PERMISSION_DENIED: 3,
  FAILURE: 4,
  BAD_MESSAGE: 5,
  OP_UNSUPPORTED: 8,
} as const;
export type Status = (typeof FX)[keyof typeof FX];

/** Flags of SSH_FXP_OPEN. */
export const FXF = { READ: 1, WRITE: 2, APPEND: 4, CREAT: 8, TRUNC: 16, EXCL: 32 } as const;

/** Which attributes follow. */
export const ATTR = {
  SIZE: 1,
  UIDGID: 2,
  PERMISSIONS: 4,
  ACMODTIME: 8,
  EXTENDED: 0x8000_0000,
} as const;

/** What the server offers, with its version. */
export const EXTENSIONS: readonly (readonly [string, string])[] = [
  ['posix-rename@openssh.com', '1'],
  ['statvfs@openssh.com', '2'],
  ['fstatvfs@openssh.com', '2'],
  ['hardlink@openssh.com', '1'],
  ['fsync@openssh.com', '1'],
  ['lsetstat@openssh.com', '1'],
  ['limits@openssh.com', '1'],
];

export const SFTP_LIMITS = {
  /** Bytes of one packet without its length: as OpenSSH's. A longer one ends the connection. */
  packetBytes: 256 * 1024,
  /** Bytes of one read or write: the packet's less its head. */
  dataBytes: 255 * 1024,
  /** Bytes of a path in a request. PATH_MAX, limits.h. */
  pathBytes: 4096,
  /** Symbolic links that one path may lead through. As the kernel's (MAXSYMLINKS). */
  links: 40,
  /** Open files and directories of one connection. */
  handles: 1024,
  /** Requests of one connection without an answer. Its further ones are not read until some are answered. */
  requests: 256,
  /**
   * Opens of one connection that wait for their lock. libfuse gives sshfs ten threads, and the tenth of them parked stops the whole
   * mount, the holder's close included; the next open is refused instead.
   */
  parkedOpens: 8,
  /** Bytes of answers that may be queued for a client that does not read. Its requests are not read meanwhile. */
  outboxBytes: 4 * 1024 * 1024,
  /** Bytes of one answer to SSH_FXP_READDIR, about. */
  listingBytes: 32 * 1024,
  connections: 128,
  /** How much longer than its wait limit a request waits for the broker's answer: whoever is silent for so long is away. */
  answerMs: 3000,
} as const;
