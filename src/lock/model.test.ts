import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { GateError } from '../base/errors.ts';
import { LockCore } from './core.ts';
import { holdsConflict, Model, snapshot } from './model.test-helper.ts';
import type { AcquireRequest, Command, Counters, Effect, Hold, Mode, Target } from './types.ts';

const seed = process.env.GATE_SEED === undefined ? undefined : Number(process.env.GATE_SEED);
const RUNS = Number(process.env.GATE_RUNS ?? 5000);
const LIMITS = { waitersPerKey: 5, locksPerSession: 12 };

const OWNERS = ['ann', 'bob', 'cat', 'dan'];
const SESSIONS = ['s1', 's2', 's3'];
const PATHS = ['', 'd', 'd/e', 'd/e/f', 'd/g', 'h'];
const LEAVES = ['d/e/f', 'd/g', 'h'];

function counters(): Counters {
  let ticket = 0;
  let token = 0;
  let id = 0;
  return { nextTicket: () => ++ticket, nextToken: () => ++token, newLockId: () => `L${++id}` };
}

const record = <T>(parts: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record<T>(parts, { noNullPrototype: true });

/** A command with holes: which hold or request it means is decided when it runs. */
type Draft =
  | { type: 'command'; command: Command }
  | { type: 'onHold'; pick: number; make: (hold: Hold) => Command }
  | { type: 'onRequest'; pick: number; make: (request: AcquireRequest) => Command };

const mode = fc.constantFrom<Mode>('read', 'read', 'write', 'write', 'replace');
const target: fc.Arbitrary<Target> = fc.oneof(
  {
    weight: 4,
    arbitrary: record({ path: fc.constantFrom(...LEAVES), mode, scope: fc.constant('file' as const) }),
  },
  {
    weight: 1,
    arbitrary: record({
      path: fc.constantFrom(...PATHS),
      mode,
      scope: fc.constantFrom('file' as const, 'tree' as const),
    }),
  },
);
const targets = fc.oneof(
  { weight: 3, arbitrary: fc.array(target, { minLength: 1, maxLength: 1 }) },
  { weight: 2, arbitrary: fc.array(target, { minLength: 2, maxLength: 3 }) },
);
const request: fc.Arbitrary<AcquireRequest> = record({
  requestId: fc.nat(400).map((n) => `r${n}`),
  session: fc.constantFrom(...SESSIONS),
  volume: fc.constantFrom('v', 'v', 'v', 'v', 'v', 'w'),
  owner: fc.constantFrom(...OWNERS),
  kind: fc.constantFrom('name' as const, 'handle' as const),
  targets,
  waitMs: fc.constantFrom(null, null, null, 0, 10, 40),
  leaseMs: fc.constantFrom(null, null, 30),
  holdCapMs: fc.constantFrom(null, null, 0, 20, 50),
});
const path = fc.constantFrom(...PATHS);
const pick = fc.nat(1000);
const onHold = (make: (hold: Hold) => Command) => pick.map((n): Draft => ({ type: 'onHold', pick: n, make }));
const onRequest = (make: (r: AcquireRequest) => Command) =>
  pick.map((n): Draft => ({ type: 'onRequest', pick: n, make }));
const plain = (command: fc.Arbitrary<Command>) =>
  command.map((c): Draft => ({ type: 'command', command: c }));
const volume = fc.constant('v');

/** A hold made of a request, as a delegate would have granted it, with an id of its own. */
function adoption({ waitMs: _, ...request }: AcquireRequest, n: number): Draft {
  const at = { grantedAtMs: 1000, coveredSinceMs: 990, leaseExpiresAtMs: request.leaseMs && 1030 };
  const hold = {
    ...request,
    ...at,
    lockId: `E${n}`,
    requestId: n % 2 ? request.requestId : `e${n}`,
    ticket: 0,
    token: 0,
    count: 1,
  };
  return { type: 'command', command: { type: 'adopt', hold: { ...hold, detached: false } } };
}

const draft: fc.Arbitrary<Draft> = fc.oneof(
  { weight: 40, arbitrary: plain(request.map((r) => ({ type: 'acquire', request: r }))) },
  { weight: 4, arbitrary: onRequest((r) => ({ type: 'acquire', request: r })) },
  { weight: 3, arbitrary: fc.tuple(request, fc.nat(1e6)).map(([r, n]): Draft => adoption(r, n)) },
  {
    weight: 18,
    arbitrary: onHold((h) => ({ type: 'release', lockId: h.lockId, owner: h.owner, session: h.session })),
  },
  { weight: 1, arbitrary: onHold((h) => ({ type: 'release', lockId: h.lockId, owner: 'eve' })) },
  { weight: 1, arbitrary: onHold((h) => ({ type: 'release', lockId: 'none', owner: h.owner })) },
  {
    weight: 6,
    arbitrary: onRequest((r) => ({ type: 'cancel', requestId: r.requestId, session: r.session })),
  },
  {
    weight: 3,
    arbitrary: fc
      .constantFrom(undefined, null, 15)
      .chain((leaseMs) => onHold((h) => ({ type: 'heartbeat', lockId: h.lockId, owner: h.owner, leaseMs }))),
  },
  {
    weight: 1,
    arbitrary: plain(
      record({
        type: fc.constant('end_session' as const),
        session: fc.constantFrom(...SESSIONS),
        reason: fc.constantFrom('released' as const, 'session_lost' as const),
      }),
    ),
  },
  { weight: 1, arbitrary: onHold((h) => ({ type: 'break', lockId: h.lockId })) },
  {
    weight: 3,
    arbitrary: plain(
      record({ type: fc.constant('move' as const), volume, from: path, to: path, tree: fc.boolean() }),
    ),
  },
  {
    weight: 1,
    arbitrary: plain(
      record({ type: fc.constant('exchange' as const), volume, a: path, b: path, tree: fc.boolean() }),
    ),
  },
  {
    weight: 2,
    arbitrary: plain(record({ type: fc.constant('detach' as const), volume, path, tree: fc.boolean() })),
  },
  {
    weight: 3,
    arbitrary: target.chain((t) => onHold((h) => ({ type: 'add_target', lockId: h.lockId, target: t }))),
  },
  {
    weight: 4,
    arbitrary: targets.chain((ts) =>
      onRequest((r) => ({ type: 'retarget', requestId: r.requestId, session: r.session, targets: ts })),
    ),
  },
  { weight: 8, arbitrary: fc.constant<Draft>({ type: 'command', command: { type: 'tick' } }) },
);
const steps = fc.array(fc.tuple(draft, fc.constantFrom(0, 0, 1, 5, 12)), {
  minLength: 1,
  maxLength: 90,
  size: 'max',
});

function fill(draft: Draft, model: Model, requests: AcquireRequest[]): Command | undefined {
  if (draft.type === 'command') return takesId(draft.command, model) ? undefined : draft.command;
  if (draft.type === 'onHold') {
    const hold = model.holds[draft.pick % model.holds.length];
    return hold && draft.make(hold);
  }
  const recent = requests.slice(-12);
  const one = recent[draft.pick % recent.length];
  return one && draft.make(one);
}

/** An id that its session's hold has already: no client makes one twice. */
function takesId(command: Command, model: Model): boolean {
  if (command.type !== 'adopt') return false;
  const { session, requestId } = command.hold;
  return model.holds.some((one) => one.session === session && one.ids.includes(requestId));
}

/** What must be equal: all but words for people. */
function bare(effects: Effect[] | string): unknown {
  if (typeof effects === 'string') return effects;
  return effects.map((effect) => {
    if (effect.type === 'refused') return { ...effect, message: '', cycle: undefined };
    if (effect.type === 'queued') return { ...effect, blockers: [] };
    return effect;
  });
}

function run(apply: () => Effect[]): Effect[] | string {
  try {
    return apply();
  } catch (error) {
    if (error instanceof GateError) return error.code;
    throw error;
  }
}

function checkState(core: LockCore, model: Model): void {
  const holds = [...SESSIONS].flatMap((session) => core.holdsOf(session)).sort((a, b) => a.ticket - b.ticket);
  const expected = model.holds.map(snapshot).sort((a, b) => a.ticket - b.ticket);
  assert.deepEqual(holds, expected);
  assert.deepEqual(
    core.waits(),
    [...model.waiters].sort((a, b) => a.ticket - b.ticket),
  );
}

/**
 * Conflicting holds may stand beside each other only when a rename, a link or an adoption brought them together, or
 * when one came in covered by what its owner held there already: `excused` has owners, each with a lock beside which
 * it got in either way.
 */
function checkExclusion(core: LockCore, excused: Set<string>, renaming: boolean): void {
  const holds = SESSIONS.flatMap((session) => core.holdsOf(session)).filter((hold) => !hold.detached);
  holds.sort((a, b) => a.token - b.token);
  for (const [i, a] of holds.entries())
    for (const b of holds.slice(0, i)) {
      if (!holdsConflict(a, b)) continue;
      const [ab, ba] = [`${a.owner} ${b.lockId}`, `${b.owner} ${a.lockId}`];
      assert.ok(
        renaming || excused.has(ab) || excused.has(ba),
        `${a.lockId} and ${b.lockId} exclude each other`,
      );
      excused.add(ab).add(ba);
    }
}

let commands = 0;

function compare(script: (readonly [Draft, number])[], reloadAt: number): void {
  const shared = counters();
  let core = new LockCore({ counters: shared, limits: LIMITS });
  const model = new Model(counters(), LIMITS);
  const requests: AcquireRequest[] = [];
  const excused = new Set<string>();
  let now = 1000;
  let lastToken = 0;
  let step = 0;
  for (const [draft, passes] of script) {
    now += passes;
    const command = fill(draft, model, requests);
    if (command === undefined) continue;
    if (command.type === 'acquire') requests.push(command.request);
    if (step++ === reloadAt) {
      const holds = SESSIONS.flatMap((session) => core.holdsOf(session));
      const waiters = core.waits();
      core = new LockCore({ counters: shared, limits: LIMITS });
      core.load(holds, waiters);
    }
    const got = run(() => core.apply(command, now));
    const expected = run(() => model.apply(command, now));
    commands++;
    assert.deepEqual(bare(got), bare(expected), JSON.stringify(command));
    checkState(core, model);
    checkExclusion(core, excused, !['acquire', 'release', 'cancel', 'tick'].includes(command.type));
    if (typeof got === 'string') continue;
    for (const effect of got) {
      if (effect.type !== 'granted' || effect.again || effect.hold.lockId.startsWith('E')) continue;
      assert.ok(effect.hold.token > lastToken, 'tokens grow');
      lastToken = effect.hold.token;
    }
  }
  for (const session of SESSIONS) {
    const ended = { type: 'end_session', session, reason: 'released' } as const;
    assert.deepEqual(bare(core.apply(ended, now)), bare(model.apply(ended, now)));
  }
  const { examined: _e, visited: _v, volumes: _w, ...left } = core.stats();
  const volumes = core.stats().volumes;
  assert.deepEqual(
    left,
    { holds: 0, waiters: 0, owners: 0, sessions: 0, nodes: volumes },
    'nothing is left behind',
  );
  assert.equal(core.nextDeadlineMs(), null);
}

test('the core does what the one rule says, whatever comes', () => {
  fc.assert(
    fc.property(steps, fc.nat(80), (script, reloadAt) => compare(script, reloadAt)),
    { numRuns: RUNS, ...(seed !== undefined && { seed }) },
  );
  console.log(`${commands} commands compared`);
});
