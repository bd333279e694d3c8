/** Finding the broker: the state directory that has a live one. */
import { connect } from 'node:net';
import { stateFiles } from '../base/state.ts';
import type { BrokerInfo } from '../broker/wire.ts';
import { readInfo } from './endpoint.ts';

export interface Found {
  readonly stateDir: string;
  readonly socket: string;
  readonly info: BrokerInfo | undefined;
}

/** State directories in the order in which they are asked. `GATE_STATE_DIR` alone counts when it is set. */
export function stateDirs(env: Readonly<Record<string, string | undefined>>, home: string): string[] {
  if (env.GATE_STATE_DIR) return [env.GATE_STATE_DIR];
  return ['/var/lib/gate', `${env.XDG_STATE_HOME || `${home}/.local/state`}/gate`];
}

/** Whether somebody accepts connections on a Unix socket. */
function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(socket);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}

/** The first state directory whose broker answers; undefined when none does. */
export async function discover(
  env: Readonly<Record<string, string | undefined>>,
  home: string,
): Promise<Found | undefined> {
  for (const stateDir of stateDirs(env, home)) {
    const info = readInfo(stateDir);
    const socket = info?.socket ?? stateFiles(stateDir).brokerSocket;
    if (await answers(socket)) return { stateDir, socket, info };
  }
  return undefined;
}
