import { LIMITS } from '../base/limits.ts';
import type { Engine } from './engine.ts';
import { isBelow } from './paths.ts';
import type { Lock } from './state.ts';
import type { Hold, Mover, Target } from './types.ts';

/** Where a target goes: another path, null when it guards nothing any more, undefined when it stays. */
type Destination = (path: string) => string | null | undefined;

/** Carries a path from one place to another, with all that lies below when `tree`; undefined when it is elsewhere. */
function carried(path: string, from: string, to: string, tree: boolean): string | undefined {
  if (path === from) return to;
  if (!tree || !isBelow(path, from)) return undefined;
  const rest = from === '' ? path : path.slice(from.length + 1);
  return to === '' ? rest : `${to}/${rest}`;
}

function isIn(path: string, place: string, tree: boolean): boolean {
  return path === place || (tree && isBelow(path, place));
}

/** Locks with a handle hold that has a target at one of the places, in order of tickets. */
function handleHoldsIn(engine: Engine, volume: string, places: readonly string[], tree: boolean): Lock[] {
  const found = new Set<Lock>();
  const index = engine.tables.findTree(volume);
  if (index === undefined) return [];
  for (const place of places)
    for (const entry of index.overlapping(place, tree, 0b1111, { held: true }))
      if (entry.lock.kind === 'handle' && isIn(entry.target.path, place, tree)) found.add(entry.lock);
  return [...found].sort((a, b) => a.ticket - b.ticket);
}

/** Its holder may not have known of it when the names changed. */
function unsettled(lock: Lock, by: Mover | undefined): boolean {
  if (by === undefined || lock.session.name === by.session) return false;
  return by.lost === true || (lock.toldMs ?? lock.hold!.grantedAtMs) >= by.sinceMs;
}

function same(a: Target, b: Target): boolean {
  return a.path === b.path && a.mode === b.mode && a.scope === b.scope;
}

function relocate(
  engine: Engine,
  locks: readonly Lock[],
  destination: Destination,
  by: Mover | undefined,
): void {
  for (const lock of locks) {
    if (by?.lost && lock.session.name === by.session) continue;
    const hold = lock.hold!;
    const keeps = unsettled(lock, by);
    const targets: Target[] = keeps ? [...hold.targets] : [];
    for (const target of hold.targets) {
      const path = destination(target.path);
      if (path === null || (keeps && path === undefined)) continue;
      const there = path === undefined ? target : { ...target, path };
      if (!keeps) targets.push(there);
      else if (targets.length < LIMITS.targetsPerRequest && !targets.some((one) => same(one, there)))
        targets.push(there);
    }
    if (keeps && targets.length === hold.targets.length) continue;
    const detached = targets.length === 0;
    // A detached hold keeps its last targets, for people to read.
    replaceHeldTargets(engine, lock, targets);
    const moved = targets.some((target) => !hold.targets.includes(target));
    const why = detached || !moved ? 'detached' : 'moved';
    const changed = { ...hold, targets: detached ? hold.targets : targets, detached };
    changeHold(engine, lock, keeps ? { ...changed, spread: true } : changed, why);
  }
  for (const lock of locks) engine.coverageChanged(lock.owner);
}

function replaceHeldTargets(engine: Engine, lock: Lock, targets: readonly Target[]): void {
  const old = lock.entries;
  lock.entries = targets.map(
    (target) => old.find((entry) => entry.target === target) ?? engine.tables.entry(lock, target),
  );
  for (const entry of lock.entries) if (!old.includes(entry)) engine.addHeld(entry);
  for (const entry of old) if (!lock.entries.includes(entry)) engine.removeHeld(entry);
  engine.wakeWatchers(lock);
}

function changeHold(
  engine: Engine,
  lock: Lock,
  hold: Hold,
  why: 'moved' | 'detached' | 'attached' | 'linked',
): void {
  lock.hold = hold;
  engine.effects.push({ type: 'hold_changed', hold, why });
}

/** Handle holds follow their inodes from one name to the other; those that stood on the other lose that name. */
export function move(
  engine: Engine,
  volume: string,
  from: string,
  to: string,
  tree: boolean,
  by?: Mover,
): void {
  if (from === to) return;
  const destination = (path: string) => (isIn(path, to, tree) ? null : carried(path, from, to, tree));
  relocate(engine, handleHoldsIn(engine, volume, [from, to], tree), destination, by);
}

export function exchange(
  engine: Engine,
  volume: string,
  a: string,
  b: string,
  tree: boolean,
  by?: Mover,
): void {
  if (a === b) return;
  relocate(
    engine,
    handleHoldsIn(engine, volume, [a, b], tree),
    (path) => carried(path, a, b, tree) ?? carried(path, b, a, tree),
    by,
  );
}

export function detach(engine: Engine, volume: string, path: string, tree: boolean, by?: Mover): void {
  const destination = (at: string) => (isIn(at, path, tree) ? null : undefined);
  relocate(engine, handleHoldsIn(engine, volume, [path], tree), destination, by);
}

/** Gives a hold one more target; a detached one gets it in place of those it lost. */
export function addTarget(engine: Engine, lock: Lock, target: Target): void {
  const hold = lock.hold!;
  if (!hold.detached && hold.targets.some((one) => same(one, target))) return;
  const targets = hold.detached ? [target] : [...hold.targets, target];
  replaceHeldTargets(engine, lock, targets);
  changeHold(engine, lock, { ...hold, targets, detached: false }, hold.detached ? 'attached' : 'linked');
  engine.coverageChanged(lock.owner);
}
