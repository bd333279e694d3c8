/** What the fuzzers share: chance from a seed, and values that somebody hostile would send. */

export type Random = () => number;

/** mulberry32: the same numbers for the same seed, 0 to 1. */
export function generator(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `GATE_SEED`, or the test's own. */
export function seedOf(fallback: number): number {
  return Number(process.env.GATE_SEED ?? fallback);
}

export function pick<T>(random: Random, from: readonly T[]): T {
  return from[Math.floor(random() * from.length)]!;
}

export function below(random: Random, limit: number): number {
  return Math.floor(random() * limit);
}

const STRANGE: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  2 ** 31,
  2 ** 53,
  -(2 ** 63),
  1e308,
  '',
  '0',
  '..',
  '/',
  'a/../b',
  '/a//b/',
  'a\0b',
  '\ud800',
  '\udcff\udc80',
  '__proto__',
  'constructor',
  'é'.repeat(300),
  'x'.repeat(5000),
  [],
  {},
  [[]],
  [null],
  { length: 1e9 },
];

function strange(random: Random): unknown {
  return structuredClone(pick(random, STRANGE));
}

/** `value` with one to three places changed: another value, a field less, a field more, a value from elsewhere. */
export function mutated(random: Random, value: unknown): unknown {
  const copy = structuredClone({ value });
  for (let times = 1 + below(random, 3); times > 0; times--) mutate(random, copy);
  return copy.value;
}

function mutate(random: Random, at: Record<string, unknown>): void {
  const keys = Object.keys(at);
  const key = keys.length === 0 ? 'x' : pick(random, keys);
  const inner = at[key];
  if (typeof inner === 'object' && inner !== null && random() < 0.7)
    return mutate(random, inner as Record<string, unknown>);
  const what = random();
  if (what < 0.6) at[key] = strange(random);
  else if (what < 0.75 && !('value' in at && keys.length === 1)) delete at[key];
  else if (what < 0.9 && Array.isArray(at)) at.push(strange(random));
  else if (what < 0.9) at[JSON.stringify(strange(random)).slice(0, 40)] = strange(random);
  else if (typeof inner === 'string') at[key] = inner.repeat(1 + below(random, 50)).slice(0, 100_000);
}

export function bytes(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => below(random, 256)));
}
