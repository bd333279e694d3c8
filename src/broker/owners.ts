/**
 * HTTP owners are a namespace of their own: the owner `alice` of an HTTP client is `http:alice` inside the broker, so
 * that nobody at the open door can pass for a session's actor. People see the name without the prefix, and `via`.
 */
import { HTTP_OWNER_PREFIX } from './wire.ts';

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
