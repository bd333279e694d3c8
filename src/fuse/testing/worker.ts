/** The worker thread that serves the example: messages in by the port and the eventfd, answers out by the port. */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type ReactorControl, runReactor } from '../index.ts';
import { ExampleFs, type ExampleOptions } from './example.ts';

export interface WorkerInput extends ExampleOptions {
  readonly fd: number;
  readonly wakeFd: number;
  readonly spinUs: number;
  readonly port: MessagePort;
}

/** `[id, what, argument]`, answered with `[id, value]`. */
export type Message = [number, 'stats' | 'release' | 'tick' | 'stop' | 'invalidate' | 'trace', unknown?];

const input = workerData as WorkerInput;
let fs: ExampleFs;
let control: ReactorControl;
const log: string[] = [];
const trace: string[] = [];

function handle([id, what, argument]: Message): void {
  let value: unknown = null;
  if (what === 'stats') {
    const { nodeCount, parkedCount, ticks, negotiated } = fs;
    value = { nodeCount, parkedCount, ticks, negotiated, counters: control.session.counters(), log, trace };
  } else if (what === 'release') fs.releaseParked();
  else if (what === 'tick') fs.tick(argument as number);
  else if (what === 'stop') control.stop();
  else if (what === 'invalidate') value = fs.invalidate(argument as string);
  else if (what === 'trace') {
    control.session.setTrace(
      argument ? (event) => trace.push(`${event.phase} ${event.op} ${event.latencyUs}`) : null,
    );
  }
  input.port.postMessage([id, value]);
}

function drain(): void {
  for (
    let got = receiveMessageOnPort(input.port);
    got !== undefined;
    got = receiveMessageOnPort(input.port)
  ) {
    handle(got.message as Message);
  }
}

const end = runReactor({
  fd: input.fd,
  wakeFd: input.wakeFd,
  create: (api, given) => {
    control = given;
    fs = new ExampleFs(api, input);
    return fs;
  },
  onWake: drain,
  spinUs: input.spinUs,
  allowPassthrough: input.passthrough,
  log: (line) => log.push(line),
});
input.port.close();
parentPort?.postMessage(end);
