/**
 * The watcher's thread: reads fanotify events, drops those of this process, hands the others to the reactor, and writes the
 * notifications that the reactor makes of them. A write may wait for operations in flight in a directory (fuse/notify.ts), so no other
 * thread ever waits for this one. One batch at a time: what comes meanwhile waits, and merges, in the kernel's queue.
 */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import * as sys from '../sys/index.ts';
import type { FromWatcher, ToWatcher } from './messages.ts';

export interface WatcherData {
  readonly fuseFd: number;
  /** The fanotify group. */
  readonly group: number;
  /** Wakes this thread. */
  readonly ownFd: number;
  /** Wakes the reactor. */
  readonly wakeFd: number;
  readonly port: MessagePort;
}

/** After the first event: changes mostly come in company, and those of one name merge. */
const GATHER_MS = 15;
/** So that the thread ends with its process, whatever became of the reactor. */
const SLEEP_MS = 1000;
const READ_BYTES = 256 * 1024;

const { fuseFd, group, ownFd, wakeFd, port } = workerData as WatcherData;
const all = new sys.PollSet([
  { fd: group, events: sys.POLLIN },
  { fd: ownFd, events: sys.POLLIN },
]);
const own = new sys.PollSet([{ fd: ownFd, events: sys.POLLIN }]);
const buffer = Buffer.alloc(READ_BYTES);
/** The reactor has a batch and has not answered. */
let asked = false;

function send(message: FromWatcher): void {
  port.postMessage(message, message.t === 'events' ? [message.bytes.buffer] : []);
  sys.eventfdSignal(wakeFd);
}

function readEvents(): void {
  const length = sys.read(group, buffer);
  const others = length <= 0 ? 0 : sys.fanotifyOthers(buffer, length, process.pid);
  if (others === 0) return;
  const bytes = new Uint8Array(new ArrayBuffer(others));
  bytes.set(buffer.subarray(0, others));
  asked = true;
  send({ t: 'events', bytes });
}

/** Each message begins with its length. */
function writeNotifications(messages: Uint8Array): void {
  const lengths = new DataView(messages.buffer, messages.byteOffset, messages.byteLength);
  for (let at = 0; at < messages.length; ) {
    const length = lengths.getUint32(at, true);
    // ENOENT: the kernel does not know it, which is as well.
    sys.write(fuseFd, messages.subarray(at, at + length));
    at += length;
  }
}

/** False: the mount is gone. */
function takeMessages(): boolean {
  sys.eventfdDrain(ownFd);
  for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
    const message = got.message as ToWatcher;
    if (message.t === 'stop') return false;
    writeNotifications(message.messages);
    if (message.t === 'repeat') continue;
    asked = false;
    send({ t: 'notified' });
  }
  return true;
}

sys.setThreadName('gate-watcher');
for (;;) {
  sys.poll(asked ? own : all, SLEEP_MS);
  if (!takeMessages()) break;
  if (asked || (all.revents(0) & sys.POLLIN) === 0) continue;
  sys.poll(own, GATHER_MS);
  if (!takeMessages()) break;
  readEvents();
}
port.close();
