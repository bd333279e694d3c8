/** Options with their defaults filled in and their impossible values refused. */
import { type Clock, systemClock } from '../base/clock.ts';
import { GateError } from '../base/errors.ts';
import { LIMITS } from '../base/limits.ts';
import { type Logger, silentLog } from '../base/log.ts';
import { type Boot, systemBoot } from '../base/process.ts';
import { stateFiles } from '../base/state.ts';
import type { BrokerOptions } from './options.ts';

export type Limits = Record<keyof typeof LIMITS, number>;

export interface Settings {
  readonly stateDir: string;
  readonly host: string;
  readonly port: number;
  readonly portExplicit: boolean;
  readonly socketPath: string;
  readonly socketGroup: number | undefined;
  readonly auth: 'token' | 'off';
  readonly durability: 'process' | 'power';
  readonly sessionTtlMs: number;
  /** How long a region of a delegated volume must be quiet before it is offered back. */
  readonly delegationQuietMs: number;
  readonly defaultLeaseMs: number;
  readonly maxHoldWriteMs: number | null;
  readonly maxHoldReadMs: number | null;
  readonly acquireTimeoutMs: number | null;
  readonly log: Logger;
  readonly clock: Clock;
  readonly boot: Boot;
  readonly limits: Limits;
}

export const DEFAULT_HOST = '127.0.0.1';
export const DEFAULT_PORT = 8787;
export const DEFAULT_TTL_MS = 15_000;
export const DEFAULT_LEASE_MS = 30_000;
export const DEFAULT_HOLD_WRITE_MS = 3_600_000;
export const DEFAULT_HOLD_READ_MS = 60_000;
export const DEFAULT_DELEGATION_QUIET_MS = 60_000;
/** sizeof(sun_path) less its closing NUL: unix(7). */
const SOCKET_PATH_BYTES = 107;
const LOOPBACK = /^(127(\.\d{1,3}){3}|::1|localhost)$/;

function duration(name: string, value: number | null | undefined, otherwise: number | null): number | null {
  if (value === undefined) return otherwise;
  if (value === null) return null;
  if (!Number.isFinite(value) || value < 0)
    throw new GateError('invalid_request', `${name} must be 0 or more milliseconds.`);
  return value;
}

function positive(name: string, value: number | undefined, otherwise: number): number {
  const got = duration(name, value, otherwise)!;
  if (got <= 0) throw new GateError('invalid_request', `${name} must be more than 0 milliseconds.`);
  return got;
}

/** Throws GateError `invalid_request`. */
export function settle(options: BrokerOptions): Settings {
  const host = (options.host ?? DEFAULT_HOST).replace(/^\[(.*)\]$/, '$1');
  if (!LOOPBACK.test(host))
    throw new GateError(
      'invalid_request',
      `The broker does not listen on ${host}: beyond loopback (127.0.0.1, ::1) it would need TLS, which it does not have. ` +
        'Forward the port through ssh, or mount with `gate mount --remote`.',
    );
  const port = options.port ?? DEFAULT_PORT;
  if (!Number.isInteger(port) || port < 0 || port > 65535)
    throw new GateError('invalid_request', `port must be a whole number from 0 to 65535, not ${port}.`);
  const socketPath = options.socketPath ?? stateFiles(options.stateDir).brokerSocket;
  const socketBytes = Buffer.byteLength(socketPath);
  if (socketBytes > SOCKET_PATH_BYTES)
    throw new GateError(
      'invalid_request',
      `The socket path ${socketPath} has ${socketBytes} bytes; Linux allows ${SOCKET_PATH_BYTES}. Name a shorter one with --socket.`,
    );
  return {
    stateDir: options.stateDir,
    host,
    port,
    portExplicit: options.portExplicit ?? options.port !== undefined,
    socketPath,
    socketGroup: options.socketGroup,
    auth: options.auth ?? 'token',
    durability: options.durability ?? 'process',
    sessionTtlMs: positive('sessionTtlMs', options.sessionTtlMs, DEFAULT_TTL_MS),
    delegationQuietMs: positive('delegationQuietMs', options.delegationQuietMs, DEFAULT_DELEGATION_QUIET_MS),
    defaultLeaseMs: positive('defaultLeaseMs', options.defaultLeaseMs, DEFAULT_LEASE_MS),
    maxHoldWriteMs: duration('maxHoldWriteMs', options.maxHoldWriteMs, DEFAULT_HOLD_WRITE_MS),
    maxHoldReadMs: duration('maxHoldReadMs', options.maxHoldReadMs, DEFAULT_HOLD_READ_MS),
    acquireTimeoutMs: duration('acquireTimeoutMs', options.acquireTimeoutMs, null),
    log: options.log ?? silentLog,
    clock: options.clock ?? systemClock,
    boot: options.boot ?? systemBoot(),
    limits: { ...LIMITS, ...options.limits },
  };
}
