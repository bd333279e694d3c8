/** The broker without its doors: all that decides and remembers, wired together. */
import { newId } from '../base/ids.ts';
import type { Store } from '../store/types.ts';
import { Delegations } from './delegation.ts';
import { HttpLocks } from './http-locks.ts';
import { loadState } from './load.ts';
import { Sessions } from './sessions.ts';
import type { Settings } from './settings.ts';
import { Validator } from './validate.ts';
import { Volumes } from './volumes.ts';
import type { ConnectionParts } from './ws.ts';

export interface Assembled extends ConnectionParts {
  readonly locks: HttpLocks;
  /** Ends the timers; sessions stay as they are, in the store. */
  stop(): void;
}

/** Loads what the store has. Throws GateError. */
export async function assemble(settings: Settings, store: Store): Promise<Assembled> {
  const startedMs = settings.clock.nowMs();
  const state = await loadState(settings, store, { sessions: () => sessions.size });
  const volumes = new Volumes(state);
  const sessions: Sessions = new Sessions(state);
  const delegations = new Delegations(state, sessions);
  const locks = new HttpLocks(state, volumes, delegations);
  state.onEffect = (effect) => {
    sessions.deliver(effect);
    locks.deliver(effect);
  };
  return {
    state,
    sessions,
    volumes,
    hub: state.parts.hub,
    delegations,
    locks,
    validator: new Validator(settings.limits),
    brokerId: newId('brk'),
    startedMs,
    stop() {
      sessions.stop();
      delegations.stop();
    },
  };
}
