import type { Lock } from './state.ts';
import type { Hold } from './types.ts';

/** Requests that may join one hold: they are all stored with it. The next gets a hold of its own. */
export const JOINED_MAX = 255;

/** A hold that counts one request more. */
export function withRequest(hold: Hold, requestId: string): Hold {
  return { ...hold, count: hold.count + 1, joined: [...(hold.joined ?? []), requestId] };
}

/** A hold that counts one request less. It keeps one id at least, should it count more than it has ids. */
export function withoutRequest(full: Hold, requestId: string): Hold {
  const { joined = [], ...hold } = full;
  const ids = [hold.requestId, ...joined].filter((id) => id !== requestId);
  const [first = hold.requestId, ...rest] = ids;
  const fewer = { ...hold, requestId: first, count: hold.count - 1 };
  return rest.length === 0 ? fewer : { ...fewer, joined: rest };
}

/** Makes a hold known to its session by the ids of its requests. */
export function learnIds(lock: Lock): void {
  const { session } = lock;
  const { lockId, requestId, joined } = lock.hold!;
  let known = session.learn(requestId, lock);
  for (const id of joined ?? []) known = session.learn(id, lock) || known;
  // All its ids may be another's: one of the two was adopted.
  if (!known) session.learn(lockId, lock);
}

export function forgetIds(lock: Lock): void {
  const { requests } = lock.session;
  const { lockId, requestId, joined } = lock.hold!;
  for (const id of [requestId, ...(joined ?? []), lockId]) if (requests.get(id) === lock) requests.delete(id);
}
