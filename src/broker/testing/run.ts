/** A broker in a process of its own, for tests that kill it and for benchmarks. Options come as JSON; prints its URL. */
import { createLogger } from '../../base/log.ts';
import { type BrokerOptions, startBroker } from '../index.ts';

const options = JSON.parse(process.argv[2] ?? '{}') as BrokerOptions;
const broker = await startBroker({ ...options, log: createLogger('broker', 'error') });
process.once('SIGTERM', () => void broker.close());
process.stdout.write(`${broker.url}\n`);
await broker.stopped;
