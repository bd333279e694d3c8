/** The operations of the session protocol, one function each. What they return is the answer's `ok`. */
import { GateError } from '../base/errors.ts';
import type { Delegations } from './delegation.ts';
import { describeStatus, describeWaits } from './describe.ts';
import { activityOf, briefWho, type EventHub, historyOf } from './events.ts';
import { shownOwner } from './owners.ts';
import type { Session, Sessions } from './sessions.ts';
import type { BrokerState } from './state.ts';
import type { Volumes } from './volumes.ts';
import { type ClientMessage, DELEGATE_OWNER, type Op, type Reasserted, type Released } from './wire.ts';

export interface OpParts {
  readonly state: BrokerState;
  readonly sessions: Sessions;
  readonly volumes: Volumes;
  readonly hub: EventHub;
  readonly delegations: Delegations;
}

/** Says that the answer comes later, from the effect of a command. */
export const LATER = Symbol('later');

/** How far back the history of a path is searched for who wrote it. */
const LAST_WRITER_EVENTS = 50;
/** Of `history`, when no limit is named. */
const HISTORY_LIMIT = 1000;

type Message<O extends Op> = Extract<ClientMessage, { op: O }>;
type Handler<O extends Op> = (parts: OpParts, session: Session, message: Message<O>) => unknown;
/** `hello`, `renew`, `subscribe` and `unsubscribe` belong to the connection. */
type SessionOp = Exclude<Op, 'hello' | 'renew' | 'subscribe' | 'unsubscribe'>;

/** Operations that change nothing, and need not be remembered as done. */
const READS: ReadonlySet<Op> = new Set<Op>(['status', 'waits', 'volumes', 'history', 'reported']);

function acquire({ state }: OpParts, session: Session, message: Message<'acquire'>): unknown {
  const { settings } = state.parts;
  const { requestId, owner, volume, kind, targets, who } = message;
  const capMs = targets.some((target) => target.mode !== 'read')
    ? settings.maxHoldWriteMs
    : settings.maxHoldReadMs;
  session.pending.set(requestId, message.id);
  try {
    state.apply({
      type: 'acquire',
      request: {
        requestId,
        session: session.id,
        volume,
        owner,
        kind,
        targets,
        waitMs: message.waitMs === undefined ? settings.acquireTimeoutMs : message.waitMs,
        leaseMs: message.leaseMs ?? null,
        holdCapMs: message.holdCapMs === undefined ? capMs : message.holdCapMs,
        who,
      },
    });
  } catch (error) {
    session.pending.delete(requestId);
    throw error;
  }
  return LATER;
}

function release({ state }: OpParts, session: Session, message: Message<'release'>): Released {
  const { lockId, owner } = message;
  const effects = state.apply({ type: 'release', lockId, owner, session: session.id });
  return {
    gone: effects.some(
      (effect) => effect.type === 'released' && effect.gone && effect.hold.lockId === lockId,
    ),
  };
}

/** A hold of the session itself, or `not_found`. */
function ownHold({ state }: OpParts, session: Session, lockId: string) {
  const hold = state.parts.core.hold(lockId);
  if (hold?.session !== session.id) throw new GateError('not_found', `This session has no lock ${lockId}.`);
  return hold;
}

function reassert(parts: OpParts, session: Session, message: Message<'reassert'>): Reasserted {
  const { state } = parts;
  const named = (session.reasserted ??= { locks: new Set(), requests: new Set() });
  const lost: string[] = [];
  for (const lockId of message.locks) {
    named.locks.add(lockId);
    if (state.parts.core.hold(lockId)?.session !== session.id) lost.push(lockId);
  }
  for (const requestId of message.requests) named.requests.add(requestId);
  if (!message.last) return { lost };
  session.reasserted = undefined;
  for (const hold of [...state.parts.core.holdsOf(session.id)]) {
    if (named.locks.has(hold.lockId) || hold.owner === DELEGATE_OWNER) continue;
    const ids = [hold.requestId, ...(hold.joined ?? [])];
    if (ids.some((id) => named.requests.has(id))) {
      for (const requestId of ids)
        if (!named.requests.has(requestId)) state.apply({ type: 'cancel', requestId, session: session.id });
      continue;
    }
    for (let count = hold.count; count > 0; count--)
      state.apply({ type: 'release', lockId: hold.lockId, owner: hold.owner, session: session.id });
  }
  return { lost };
}

function note({ state }: OpParts, session: Session, message: Message<'note'>): null {
  const { volume, path, what } = message;
  const owner = message.owner === undefined ? {} : shownOwner(message.owner);
  state.event({
    type: what,
    volume,
    path,
    ...owner,
    session: session.id,
    message: message.message,
    whose: message.whose ?? (what.startsWith('stale_') ? lastWriterOf(state, session, message) : undefined),
    who: briefWho(message.who),
  });
  return null;
}

/** Who wrote a file last through another mount, as far as the history goes back. */
function lastWriterOf(state: OpParts['state'], session: Session, about: Message<'note'>): string | undefined {
  const events = historyOf(state.parts.store, about.volume, about.path, LAST_WRITER_EVENTS);
  return events.find((e) => e.type === 'granted' && e.mode !== 'read' && e.session !== session.id)?.owner;
}

function activity({ state }: OpParts, session: Session, message: Message<'activity'>): null {
  for (const entry of message.entries) state.event(activityOf(message.volume, session.id, entry));
  return null;
}

/** Answers when a promise is settled. */
function later(session: Session, id: number, result: Promise<unknown>): void {
  result.then(
    (ok) => session.outlet?.answer(id, ok),
    (error) =>
      session.outlet?.fail(id, error instanceof GateError ? error : new GateError('internal', String(error))),
  );
}

function status({ state, delegations }: OpParts, session: Session, message: Message<'status'>): unknown {
  const { id, volume, path, tree = false } = message;
  const delegated = delegations.holdsIn(volume, { path, scope: tree ? 'tree' : 'file' });
  later(
    session,
    id,
    delegated.then((holds) => describeStatus(state, volume, path, tree, holds)),
  );
  return LATER;
}

const HANDLERS: { readonly [O in SessionOp]: Handler<O> } = {
  acquire,
  release,
  cancel: ({ state }, session, { requestId }) => {
    state.apply({ type: 'cancel', requestId, session: session.id });
    return null;
  },
  heartbeat(parts, session, { lockId, owner, leaseMs }) {
    ownHold(parts, session, lockId);
    parts.state.apply({ type: 'heartbeat', lockId, owner, leaseMs });
    return null;
  },
  move: ({ state, sessions }, session, { volume, from, to, tree }) => {
    state.apply({ type: 'move', volume, from, to, tree, by: sessions.mover(session) });
    return null;
  },
  exchange: ({ state, sessions }, session, { volume, a, b, tree }) => {
    state.apply({ type: 'exchange', volume, a, b, tree, by: sessions.mover(session) });
    return null;
  },
  detach: ({ state, sessions }, session, { volume, path, tree }) => {
    state.apply({ type: 'detach', volume, path, tree, by: sessions.mover(session) });
    return null;
  },
  add_target(parts, session, { lockId, target }) {
    ownHold(parts, session, lockId);
    parts.state.apply({ type: 'add_target', lockId, target });
    return null;
  },
  retarget: ({ state }, session, { requestId, targets }) => {
    state.apply({ type: 'retarget', requestId, session: session.id, targets });
    return null;
  },
  break({ state, delegations }, session, { id, lockId }) {
    if (state.parts.core.hold(lockId) !== null) {
      state.apply({ type: 'break', lockId });
      return null;
    }
    later(session, id, delegations.breakHold(lockId));
    return LATER;
  },
  reassert,
  end({ sessions }, session, { unclean }) {
    if (unclean) sessions.end(session, 'session_lost', 'It ended while files were open for writing.');
    else sessions.end(session, 'released', 'The client ended it.');
    return null;
  },
  clean: ({ state }, _session, { volume, ids, still }) => {
    state.unclean.clean(volume, ids, still ?? []);
    return null;
  },
  status,
  delegate: ({ delegations }, session, { volume }) => delegations.delegate(session, volume),
  returned: ({ delegations }, session, { volume, epoch, regions, holds }) => {
    delegations.returned(session, volume, epoch, regions, holds);
    return null;
  },
  taken: ({ delegations }, session, { volume, epoch, give, region, yes }) => {
    delegations.taken(session, volume, epoch, give, region, yes);
    return null;
  },
  reported: ({ delegations }, _session, { report, holds }) => {
    delegations.reported(report, holds);
    return null;
  },
  activity,
  waits: ({ state }) => describeWaits(state),
  volumes: ({ volumes }) => volumes.list(),
  register_volume: ({ volumes }, _session, { root, mount, dev, ino }) =>
    volumes.register({ root, mount: mount ?? null, dev, ino }),
  history: ({ state }, _session, { volume, path, limit }) =>
    historyOf(
      state.parts.store,
      volume,
      path,
      Math.min(limit ?? HISTORY_LIMIT, state.parts.settings.limits.historyEvents),
    ),
  note,
};

/** Carries a message out, and remembers that it was. Throws GateError; nothing has changed then. */
export function carryOut(parts: OpParts, session: Session, message: ClientMessage): unknown {
  const { op } = message;
  const handler = HANDLERS[op as SessionOp] as Handler<Op>;
  if (message.id > session.lastId && !READS.has(op)) {
    session.lastId = message.id;
    parts.sessions.touch(session);
  }
  return handler(parts, session, message as never);
}
