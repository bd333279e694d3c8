import type { BrokerOptions, RunningBroker } from './options.ts';

export type { BrokerOptions, RunningBroker } from './options.ts';

/** Starts a broker in this process. */
export async function startBroker(_options: BrokerOptions): Promise<RunningBroker> {
  throw new Error('being written');
}
