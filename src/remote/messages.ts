/** What the client's main thread and its reactor say to each other. */
import type { MessagePort } from 'node:worker_threads';
import type { IdMap, Welcome } from './wire.ts';

export type FromClient =
  /** The server answered. */
  | { readonly t: 'welcome'; readonly welcome: Welcome }
  /** There is no connection any more. `refused`: the server does not want us, and trying again is of no use. */
  | { readonly t: 'broken'; readonly why: string; readonly refused: boolean }
  /** The session is lost. */
  | { readonly t: 'lost' }
  /** A notification whose writing may wait for the reactor. */
  | { readonly t: 'tell_kernel'; readonly message: Uint8Array }
  | { readonly t: 'log'; readonly level: 'info' | 'warn'; readonly message: string }
  | { readonly t: 'ended'; readonly why: string };

export type ToClient =
  /** A connected socket, which the reactor owns from here. */
  | { readonly t: 'connected'; readonly fd: number }
  /** The mounted device. */
  | { readonly t: 'serve'; readonly fuseFd: number; readonly mountDev: number }
  /** Say good-bye and end. */
  | { readonly t: 'stop' };

export interface ClientData {
  readonly wakeFd: number;
  readonly main: MessagePort;
  readonly prober: MessagePort;
  readonly version: string;
  readonly host: string;
  readonly uid: number;
  readonly gid: number;
  readonly idMap: IdMap;
  /** One owner for everybody in this mount. */
  readonly owner: string | undefined;
}
