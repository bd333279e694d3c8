/**
 * What `gate up` and `gate down` say to the supervisor, over `<state>/supervisor.sock` (mode 0600): one request, a line of JSON, a
 * connection; answers are lines of JSON, steps as they happen and then one `done` or `error`.
 */
import { createConnection } from 'node:net';
import type { ProcessId } from '../../base/process.ts';
import { CliError } from '../context.ts';
import type { Steps } from '../output.ts';
import type { ViewRecord } from '../views.ts';

export interface UpRequest {
  readonly do: 'up';
  readonly name?: string;
  readonly root: string;
  /** The root itself: in place. */
  readonly mount?: string;
  readonly brokerOptions: Readonly<Record<string, string>>;
  readonly mountOptions: Readonly<Record<string, string>>;
}

/** Brings back a view that there was. */
export function upAgain(record: ViewRecord): UpRequest {
  const { name, root, mount, brokerOptions, mountOptions } = record;
  return { do: 'up', name, root, mount, brokerOptions, mountOptions };
}

export type Request =
  | UpRequest
  /** Takes one view down and forgets it. */
  | { readonly do: 'down'; readonly name: string }
  | { readonly do: 'list' }
  /** Takes every view down, remembers them for `gate up --all`, and ends. */
  | { readonly do: 'stop' };

export interface ViewState {
  readonly name: string;
  readonly root: string;
  readonly mount: string;
  readonly volume: string | null;
  readonly pid: number | null;
  readonly restarts: number;
}

/** What `gate up --json` prints. */
export interface UpResult {
  readonly name: string;
  readonly root: string;
  readonly mount: string;
  readonly broker: { readonly url: string; readonly socket: string; readonly token_file: string };
  readonly pids: { readonly supervisor: number; readonly broker: number; readonly mount: number };
}

export interface ListResult {
  readonly supervisor: ProcessId;
  readonly broker: number | null;
  readonly views: readonly ViewState[];
}

export type Reply =
  | { readonly step: string }
  | { readonly note: string }
  | { readonly done: unknown }
  | {
      readonly error: {
        readonly message: string;
        readonly hint?: string;
        readonly detail?: readonly string[];
      };
    };

/** Largest request and reply line. */
export const CONTROL_BYTES_MAX = 256 * 1024;

/** Nobody answers at the socket. */
export class NoSupervisor extends Error {}

/** Sends one request; gives `done`'s value. Throws NoSupervisor, or the CliError that the supervisor sent. */
export function ask(socket: string, request: Request, steps: Steps): Promise<unknown> {
  return new Promise((resolve, reject) => {
    let text = '';
    const connection = createConnection(socket, () => connection.write(`${JSON.stringify(request)}\n`));
    connection.setEncoding('utf8');
    connection.on('error', (error: NodeJS.ErrnoException) => reject(new NoSupervisor(error.message)));
    connection.on('close', () => reject(new NoSupervisor('the supervisor ended')));
    connection.on('data', (chunk: string) => {
      text += chunk;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const reply = JSON.parse(text.slice(0, end)) as Reply;
        text = text.slice(end + 1);
        if ('step' in reply) steps.done(reply.step);
        else if ('note' in reply) steps.note(reply.note);
        else if ('done' in reply) resolve(reply.done);
        else reject(new CliError(reply.error.message, reply.error));
      }
    });
  });
}
