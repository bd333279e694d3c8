/**
 * One supervisor a state directory: starts the broker and a mount for each view, watches them, starts them
 * again when they end, and cleans up after a mount that died. It holds no locks, and of files only the roots of views in place: when it dies, views
 * and broker go on, and the next one adopts them.
 *
 *   gate up ──> supervisor.sock ──> Supervisor ──> gate broker
 *                                              ──> gate mount (one a view)
 */
import { closeSync, constants, existsSync, openSync, readFileSync, unlinkSync } from 'node:fs';
import { type Clock, until } from '../../base/clock.ts';
import { type Logger, rotateLog } from '../../base/log.ts';
import { isAlive, type ProcessId, processId } from '../../base/process.ts';
import { makeDirs, type StateFiles } from '../../base/state.ts';
import type { BrokerInfo } from '../../broker/wire.ts';
import { CliError } from '../context.ts';
import { isInside, mountAt, VIEW_TYPE } from '../mounts.ts';
import { asFlags, BROKER_OPTIONS, MOUNT_OPTIONS } from '../options.ts';
import type { Steps } from '../output.ts';
import { isInPlace, nameFor, readViews, removeView, type ViewRecord, writeView } from '../views.ts';
import { endProcess, ManagedChild } from './child.ts';
import { openMountPoint, prepareInPlace, prepareMountPoint } from './mountpoint.ts';
import type { ListResult, UpRequest, UpResult, ViewState } from './protocol.ts';
import { abort, takeDown, unmountView } from './teardown.ts';

const ROTATE_EVERY_MS = 30_000;
/** How long a mount that says that it is ready may take to show in mountinfo. */
const VISIBLE_MS = 10_000;

interface View {
  record: ViewRecord;
  /** In place: the root, which its path does not lead to any more. */
  rootFd?: number | undefined;
  readonly child: ManagedChild;
}

export interface SupervisorOptions {
  readonly files: StateFiles;
  readonly uid: number;
  readonly env: Record<string, string>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The identity in a broker's own record. */
export function brokerProcess(info: BrokerInfo): ProcessId {
  return { pid: info.pid, startTicks: info.startTicks, bootId: info.bootId };
}

/** What the broker of a state directory wrote about itself, when it lives. */
export function readBroker(files: StateFiles): BrokerInfo | undefined {
  try {
    const info = JSON.parse(readFileSync(files.broker, 'utf8')) as BrokerInfo;
    return isAlive(brokerProcess(info)) ? info : undefined;
  } catch {
    return undefined;
  }
}

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #views = new Map<string, View>();
  #broker: ManagedChild | undefined;
  #brokerOptions: Readonly<Record<string, string>> = {};
  /** Requests are carried out one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#adopt();
    const rotate = () => {
      for (const name of ['supervisor', 'broker', ...this.#views.keys()]) rotateLog(this.#logFile(name));
      options.clock.after(ROTATE_EVERY_MS, rotate);
    };
    rotate();
  }

  get empty(): boolean {
    return this.#views.size === 0;
  }

  #logFile(name: string): string {
    const { logs } = this.#options.files;
    if (name === 'supervisor') return `${logs}/supervisor.log`;
    if (name === 'broker') return `${logs}/broker.log`;
    return `${logs}/${name}/mount.log`;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#turn.then(work, work);
    this.#turn = next.catch(() => {});
    return next;
  }

  /** Takes over what a former supervisor left running. */
  #adopt(): void {
    const { files, log } = this.#options;
    const info = readBroker(files);
    if (info) {
      this.#brokerOptions = readViews(files)[0]?.brokerOptions ?? {};
      this.#broker = this.#newBroker(this.#brokerOptions);
      this.#broker.adopt(brokerProcess(info));
      log.info('adopted the broker', { child: info.pid });
    }
    for (const record of readViews(files)) {
      if (!isAlive(record.process)) continue;
      const view = this.#newView(record);
      keepRoot(view);
      view.child.adopt(record.process);
      this.#views.set(record.name, view);
      log.info(`adopted the mount of ${record.name}`, { child: record.process.pid });
    }
  }

  #newBroker(options: Readonly<Record<string, string>>): ManagedChild {
    const { files, clock, log, env } = this.#options;
    return new ManagedChild(
      {
        label: 'the broker',
        args: () => ['broker', `--state-dir=${files.dir}`, ...asFlags(BROKER_OPTIONS, options)],
        logFile: this.#logFile('broker'),
      },
      clock,
      log,
      env,
    );
  }

  #newView(first: ViewRecord): View {
    const { files, clock, log, env, uid } = this.#options;
    makeDirs(`${files.logs}/${first.name}`, 0o700);
    let close = () => {};
    const view: View = {
      record: first,
      child: new ManagedChild(
        {
          label: `the mount of ${first.name}`,
          args: () => [
            'mount',
            `--root=${view.record.root}`,
            ...(isInPlace(view.record) ? inPlaceFlags(view) : [`--mount=${view.record.mount}`]),
            `--socket=${this.#socket(view.record)}`,
            ...asFlags(MOUNT_OPTIONS, view.record.mountOptions),
          ],
          logFile: this.#logFile(first.name),
          fds: () => (view.rootFd === undefined ? [] : [view.rootFd]),
          before: async () => {
            if (isInPlace(view.record)) return connectionEnd(view.record.mount);
            // What a dead mount left would answer "Transport endpoint is not connected" for ever.
            await unmountView(view.record.mount, { uid, clock, busyMs: 0 });
            close();
            close = openMountPoint(view.record.mount);
          },
          started: async (ready, process) => {
            const visible = await until(() => mountAt(view.record.mount)?.type === VIEW_TYPE, VISIBLE_MS);
            close();
            close = () => {};
            if (!visible)
              throw new CliError(`nothing is mounted on ${view.record.mount}, although its process says so`);
            const below = { id: String(ready.rootId), fd: Number(ready.rootFd) };
            view.record = {
              ...view.record,
              volume: String(ready.volume),
              process,
              ...(isInPlace(view.record) ? { below } : {}),
            };
            keepRoot(view);
            writeView(files, view.record);
          },
        },
        clock,
        log,
        env,
      ),
    };
    return view;
  }

  #forget(name: string): void {
    const fd = this.#views.get(name)?.rootFd;
    if (fd !== undefined) closeSync(fd);
    this.#views.delete(name);
  }

  #socket(record: ViewRecord): string {
    return (
      readBroker(this.#options.files)?.socket ??
      record.brokerOptions.socket ??
      this.#options.files.brokerSocket
    );
  }

  up(request: UpRequest, steps: Steps): Promise<UpResult> {
    return this.#inTurn(() => this.#up(request, steps));
  }

  /** Which view is meant: one that there is, or a new record. Throws when the request contradicts what there is. */
  #choose(request: UpRequest): { record: ViewRecord; known: boolean } {
    const records = readViews(this.#options.files);
    const same = records.find((record) => record.root === request.root);
    if (same) {
      if (request.name && request.name !== same.name)
        throw new CliError(`${request.root} is already the view '${same.name}', at ${same.mount}`, {
          hint: `Take it down first: gate down ${same.name}`,
        });
      if (request.mount && request.mount !== same.mount)
        throw new CliError(`${request.root} is already mounted, as '${same.name}' at ${same.mount}`, {
          hint: `Take it down first: gate down ${same.name}`,
        });
      return { record: same, known: true };
    }
    for (const record of records)
      if (isInside(request.root, record.root) || isInside(record.root, request.root))
        throw new CliError(
          `${request.root} and ${record.root}, the root of view '${record.name}', lie in one another`,
          {
            hint: `Their common files would have two sets of locks. Take that view down first: gate down ${record.name}`,
          },
        );
    const taken = new Set(records.map((record) => record.name));
    if (request.name && taken.has(request.name))
      throw new CliError(
        `there is a view '${request.name}' already, of ${records.find((r) => r.name === request.name)?.root}`,
        {
          hint: 'Give this one another name with --name.',
        },
      );
    const name = request.name ?? nameFor(request.root, taken);
    const { uid, files } = this.#options;
    const mount = request.mount ?? (uid === 0 ? `/mnt/gate/${name}` : `${files.mounts}/${name}`);
    const { root, brokerOptions, mountOptions } = request;
    return { record: { name, root, mount, madeDirs: [], brokerOptions, mountOptions }, known: false };
  }

  async #up(request: UpRequest, steps: Steps): Promise<UpResult> {
    const { files, uid, clock } = this.#options;
    const { record, known } = this.#choose(request);
    let view = this.#views.get(record.name);
    if (view?.child.process && mountAt(record.mount)?.type === VIEW_TYPE) {
      const info = await this.#startBroker(record.brokerOptions, steps);
      this.#sayIgnored(request, view.record, steps);
      steps.done(`${record.root} is mounted on ${record.mount}`);
      return this.#result(view, info);
    }
    let fresh = record;
    // From here on what is at the mount point is ours to take away.
    let ours = known;
    try {
      const info = await this.#startBroker(request.brokerOptions, steps);
      if (view || known) {
        if (mountAt(record.mount)) steps.done(`cleaned up what a dead mount left on ${record.mount}`);
        await view?.child.stop();
        if (isInPlace(record)) await endProcessOf(record);
        else await takeDown({ ...record, madeDirs: [] }, { uid, clock, busyMs: 0 });
        const { brokerOptions, mountOptions } = request;
        fresh = { ...record, brokerOptions, mountOptions, process: null };
        // Nothing covers the root: whatever is there now is meant.
        if (mountAt(record.mount)?.type !== VIEW_TYPE) fresh = { ...fresh, below: undefined };
      }
      const made = isInPlace(record)
        ? prepareInPlace(record.root, known)
        : prepareMountPoint(record.mount, record.root);
      ours = true;
      fresh = { ...fresh, madeDirs: made.length ? made : record.madeDirs };
      writeView(files, fresh);
      if (!isInPlace(record)) steps.done(`mount point ${record.mount}`);
      const kept = view?.rootFd;
      view = this.#newView(fresh);
      view.rootFd = kept;
      this.#views.set(record.name, view);
      await view.child.start();
      steps.done(`${record.root} is mounted on ${record.mount}`);
      return this.#result(view, info);
    } catch (error) {
      await this.#undo(fresh, known, ours);
      throw error;
    }
  }

  #sayIgnored(request: UpRequest, record: ViewRecord, steps: Steps): void {
    for (const [option, value] of Object.entries(request.mountOptions))
      if (record.mountOptions[option] !== value)
        steps.note(
          `${option}=${value} does not change what runs already; take it down and up again for that`,
        );
  }

  /** Leaves nothing half-mounted. A view that was known before stays known. */
  async #undo(record: ViewRecord, known: boolean, ours: boolean): Promise<void> {
    const { files, uid, clock, log } = this.#options;
    const view = this.#views.get(record.name);
    this.#forget(record.name);
    try {
      await view?.child.stop();
      if (ours) await takeDown({ ...record, process: null }, { uid, clock, busyMs: 0 });
    } catch (error) {
      log.error('cleaning up failed', { error: String(error) });
    }
    if (!known) removeView(files, record.name);
    else writeView(files, { ...record, madeDirs: record.madeDirs, process: null });
    if (this.empty) await this.#stopBroker();
  }

  async #startBroker(options: Readonly<Record<string, string>>, steps: Steps): Promise<BrokerInfo> {
    const { files } = this.#options;
    this.#broker ??= this.#newBroker(options);
    if (this.#broker.process) {
      const same = JSON.stringify(options) === JSON.stringify(this.#brokerOptions);
      if (!same && Object.keys(options).length > 0)
        steps.note('the broker runs already; its options are those of the first `gate up`');
    } else {
      this.#brokerOptions = options;
      const foreign = readBroker(files);
      if (foreign) this.#broker.adopt(brokerProcess(foreign));
      else await this.#broker.start();
    }
    const info = await until(() => readBroker(files), VISIBLE_MS);
    if (!info) throw new CliError(`the broker runs, but ${files.broker} does not say where`);
    steps.done(`broker at ${info.url} and ${info.socket}`);
    return info;
  }

  #result(view: View, info: BrokerInfo): UpResult {
    const { name, root, mount } = view.record;
    return {
      name,
      root,
      mount,
      broker: { url: info.url, socket: info.socket, token_file: this.#options.files.token },
      pids: { supervisor: process.pid, broker: info.pid, mount: view.child.process?.pid ?? 0 },
    };
  }

  down(name: string, steps: Steps): Promise<{ name: string; mount: string }> {
    return this.#inTurn(async () => {
      const record =
        this.#views.get(name)?.record ?? readViews(this.#options.files).find((r) => r.name === name);
      if (!record) throw new CliError(`there is no view '${name}'`);
      await this.#takeDown(record, steps);
      removeView(this.#options.files, name);
      if (this.empty) await this.#stopBroker(steps);
      return { name, mount: record.mount };
    });
  }

  async #takeDown(record: ViewRecord, steps: Steps): Promise<void> {
    const { uid, clock } = this.#options;
    const view = this.#views.get(record.name);
    view?.child.expectEnd();
    try {
      await takeDown(
        { ...record, process: view?.child.process ?? record.process ?? null },
        { uid, clock, busy: (users) => steps.note(busyNote(record.mount, users)) },
      );
    } finally {
      this.#forget(record.name);
    }
    steps.done(`${record.mount} is unmounted`);
  }

  async #stopBroker(steps?: Steps): Promise<void> {
    const running = this.#broker?.process;
    await this.#broker?.stop();
    this.#broker = undefined;
    if (running) steps?.done('the broker is stopped');
    removeSockets(this.#options.files);
  }

  /** Takes everything down; the records stay for `gate up --all`. */
  stop(steps: Steps): Promise<void> {
    return this.#inTurn(async () => {
      for (const { record } of [...this.#views.values()]) {
        await this.#takeDown(record, steps);
        writeView(this.#options.files, { ...record, process: null });
      }
      await this.#stopBroker(steps);
    });
  }

  list(): ListResult {
    const views = [...this.#views.values()].map(
      ({ record, child }): ViewState => ({
        name: record.name,
        root: record.root,
        mount: record.mount,
        volume: record.volume ?? null,
        pid: child.process?.pid ?? null,
        restarts: child.restarts,
      }),
    );
    return { supervisor: processId(process.pid)!, broker: this.#broker?.process?.pid ?? null, views };
  }
}

/** Nobody serves it any more: whatever waits in it fails now, and what is mounted there is surely dead. */
async function connectionEnd(mount: string): Promise<void> {
  if (mountAt(mount)?.type === VIEW_TYPE) await abort(mount);
}

async function endProcessOf(record: ViewRecord): Promise<void> {
  if (isAlive(record.process)) await endProcess(record.process);
}

/** How `gate mount` gets at the root of a view in place, over which a dead mount may lie. */
function inPlaceFlags(view: View): string[] {
  const { below } = view.record;
  return [
    '--in-place',
    '--replace',
    ...(view.rootFd === undefined ? [] : ['--root-fd=4']),
    ...(below === undefined ? [] : [`--root-id=${below.id}`]),
  ];
}

/** O_PATH (fcntl.h): the descriptor names the directory, and opens nothing. */
const O_PATH = 0o10000000;

/** Keeps the root that a mount in place has open, so that the next one gets there when this one is killed. */
function keepRoot(view: View): void {
  const { below, process } = view.record;
  if (view.rootFd !== undefined || below === undefined || !process) return;
  try {
    view.rootFd = openSync(`/proc/${process.pid}/fd/${below.fd}`, O_PATH | constants.O_DIRECTORY);
  } catch {
    // The next mount finds its own way, see openRoot.
  }
}

export function busyNote(mount: string, users: readonly string[]): string {
  const who = users.length ? `in use by ${users.join(', ')}` : 'in use';
  return `${mount} is ${who}; unmounting it under them in a moment`;
}

/** What a broker that was killed leaves: nothing listens there any more. */
export function removeSockets(files: StateFiles): void {
  if (readBroker(files)) return;
  for (const path of [files.brokerSocket, files.broker])
    if (existsSync(path))
      try {
        unlinkSync(path);
      } catch {
        // Somebody else removed it.
      }
}
