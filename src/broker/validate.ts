/**
 * The edge of the session protocol: what came in a frame becomes a `ClientMessage`, or a GateError `invalid_request`
 * that names the field. Written by hand, because tens of thousands of messages a second go through it.
 */
import { GateError } from '../base/errors.ts';
import type { Mode, Scope, Target, Who } from '../lock/types.ts';
import { isHttpOwner } from './owners.ts';
import { checkKey, normalise } from './paths.ts';
import type { Limits } from './settings.ts';
import {
  type Activity,
  type ClientInfo,
  type ClientMessage,
  DELEGATE_OWNER,
  type Op,
  type Region,
} from './wire.ts';

type Fields = Record<string, unknown>;

function refuse(field: string, why: string): never {
  throw new GateError('invalid_request', `${field}: ${why}`, { field });
}

const MODES: ReadonlySet<unknown> = new Set<Mode>(['read', 'write', 'replace']);
const SCOPES: ReadonlySet<unknown> = new Set<Scope>(['file', 'tree']);

export class Validator {
  readonly #limits: Limits;
  readonly #parsers: Partial<Record<string, (message: Fields) => ClientMessage>>;

  constructor(limits: Limits) {
    this.#limits = limits;
    this.#parsers = this.#makeParsers();
  }

  /** Checks that `value` has a usable number, and returns it. */
  id(value: unknown): number {
    const id = (value as Fields | null)?.id;
    if (typeof id !== 'number' || !Number.isSafeInteger(id) || id < 1)
      refuse('id', 'must be a whole number from 1');
    return id;
  }

  message(value: unknown): ClientMessage {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      refuse('message', 'must be an object');
    const message = value as Fields;
    this.id(message);
    const parser =
      typeof message.op === 'string' && Object.hasOwn(this.#parsers, message.op) && this.#parsers[message.op];
    if (!parser) refuse('op', `there is no operation ${JSON.stringify(message.op)}`);
    return parser(message);
  }

  // Each parser returns the message itself once it is checked: no copy. Unknown fields are ignored.
  #makeParsers(): Record<Op, (message: Fields) => ClientMessage> {
    const checked =
      (check: (message: Fields) => void) =>
      (message: Fields): ClientMessage => {
        check(message);
        return message as unknown as ClientMessage;
      };
    const lock = (m: Fields) => this.#name(m, 'lockId');
    const tree = (m: Fields) => {
      if (typeof m.tree !== 'boolean') refuse('tree', 'must be true or false');
    };
    return {
      hello: checked((m) => this.#hello(m)),
      renew: checked(() => {}),
      acquire: checked((m) => this.#acquire(m)),
      release: checked((m) => {
        lock(m);
        this.#name(m, 'owner');
      }),
      cancel: checked((m) => this.#name(m, 'requestId')),
      heartbeat: checked((m) => {
        lock(m);
        this.#name(m, 'owner');
        this.#duration(m, 'leaseMs', 1);
      }),
      move: checked((m) => {
        this.#key(m, 'from');
        this.#key(m, 'to');
        this.#name(m, 'volume');
        tree(m);
      }),
      exchange: checked((m) => {
        this.#key(m, 'a');
        this.#key(m, 'b');
        this.#name(m, 'volume');
        tree(m);
      }),
      detach: checked((m) => {
        this.#key(m, 'path');
        this.#name(m, 'volume');
        tree(m);
      }),
      add_target: checked((m) => {
        lock(m);
        m.target = this.#target(m.target, 'target');
      }),
      retarget: checked((m) => {
        this.#name(m, 'requestId');
        this.#targets(m);
      }),
      break: checked(lock),
      reassert: checked((m) => {
        this.#names(m, 'locks');
        this.#names(m, 'requests');
        if (typeof m.last !== 'boolean') refuse('last', 'must be true or false');
      }),
      end: checked((m) => {
        if (m.unclean !== undefined && typeof m.unclean !== 'boolean')
          refuse('unclean', 'must be true or false');
      }),
      clean: checked((m) => {
        this.#name(m, 'volume');
        this.#names(m, 'ids');
        if (m.still !== undefined) {
          this.#names(m, 'still');
          for (const path of m.still as string[]) checkKey('still', path);
        }
      }),
      status: checked((m) => {
        this.#name(m, 'volume');
        this.#key(m, 'path');
      }),
      waits: checked(() => {}),
      volumes: checked(() => {}),
      register_volume: checked((m) => this.#volume(m)),
      history: checked((m) => {
        this.#name(m, 'volume');
        this.#key(m, 'path');
        this.#duration(m, 'limit', 1);
      }),
      note: checked((m) => {
        this.#name(m, 'volume');
        this.#key(m, 'path');
        this.#name(m, 'what');
        for (const field of ['owner', 'whose'])
          if (m[field] == null) delete m[field];
          else this.#name(m, field);
        this.#text(m, 'message');
        m.who = this.#who(m.who);
      }),
      delegate: checked((m) => this.#name(m, 'volume')),
      returned: checked((m) => {
        this.#name(m, 'volume');
        this.#name(m, 'epoch');
        if (!Array.isArray(m.regions) || m.regions.length === 0)
          refuse('regions', 'must be a list, not empty');
        m.regions = m.regions.map((one, i) => this.#region(one, `regions[${i}]`));
        this.#holds(m);
      }),
      taken: checked((m) => {
        this.#name(m, 'volume');
        this.#name(m, 'epoch');
        this.#name(m, 'give');
        m.region = this.#region(m.region, 'region');
        if (typeof m.yes !== 'boolean') refuse('yes', 'must be true or false');
      }),
      reported: checked((m) => {
        if (!Number.isSafeInteger(m.report)) refuse('report', 'must be a whole number');
        this.#holds(m);
      }),
      activity: checked((m) => {
        this.#name(m, 'volume');
        if (!Array.isArray(m.entries)) refuse('entries', 'must be a list');
        m.entries = m.entries.map((one, i) => this.#activity(one, `entries[${i}]`));
      }),
      subscribe: checked((m) => {
        if (m.volume != null) this.#name(m, 'volume');
      }),
      unsubscribe: checked(() => {}),
    };
  }

  #acquire(m: Fields): void {
    this.#name(m, 'requestId');
    this.#name(m, 'volume');
    const owner = this.#name(m, 'owner');
    this.#freeOwner(owner, 'owner');
    if (m.kind !== 'name' && m.kind !== 'handle') refuse('kind', 'must be "name" or "handle"');
    this.#targets(m);
    this.#duration(m, 'waitMs', 0);
    this.#duration(m, 'leaseMs', 1);
    this.#duration(m, 'holdCapMs', 1);
    m.who = this.#who(m.who);
  }

  #hello(m: Fields): void {
    if (typeof m.resume !== 'boolean') refuse('resume', 'must be true or false');
    if (m.resume) {
      this.#name(m, 'session');
      this.#name(m, 'secret');
    }
    const client = m.client as Fields | undefined;
    if (typeof client !== 'object' || client === null) refuse('client', 'must be an object');
    this.#name(client, 'kind', 'client.kind');
    const clean: { -readonly [K in keyof ClientInfo]: ClientInfo[K] } = { kind: client.kind as string };
    if (typeof client.pid === 'number') clean.pid = client.pid;
    if (typeof client.host === 'string') clean.host = client.host.slice(0, this.#limits.textChars);
    m.client = clean;
  }

  #volume(m: Fields): void {
    for (const field of ['root', 'mount'] as const) {
      const path = m[field];
      if (field === 'mount' && path == null) m.mount = null;
      else if (typeof path !== 'string' || !path.startsWith('/')) refuse(field, 'must be an absolute path');
      else m[field] = normalise(field, path);
    }
    this.#name(m, 'dev');
    this.#name(m, 'ino');
  }

  #name(m: Fields, field: string, shown = field): string {
    const value = m[field];
    if (typeof value !== 'string' || value === '') refuse(shown, 'must be a string that is not empty');
    if (value.length > this.#limits.idChars)
      refuse(shown, `is longer than ${this.#limits.idChars} characters`);
    return value;
  }

  #names(m: Fields, field: string): void {
    const value = m[field];
    if (!Array.isArray(value) || !value.every((one) => typeof one === 'string'))
      refuse(field, 'must be a list of strings');
  }

  #key(m: Fields, field: string): void {
    const value = m[field];
    if (typeof value !== 'string') refuse(field, 'must be a string');
    checkKey(field, value);
  }

  #text(m: Fields, field: string): void {
    const value = m[field];
    if (value == null) delete m[field];
    else if (typeof value !== 'string') refuse(field, 'must be a string');
    else if (value.length > this.#limits.textChars) m[field] = value.slice(0, this.#limits.textChars);
  }

  /** Absent and null stay what they are. */
  #duration(m: Fields, field: string, least: number): void {
    const value = m[field];
    if (value == null) return;
    if (typeof value !== 'number' || !(value >= least) || value > Number.MAX_SAFE_INTEGER)
      refuse(field, `must be a number from ${least}`);
  }

  #targets(m: Fields): void {
    const targets = m.targets;
    if (!Array.isArray(targets) || targets.length === 0)
      refuse('targets', 'must be a list with one target or more');
    const limit = this.#limits.targetsPerRequest;
    if (targets.length > limit)
      throw new GateError('limit', `targets: more than ${limit} in one request`, { field: 'targets' });
    for (let i = 0; i < targets.length; i++) targets[i] = this.#target(targets[i], `targets[${i}]`);
  }

  #target(value: unknown, field: string): Target {
    if (typeof value !== 'object' || value === null) refuse(field, 'must be an object');
    const target = value as Fields;
    if (typeof target.path !== 'string') refuse(`${field}.path`, 'must be a string');
    checkKey(`${field}.path`, target.path);
    if (!MODES.has(target.mode)) refuse(`${field}.mode`, 'must be "read", "write" or "replace"');
    if (!SCOPES.has(target.scope)) refuse(`${field}.scope`, 'must be "file" or "tree"');
    return { path: target.path, mode: target.mode as Mode, scope: target.scope as Scope };
  }

  #freeOwner(owner: string, field: string): void {
    if (isHttpOwner(owner)) refuse(field, 'the prefix "http:" is kept for HTTP clients');
    if (owner === DELEGATE_OWNER) refuse(field, `"${owner}" is the broker's own`);
  }

  #region(value: unknown, field: string): Region {
    const { path, scope } = this.#target({ ...(value as Fields | null), mode: 'read' }, field);
    return { path, scope };
  }

  /** Holds that a delegate granted. Times are ages; the rest is what the broker would have made itself. */
  #holds(m: Fields): void {
    if (!Array.isArray(m.holds)) refuse('holds', 'must be a list');
    m.holds = m.holds.map((one, i) => {
      const hold = one as Fields | null;
      const field = `holds[${i}]`;
      if (typeof hold !== 'object' || hold === null) refuse(field, 'must be an object');
      for (const name of ['lockId', 'requestId', 'owner']) this.#name(hold, name, `${field}.${name}`);
      this.#freeOwner(hold.owner as string, `${field}.owner`);
      if (hold.kind !== 'name' && hold.kind !== 'handle')
        refuse(`${field}.kind`, 'must be "name" or "handle"');
      for (const name of ['token', 'count'])
        if (!Number.isSafeInteger(hold[name]) || (hold[name] as number) < 1)
          refuse(`${field}.${name}`, 'must be a whole number from 1');
      for (const name of ['grantedAtMs', 'coveredSinceMs'])
        if (typeof hold[name] !== 'number') refuse(`${field}.${name}`, 'must be a number');
      if (typeof hold.detached !== 'boolean') refuse(`${field}.detached`, 'must be true or false');
      this.#targets(hold);
      hold.who = this.#who(hold.who);
      return hold;
    });
  }

  #activity(value: unknown, field: string): Activity {
    const entry = value as Fields | null;
    if (typeof entry !== 'object' || entry === null) refuse(field, 'must be an object');
    if (entry.type !== 'granted' && entry.type !== 'released')
      refuse(`${field}.type`, 'is neither granted nor released');
    for (const name of ['lockId', 'owner']) this.#name(entry, name, `${field}.${name}`);
    if (!Number.isSafeInteger(entry.token)) refuse(`${field}.token`, 'must be a whole number');
    this.#targets(entry);
    entry.who = this.#who(entry.who);
    return entry as unknown as Activity;
  }

  #who(value: unknown): Who | undefined {
    if (value == null) return undefined;
    if (typeof value !== 'object') refuse('who', 'must be an object');
    return cleanWho(value as Fields, this.#limits.textChars);
  }
}

/** Keeps what is known, cut to a length. */
export function cleanWho(value: Fields, textChars: number): Who {
  const who: { -readonly [K in keyof Who]: Who[K] } = {};
  if (typeof value.pid === 'number') who.pid = value.pid;
  if (typeof value.uid === 'number') who.uid = value.uid;
  for (const field of ['command', 'reason', 'host'] as const) {
    const text = value[field];
    if (typeof text === 'string') who[field] = text.slice(0, textChars);
  }
  return who;
}
