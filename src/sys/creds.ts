/**
 * Acting as the caller. A new file must belong to who made it, so the serving thread takes on that user's file
 * system ids for the call: `setfsuid(2)`, per thread (libuv's pool and the other threads keep theirs).
 *
 * The kernel then drops the file capabilities (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, ...) from the
 * effective set, and the caller's supplementary groups are not ours. It has checked permissions already
 * (`default_permissions`), so `asUser` leaves CAP_DAC_OVERRIDE alone in the effective set: no CAP_FSETID, which would keep
 * setuid bits, and no CAP_SYS_RESOURCE, which would pass over quotas. Changing ids clears PR_SET_PDEATHSIG.
 */
import { CAP_DAC_OVERRIDE } from './constants.ts';
import { EPERM } from './errno.ts';
import { bind, result } from './libc.ts';

const c = {
  setfsuid: bind('setfsuid', 'int', ['uint32']),
  setfsgid: bind('setfsgid', 'int', ['uint32']),
  capget: bind('capget', 'int', ['void *', 'void *']),
  capset: bind('capset', 'int', ['void *', 'void *']),
  geteuid: bind('geteuid', 'uint32', []),
  getegid: bind('getegid', 'uint32', []),
};

export function geteuid(): number {
  return c.geteuid();
}
export function getegid(): number {
  return c.getegid();
}

/** Returns the *former* fsuid, and never an error (setfsuid(2)): ask again to see whether it took. */
export function setfsuid(uid: number): number {
  return c.setfsuid(uid >>> 0) >>> 0;
}
export function setfsgid(gid: number): number {
  return c.setfsgid(gid >>> 0) >>> 0;
}

/** `_LINUX_CAPABILITY_VERSION_3`, this thread. */
const header = new Uint32Array([0x20080522, 0]);

/** Two `__user_cap_data_struct`: effective, permitted, inheritable for bits 0-31, then for 32-63. */
export function capget(into: Uint32Array): number {
  header[0] = 0x20080522;
  return result(c.capget(header, into));
}
export function capset(from: Uint32Array): number {
  header[0] = 0x20080522;
  return result(c.capset(header, from));
}

const own = new Uint32Array(6);
const reduced = new Uint32Array(6);
let prepared = false;
let able = false;
let ownUid = 0;
let ownGid = 0;
let currentUid = 0;
let currentGid = 0;
let currentCaps = 0;

function prepare(): void {
  prepared = true;
  ownUid = currentUid = geteuid();
  ownGid = currentGid = getegid();
  able = ownUid === 0 && capget(own) === 0;
  currentCaps = -1;
}

/** Capability bits (of the first 32) that stay effective under `asUser`. */
export const USER_CAPS = 1 << CAP_DAC_OVERRIDE;

/**
 * This thread's file operations are `uid`'s and `gid`'s from here on, until `asRoot`. Repeating it with the same ids makes
 * no system call. `caps` are the capabilities left effective, e.g. `USER_CAPS | 1 << CAP_SYS_ADMIN` for BACKING_OPEN.
 * Returns 0; EPERM when this process may not (an ordinary user's daemon: everything is that user's anyway).
 */
export function asUser(uid: number, gid: number, caps = USER_CAPS): number {
  if (!prepared) prepare();
  if (!able) return uid === ownUid && gid === ownGid ? 0 : -EPERM;
  if (uid === currentUid && gid === currentGid && caps === currentCaps) return 0;
  if (uid === ownUid && gid === ownGid && caps === USER_CAPS) {
    asRoot();
    return 0;
  }
  if (currentCaps !== -1) asRoot();
  setfsgid(gid);
  setfsuid(uid);
  reduced.set(own);
  reduced[0] = own[1]! & caps;
  reduced[3] = 0;
  currentUid = uid;
  currentGid = gid;
  currentCaps = caps;
  // An id that this user namespace does not map, or a missing CAP_SETUID, changes nothing and says nothing.
  const taken = setfsuid(-1) === uid && setfsgid(-1) === gid;
  const code = taken ? capset(reduced) : -EPERM;
  if (code < 0) asRoot();
  return code;
}

/** Back to the process's own ids and capabilities. Costs nothing when already there. */
export function asRoot(): void {
  if (!able || (currentCaps === -1 && currentUid === ownUid && currentGid === ownGid)) return;
  capset(own);
  setfsuid(ownUid);
  setfsgid(ownGid);
  capset(own);
  currentUid = ownUid;
  currentGid = ownGid;
  currentCaps = -1;
}
