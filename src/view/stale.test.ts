import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Actor, ViewClock } from './actors.ts';
import { STALE_LIMITS, StaleWrites } from './stale.ts';

class Clock implements ViewClock {
  at = 1_000_000;
  nowMs(): number {
    return this.at;
  }
  after(): { cancel(): void } {
    throw new Error('nothing waits here');
  }
}

function agent(name: string, pid: number, names?: string[]): Actor {
  const of = { main: names === undefined, names: names ?? [] };
  return { owner: `0/${name}`, pid, who: { command: name }, agent: of };
}

function plain(pid: number): Actor {
  return { owner: `0/pid:${pid}.1`, pid, who: { command: 'vi' } };
}

test('who saw the last version, or made it, or never saw any, may write', () => {
  const stale = new StaleWrites('auto', new Clock());
  const [alice, bob] = [agent('alice', 1), agent('bob', 2)];
  assert.equal(stale.check(alice, 'f', 'v1'), null, 'never seen');
  stale.opened(alice, 'f', 'v1');
  assert.equal(stale.check(alice, 'f', 'v1'), null);
  stale.wrote(agent('alice', 7, []), 'f', 'v2');
  assert.equal(stale.check(alice, 'f', 'v2'), null, 'a tool of its own wrote it');
  stale.wrote(bob, 'f', 'v3');
  const verdict = stale.check(alice, 'f', 'v3')!;
  assert.deepEqual([verdict.deny, verdict.whose, verdict.again], [true, '0/bob', false]);
  stale.opened(alice, 'f', 'v3');
  assert.equal(stale.check(alice, 'f', 'v3'), null);
});

test('a tool sees for its agent what its command line names, and for itself whatever it reads', () => {
  const stale = new StaleWrites('auto', new Clock());
  const tool = agent('alice', 8, ['b']);
  stale.opened(tool, 'a/b', 'v1');
  stale.opened(tool, 'c', 'v1');
  assert.ok(stale.check(agent('alice', 1), 'a/b', 'v2'));
  assert.equal(stale.check(agent('alice', 1), 'c', 'v2'), null);
  assert.ok(stale.check(tool, 'c', 'v2'));
});

test('a refusal that comes twice, because the kernel asks twice, is told once; a later one is new', () => {
  const clock = new Clock();
  const stale = new StaleWrites('deny', clock);
  stale.opened(plain(3), 'f', 'v1');
  assert.equal(stale.check(plain(3), 'f', 'v2')!.again, false);
  assert.equal(stale.check(plain(3), 'f', 'v2')!.again, true);
  assert.equal(stale.check(plain(3), 'f', 'v3')!.again, false);
  clock.at += 1000;
  assert.equal(stale.check(plain(3), 'f', 'v3')!.again, false);
});

test('auto refuses agents only; deny everybody; warn nobody', () => {
  const denied = (policy: 'auto' | 'deny' | 'warn', actor: Actor): boolean => {
    const stale = new StaleWrites(policy, new Clock());
    stale.opened(actor, 'f', 'v1');
    return stale.check(actor, 'f', 'v2')!.deny;
  };
  assert.deepEqual(
    (['auto', 'deny', 'warn'] as const).map((p) => [denied(p, agent('a', 1)), denied(p, plain(2))]),
    [
      [true, false],
      [true, true],
      [false, false],
    ],
  );
});

test('what was seen longest ago is forgotten; an agent remembers whatever other processes read', () => {
  const stale = new StaleWrites('auto', new Clock());
  const alice = agent('alice', 1);
  stale.opened(alice, 'f', 'v1');
  for (let i = 0; i <= STALE_LIMITS.processes; i++) stale.opened(plain(3), `p${i}`, 'v1');
  assert.equal(stale.check(plain(3), 'p0', 'v2'), null);
  assert.ok(stale.check(plain(3), 'p1', 'v2'));
  assert.ok(stale.check(alice, 'f', 'v2'));
  for (let i = 0; i < STALE_LIMITS.agents; i++) stale.opened(alice, `a${i}`, 'v1');
  assert.equal(stale.check(alice, 'f', 'v2'), null);
});
