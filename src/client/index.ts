/**
 * The client: how every other part, and anybody's program, takes locks of a broker.
 *
 *     const gate = await connect({ stateDir: '/var/lib/gate', kind: 'sdk' });
 *     await gate.withLock({ owner: 'me', path: 'src/a.ts', mode: 'write' }, async (hold) => { … });
 *     await gate.close();
 *
 * - A session lives by renewals, sent every third of its TTL by themselves. Its authority ends one TTL after the last
 *   answered renewal was *sent*, on this machine's clock, suspend included; then `onLost` is called, whatever the broker
 *   believes. NOT guaranteed: that a program which does not listen to `onLost`, or whose event loop is blocked, stops.
 * - A broken connection is taken up again by itself, within the TTL. What was asked and not answered is repeated; nothing
 *   is done twice (broker/wire.ts, "Exactly once").
 * - `send` is the low form for those who send tens of thousands of messages a second; everything else is built on it.
 *
 * For one-off questions without a session (status, history, events) see http.ts; for finding a broker, discover.ts.
 */
import { Session } from './session.ts';
import type { ConnectOptions, GateSession } from './types.ts';

export type { Delegated, Grant, Push, UncleanPath } from '../broker/wire.ts';
export { discover, type Found, stateDirs } from './discover.ts';
export type { Endpoint } from './endpoint.ts';
export { BrokerHttp } from './http.ts';
export type * from './types.ts';

/** Opens a session with a broker. Throws GateError `unavailable`, `unauthorized`, `forbidden`, `limit`. */
export async function connect(options: ConnectOptions): Promise<GateSession> {
  const session = new Session(options);
  await session.open();
  return session;
}
