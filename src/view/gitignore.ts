/**
 * Patterns as git understands them (gitignore(5); dir.c and wildmatch.c of git), in time that is bounded by pattern times path: a
 * pattern comes from whoever wrote the repository, and one of a few `**` in a row, for which a backtracking matcher takes seconds,
 * would stop the view for everybody.
 *
 * Matches one name at a time. That what lies in an ignored directory is ignored, and which file of patterns goes first, is up to the caller.
 */
import { encodePath, type PathString } from '../base/bytes.ts';

/** A longer pattern is longer than any path, and matches nothing. */
const PATTERN_BYTES_MAX = 4096;

/** Patterns are matched byte by byte: strings of characters up to U+00FF. */
type Bytes = string;

/** One step of a compiled pattern: a byte, any byte but a slash, a set, a run without slashes, a run with them. */
type Step =
  | { readonly on: 'byte'; readonly byte: number }
  | { readonly on: 'any' }
  | { readonly on: 'set'; readonly has: Uint8Array }
  | { readonly on: 'run' }
  /** `skips`: it was followed by a slash, and both together may be nothing. */
  | { readonly on: 'deep'; readonly skips: boolean };

interface Rule {
  readonly index: number;
  readonly unignores: boolean;
  readonly directoriesOnly: boolean;
  /** Compared with the name alone; else with the path. */
  readonly nameOnly: boolean;
  /** What it begins with, without any special character. */
  readonly literal: Bytes;
  /** What follows; empty: nothing does. */
  readonly rest: Bytes;
  /** When it is compared with the name, and one star is all that is special in it: what follows the star. */
  readonly ending: Bytes | null;
  /** Of `rest`, compiled when it is first needed; null: it matches nothing. */
  steps: readonly Step[] | null | undefined;
}

export type Verdict = 'ignored' | 'unignored';

export class IgnoreRules {
  /** Rules that are one plain name, by that name, in order. */
  readonly #plain = new Map<Bytes, Rule[]>();
  /** All others, in order. */
  readonly #others: Rule[] = [];

  /** `text`: a file of patterns. */
  constructor(text: PathString) {
    const lines = bytesOf(text.startsWith('\ufeff') ? text.slice(1) : text).split('\n');
    for (const [index, line] of lines.entries()) this.#add(index, line);
  }

  #add(index: number, line: Bytes): void {
    const rule = parseRule(index, line);
    if (rule === null) return;
    if (!rule.nameOnly || rule.rest !== '') {
      this.#others.push(rule);
      return;
    }
    const same = this.#plain.get(rule.literal);
    if (same === undefined) this.#plain.set(rule.literal, [rule]);
    else same.push(rule);
  }

  /** What the last pattern that matches says of `path`, relative to the file of patterns; undefined: none does. */
  test(path: PathString, directory: boolean): Verdict | undefined {
    const bytes = bytesOf(path);
    const name = bytes.slice(bytes.lastIndexOf('/') + 1);
    const plain = this.#plain.get(name)?.findLast((rule) => directory || !rule.directoriesOnly);
    let last = plain;
    for (let i = this.#others.length - 1; i >= 0; i--) {
      const rule = this.#others[i]!;
      if (plain !== undefined && rule.index < plain.index) break;
      if (rule.directoriesOnly && !directory) continue;
      if (!matches(rule, rule.nameOnly ? name : bytes)) continue;
      last = rule;
      break;
    }
    return last === undefined ? undefined : last.unignores ? 'unignored' : 'ignored';
  }
}

function bytesOf(text: PathString): Bytes {
  return /^[\0-\x7f]*$/.test(text) ? text : encodePath(text).toString('latin1');
}

function parseRule(index: number, line: Bytes): Rule | null {
  if (line.startsWith('#') || line.length > PATTERN_BYTES_MAX) return null;
  let pattern = withoutTrailingSpaces(line.endsWith('\r') ? line.slice(0, -1) : line);
  const unignores = pattern.startsWith('!');
  if (unignores) pattern = pattern.slice(1);
  const directoriesOnly = pattern.endsWith('/');
  if (directoriesOnly) pattern = pattern.slice(0, -1);
  if (pattern === '') return null;
  const nameOnly = !pattern.includes('/');
  if (pattern.startsWith('/')) pattern = pattern.slice(1);
  const special = pattern.search(/[*?[\\]/);
  const literal = special < 0 ? pattern : pattern.slice(0, special);
  const rest = special < 0 ? '' : pattern.slice(special);
  const ending = nameOnly && /^\*[^*?[\\]*$/.test(rest) ? rest.slice(1) : null;
  return { index, unignores, directoriesOnly, nameOnly, literal, rest, ending, steps: undefined };
}

/** Spaces at the end count only after a backslash. */
function withoutTrailingSpaces(line: Bytes): Bytes {
  let end = 0;
  for (let i = 0; i < line.length; i++) {
    if (line[i] === '\\') end = Math.min((i += 1) + 1, line.length);
    else if (line[i] !== ' ') end = i + 1;
  }
  return line.slice(0, end);
}

function matches(rule: Rule, text: Bytes): boolean {
  if (rule.rest === '') return text === rule.literal;
  if (!text.startsWith(rule.literal)) return false;
  if (rule.ending !== null)
    return text.endsWith(rule.ending) && text.length >= rule.literal.length + rule.ending.length;
  if (rule.steps === undefined) rule.steps = compile(rule.rest, !rule.nameOnly);
  return rule.steps !== null && runs(rule.steps, text, rule.literal.length);
}

const SLASH = 0x2f;

/** The steps of a pattern; null: it is malformed, and matches nothing. `paths`: a star stops at slashes. */
function compile(pattern: Bytes, paths: boolean): Step[] | null {
  const steps: Step[] = [];
  for (let i = 0; i < pattern.length; ) {
    const c = pattern[i]!;
    if (c === '*') {
      let end = i;
      while (pattern[end] === '*') end++;
      const alone = i === 0 || pattern[i - 1] === '/';
      const bounded =
        end === pattern.length || pattern[end] === '/' || (pattern[end] === '\\' && pattern[end + 1] === '/');
      const deep = paths && end - i > 1 && alone && bounded;
      steps.push(deep ? { on: 'deep', skips: pattern[end] === '/' } : { on: 'run' });
      i = end;
    } else if (c === '?') {
      steps.push({ on: 'any' });
      i++;
    } else if (c === '[') {
      const set = parseSet(pattern, i);
      if (set === null) return null;
      steps.push({ on: 'set', has: set.has });
      i = set.end;
    } else {
      const at = c === '\\' ? i + 1 : i;
      if (at === pattern.length) return null;
      steps.push({ on: 'byte', byte: pattern.charCodeAt(at) });
      i = at + 1;
    }
  }
  return steps;
}

/** POSIX classes of ASCII, as git's own ctype has them (sane-ctype.h). */
const CLASSES: Readonly<Record<string, RegExp>> = {
  alnum: /[0-9A-Za-z]/,
  alpha: /[A-Za-z]/,
  blank: /[ \t]/,
  cntrl: /[\0-\x1f\x7f]/,
  digit: /[0-9]/,
  graph: /[!-~]/,
  lower: /[a-z]/,
  print: /[ -~]/,
  punct: /[!-/:-@[-`{-~]/,
  space: /[ \t\n\r]/,
  upper: /[A-Z]/,
  xdigit: /[0-9A-Fa-f]/,
};

/** A bracket expression from its `[`: the bytes in it, and where it ends. As the loop in wildmatch.c, member by member. */
function parseSet(pattern: Bytes, start: number): { has: Uint8Array; end: number } | null {
  const has = new Uint8Array(256);
  let i = start + 1;
  const negated = pattern[i] === '!' || pattern[i] === '^';
  if (negated) i++;
  /** Where a range could start. 0: nowhere. */
  let before = 0;
  for (let first = true; first || pattern[i] !== ']'; i++, first = false) {
    const c = pattern[i];
    if (c === undefined) return null;
    if (c === '-' && before !== 0 && i + 1 < pattern.length && pattern[i + 1] !== ']') {
      if (pattern[++i] === '\\') i++;
      if (i >= pattern.length) return null;
      for (let byte = before; byte <= pattern.charCodeAt(i); byte++) has[byte] = 1;
      before = 0;
    } else if (c === '[' && pattern[i + 1] === ':') {
      const close = pattern.indexOf(']', i + 2);
      if (close < 0) return null;
      if (close - 1 < i + 2 || pattern[close - 1] !== ':') {
        before = c.charCodeAt(0);
        has[before] = 1;
        continue;
      }
      const of = CLASSES[pattern.slice(i + 2, close - 1)];
      if (of === undefined) return null;
      for (let byte = 0; byte < 128; byte++) if (of.test(String.fromCharCode(byte))) has[byte] = 1;
      i = close;
      before = 0;
    } else {
      if (c === '\\') i++;
      if (i >= pattern.length) return null;
      before = pattern.charCodeAt(i);
      has[before] = 1;
    }
  }
  if (negated) for (let byte = 0; byte < 256; byte++) has[byte] = 1 - has[byte]!;
  has[SLASH] = 0;
  return { has, end: i + 1 };
}

/** A step may take the next byte. */
const REACHED = 1;
/** And it was come to anew: a `**` and its slash may still be nothing. */
const ENTERED = 2;

const sets = [new Uint8Array(PATTERN_BYTES_MAX + 1), new Uint8Array(PATTERN_BYTES_MAX + 1)] as const;

/** True when the steps match all of `text` from `from` on: all ways at once, so that no way is gone twice. */
function runs(steps: readonly Step[], text: Bytes, from: number): boolean {
  let now = sets[0].fill(0, 0, steps.length + 1);
  let next = sets[1].fill(0, 0, steps.length + 1);
  enter(steps, now, 0);
  for (let at = from; at < text.length; at++) {
    const byte = text.charCodeAt(at);
    let alive = false;
    for (let i = 0; i < steps.length; i++) {
      if (now[i] === 0) continue;
      const step = steps[i]!;
      const stays = step.on === 'deep' || (step.on === 'run' && byte !== SLASH);
      if (stays) next[i]! |= REACHED;
      else if (!accepts(step, byte)) continue;
      enter(steps, next, i + 1);
      alive = true;
    }
    if (!alive) return false;
    [now, next] = [next, now];
    next.fill(0, 0, steps.length + 1);
  }
  return now[steps.length] !== 0;
}

function accepts(step: Step, byte: number): boolean {
  if (step.on === 'byte') return step.byte === byte;
  if (step.on === 'any') return byte !== SLASH;
  return step.on === 'set' && step.has[byte] === 1;
}

/** Comes to a step, and to those after it that need no byte. */
function enter(steps: readonly Step[], reached: Uint8Array, from: number): void {
  for (let i = from; (reached[i]! & ENTERED) === 0; i++) {
    reached[i] = REACHED | ENTERED;
    const step = steps[i];
    if (step === undefined || (step.on !== 'run' && step.on !== 'deep')) return;
    if (step.on === 'deep' && step.skips) enter(steps, reached, i + 2);
  }
}
