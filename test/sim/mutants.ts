/**
 * Bugs planted on purpose: each is a change of one place in the source, made while a play loads it (mutate.ts). The checker must
 * catch every one within some hundred plays (simulation.test.ts), or it could not be trusted with the bugs that nobody planted. Those marked
 * `found` were real: the simulation found them, and docs/reliability.md tells of each.
 *
 * Not a bug any more, and so not here: a lease that gets less than its length after a restart. Broker time goes on over restarts
 * (src/broker/time.ts), so what is left of a lease is never less than its holder counts on.
 */
export interface Mutant {
  readonly name: string;
  /** In src/. */
  readonly file: string;
  /** Stands there exactly once. */
  readonly find: string;
  readonly replace: string;
  readonly found?: true;
  /** Seldom seen: the first play that is tried. Another one is to be looked for when plays change. */
  readonly seed?: number;
}

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'a new reader does not look at who waits before it',
    file: 'lock/engine.ts',
    find: 'return this.#earlierWaiter(lock) ?? this.#conflictingHold(lock);',
    replace:
      'return this.#conflictingHold(lock) ?? (lock.hold === null && lock.wait ? null : this.#earlierWaiter(lock));',
  },
  {
    name: 'only the first target of a request is looked at',
    file: 'lock/engine.ts',
    find: 'for (const entry of lock.entries) {\n      const found = lock.tree.conflictingHold(entry);',
    replace:
      'for (const entry of lock.entries.slice(0, 1)) {\n      const found = lock.tree.conflictingHold(entry);',
  },
  {
    name: 'a waiter that gives up wakes nobody',
    file: 'lock/engine.ts',
    find: 'this.tables.leave(lock);\n    this.wakeWatchers(lock);\n    // One that stood',
    replace: 'this.tables.leave(lock);\n    // One that stood',
  },
  {
    name: 'a release gives back all counts',
    file: 'lock/engine.ts',
    find: 'if (lock.hold!.count === 1) {',
    replace: 'if (lock.hold!.count >= 1) {',
  },
  {
    name: 'a cycle of waiters is not seen',
    file: 'lock/core.ts',
    find: 'const cycle = lock.owner.locks > 1 ? findCycle(lock.owner) : null;',
    replace: 'const cycle = lock.owner.locks > 1e9 ? findCycle(lock.owner) : null;',
  },
  {
    name: 'tickets begin again after a restart',
    file: 'broker/counters.ts',
    find: "if (name === 'tickets' || name === 'tokens') this.#next[name] = this.#mark[name] = mark;",
    replace: "if (name === 'tokens') this.#next[name] = this.#mark[name] = mark;",
  },
  {
    name: 'tokens begin again after a restart',
    file: 'broker/counters.ts',
    find: "if (name === 'tickets' || name === 'tokens') this.#next[name] = this.#mark[name] = mark;",
    replace: "if (name === 'tickets') this.#next[name] = this.#mark[name] = mark;",
  },
  {
    name: 'waiters are forgotten by a restart',
    file: 'broker/load.ts',
    find: 'return waiters.sort((a, b) => a.ticket - b.ticket);',
    replace: 'return waiters.slice(0, 0);',
  },
  {
    name: 'the answer goes out before the commit',
    file: 'broker/ws.ts',
    find: 'state.afterCommit(() => this.#flush(messages));',
    replace: 'queueMicrotask(() => this.#flush(messages));',
  },
  {
    name: 'no grace after a restart: sessions are as old as their last row',
    file: 'broker/sessions.ts',
    find: 'heardMs: this.#state.nowMs(),\n      doomed',
    replace: 'heardMs: row.startedAtMs,\n      doomed',
  },
  {
    name: 'a session is ended at half of its time',
    file: 'broker/sessions.ts',
    find: 'if (nowMs - session.heardMs > this.#ttlMs + this.#marginMs)',
    replace: 'if (nowMs - session.heardMs > this.#ttlMs / 2)',
  },
  {
    name: 'a lease is freed at half of its time',
    file: 'lock/engine.ts',
    find: 'leaseExpiresAtMs: request.leaseMs === null ? null : nowMs + request.leaseMs,',
    replace: 'leaseExpiresAtMs: request.leaseMs === null ? null : nowMs + request.leaseMs / 2,',
  },
  {
    name: 'the holds that come back with a region are dropped',
    file: 'broker/delegation.ts',
    find: 'for (const hold of holds) this.#adopt(delegation, hold, nowMs);',
    replace: '',
  },
  {
    name: 'a delegated region is not recalled',
    file: 'broker/delegation.ts',
    find: 'else if (delegation.out.covering(region) === undefined) {',
    replace: 'else if (delegation.out.size < 0) {',
  },
  {
    name: 'a region is given although somebody came meanwhile',
    file: 'broker/delegation.ts',
    find: 'if (waiters.length > 0) {\n        transfer.kind',
    replace: 'if (waiters.length < 0) {\n        transfer.kind',
  },
  {
    name: 'a recall is answered before the region is taken out',
    file: 'view/delegate.ts',
    find: "for (const lockId of holds.keys()) this.#apply({ type: 'break', lockId });",
    replace: 'for (const region of regions) this.#out.delete(region);',
  },
  {
    name: 'a rename does not take the holds along that are with the broker',
    file: 'view/delegate.ts',
    find: 'if (this.#alsoUpstream(command, [from, to], tree)) this.#upstream.move(from, to, tree);',
    replace: 'this.#alsoUpstream(command, [from, to], tree);',
  },
  {
    name: 'a cancelled waiter gives its late grant to nobody',
    file: 'lock/core.ts',
    find: 'else this.#engine.giveBack(lock, requestId);',
    replace: '',
  },
  {
    name: 'an answer goes out with the commit of an earlier turn',
    file: 'broker/ws.ts',
    find: 'if (this.#turn !== state.turn) {',
    replace: 'if (this.#unsent === 0) {',
    found: true,
  },
  {
    name: 'what is given back is granted with old tokens',
    file: 'view/delegate.ts',
    find: 'if (tokens.from > this.#nextToken) {',
    replace: 'if (tokens.from < 0) {',
    found: true,
  },
  {
    name: 'a retargeted waiter recalls nothing',
    file: 'broker/state.ts',
    find: 'this.gate?.retargets(command.session, command.requestId, command.targets);',
    replace: '',
    found: true,
  },
  {
    name: 'a cancelled waiter is asked for again after a reconnect',
    file: 'client/session.ts',
    find: "if (message.op === 'acquire' && cancelled.has(message.requestId)) {",
    replace: "if (message.op === 'acquire' && cancelled.has('')) {",
    found: true,
  },
  {
    name: 'a cancelled try is not answered',
    file: 'broker/delegation.ts',
    find: "for (const { request } of gone) if (request) this.#refuse(request, 'cancelled', 'The waiter gave up.');",
    replace: '',
    found: true,
  },
  {
    name: 'a release whose answer was lost counts as all of them',
    file: 'client/session.ts',
    find: 'if (left > 0) this.#held.set(lockId, left);',
    replace: 'if (left > 1e9) this.#held.set(lockId, left);',
    found: true,
  },
  {
    name: 'a change of names takes along what another view has not heard of yet',
    file: 'lock/moves.ts',
    find: 'if (by === undefined || lock.session.name === by.session) return false;',
    replace: 'if (by !== undefined || lock.hold !== null) return false;',
    found: true,
  },
  {
    name: 'a volume is delegated as if nobody held anything in it',
    file: 'broker/delegation.ts',
    find: 'for (const target of targets) delegation.out.add(regionOf(target), { quietSinceMs: null });',
    replace: 'void [targets, regionOf];',
  },
  {
    name: 'an offer that was declined is taken when it comes again',
    file: 'view/delegate.ts',
    find: 'if (this.#delegation?.epoch !== epoch || this.#answered.has(give)) return;',
    replace: 'if (this.#delegation?.epoch !== epoch) return;',
    found: true,
    seed: 1396,
  },
];
