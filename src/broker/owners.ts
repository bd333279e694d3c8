/**
 * HTTP owners are a namespace of their own: the owner `alice` of an HTTP client is `http:alice` inside the broker, so
 * that nobody at the open door can pass for a session's actor. People see the name without the prefix, and `via`.
 */
import { HTTP_OWNER_PREFIX, HTTP_SESSION } from './wire.ts';

export function httpOwner(owner: string): string {
  return HTTP_OWNER_PREFIX + owner;
}

export function isHttpOwner(owner: string): boolean {
  return owner.startsWith(HTTP_OWNER_PREFIX);
}

export function shownOwner(owner: string): { owner: string; via: 'http' | 'session' } {
  return isHttpOwner(owner)
    ? { owner: owner.slice(HTTP_OWNER_PREFIX.length), via: 'http' }
    : { owner, via: 'session' };
}

const GENERATED = 'req_';

/** Inside the broker the request id of an HTTP client carries its owner, because owners do not share ids. */
export function httpRequestId(requestId: string, owner: string): string {
  return `u:${requestId}\n${owner}`;
}

/** The id that the client gave, for people; ids of the broker's own making as they are. */
export function shownRequest({
  session,
  requestId,
}: {
  readonly session: string;
  readonly requestId: string;
}): string {
  if (session !== HTTP_SESSION || requestId.startsWith(GENERATED)) return requestId;
  return requestId.slice('u:'.length, requestId.indexOf('\n'));
}
