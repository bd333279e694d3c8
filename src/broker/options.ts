/** What a broker is started with, and what is known of a running one. */
import type { Clock } from '../base/clock.ts';
import type { LIMITS } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import type { Boot } from '../base/process.ts';
import type { Store } from '../store/types.ts';

export interface BrokerOptions {
  readonly stateDir: string;
  /** Address to listen on; loopback only. Default 127.0.0.1. */
  readonly host?: string;
  /** Default 8787. 0: any free port. */
  readonly port?: number;
  /** The port was asked for by name: when it is taken that is an error. Default: whether `port` is given. */
  readonly portExplicit?: boolean;
  /** Default `<stateDir>/broker.sock`. */
  readonly socketPath?: string;
  /** Numeric group id that may use the socket. */
  readonly socketGroup?: number;
  /** Default `token`. */
  readonly auth?: 'token' | 'off';
  /** What acknowledged changes survive: `process` any death of the broker, `power` power loss too. Default `process`. */
  readonly durability?: 'process' | 'power';
  /** Default 15,000. */
  readonly sessionTtlMs?: number;
  /** How long a region of a delegated volume must be quiet before it is offered back. Default 60,000. */
  readonly delegationQuietMs?: number;
  /** Lease of an HTTP lock whose client names none. Default 30,000. */
  readonly defaultLeaseMs?: number;
  /** Caps of holds that name none; null: no cap. Default one hour, and one minute for reads. */
  readonly maxHoldWriteMs?: number | null;
  readonly maxHoldReadMs?: number | null;
  /** Wait limit of requests that name none; null waits without limit. Default null. */
  readonly acquireTimeoutMs?: number | null;
  readonly log?: Logger;
  readonly clock?: Clock;
  /** Default: this machine's. */
  readonly boot?: Boot;
  /** Default: SQLite at `<stateDir>/broker.db`. */
  readonly store?: Store;
  /** Tests reach limits with smaller ones. */
  readonly limits?: Partial<Record<keyof typeof LIMITS, number>>;
}

export interface RunningBroker {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly socketPath: string;
  readonly tokenFile: string;
  readonly pid: number;
  /** Resolves when the broker has stopped: with the error that stopped it, or undefined after `close()`. */
  readonly stopped: Promise<Error | undefined>;
  /** Stops listening, drops connections, closes the store. Locks and sessions stay as they are. */
  close(): Promise<void>;
}
