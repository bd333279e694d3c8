/** What the outside observer of crash-play.ts writes down, and what it finds wrong. Knows nothing of how Gate works. */
import { BLOCKS } from './crash-worker.ts';

export interface Line {
  readonly op: string;
  readonly t: number;
  readonly file?: string;
  readonly name?: string;
  readonly found?: readonly string[];
  readonly error?: string;
  readonly at?: string;
  readonly what?: string;
  /** Of a refusal: what the view says of it. */
  readonly why?: string;
  readonly ino?: number;
}

/** Sections of the files, in the order in which each worker told of them. */
export class FileBooks {
  readonly ended = new Map<string, string>();
  readonly #seen = new Set<string>();
  readonly #looks: { file: string; found: readonly string[]; by: string }[] = [];
  sections = 0;
  reads = 0;

  add(line: Line): void {
    if (line.op === 'end') {
      this.sections++;
      this.ended.set(line.name!, line.file!);
    } else if (line.op === 'begin' || line.op === 'found') {
      if (line.op === 'found') this.reads++;
      this.#looks.push({ file: line.file!, found: line.found!, by: line.name ?? 'a reader' });
      for (const name of line.found!) this.#seen.add(name);
    }
  }

  /**
   * After everybody has stopped: `left` is what the files contain now and what is kept. Whoever finished a section must be found by
   * the next one, or be there still. Two sections in one file: the first blocks are of one that never finished.
   */
  judge(left: readonly { readonly file: string; readonly found: readonly string[] }[]): string[] {
    const wrong: string[] = [];
    const looks = [...this.#looks, ...left.map((each) => ({ ...each, by: 'the end' }))];
    for (const { file, found, by } of looks) {
      if (found.length !== BLOCKS || found.includes('torn block'))
        wrong.push(`${file}: ${by} found ${found.join(' ')}`);
      for (let i = 0; i + 1 < found.length; i++) {
        const [here, next] = [found[i]!, found[i + 1]!];
        const finished = this.ended.has(here);
        if (here !== next && (finished || file.startsWith('r')))
          wrong.push(`${file}: ${by} found ${next} behind ${here}, which had written all of it`);
      }
    }
    const there = new Set([...this.#seen, ...left.flatMap(({ found }) => found)]);
    for (const [name, file] of this.ended)
      if (!there.has(name)) wrong.push(`${file}: what ${name} wrote was never seen again`);
    return wrong;
  }
}

interface Wait {
  readonly key: string;
  readonly who: string;
  readonly sent: number;
  queued: number | undefined;
}

/** Acknowledged grants and queue places of name locks. */
export class LockBooks {
  readonly wrong: string[] = [];
  readonly #holders = new Map<string, string>();
  readonly #waits = new Set<Wait>();
  readonly #tokens = new Map<number, string>();
  readonly #lastToken = new Map<string, number>();
  #events = 0;
  grants = 0;

  asks(key: string, who: string): Wait {
    const wait: Wait = { key, who, sent: ++this.#events, queued: undefined };
    this.#waits.add(wait);
    return wait;
  }

  queued(wait: Wait): void {
    wait.queued ??= ++this.#events;
  }

  granted(wait: Wait, token: number): void {
    const { key, who } = wait;
    this.grants++;
    this.#waits.delete(wait);
    const holder = this.#holders.get(key);
    if (holder !== undefined) this.wrong.push(`${key} was given to ${who} while ${holder} held it`);
    this.#holders.set(key, who);
    for (const other of this.#waits)
      if (other.key === key && other.queued !== undefined && other.queued < wait.sent)
        this.wrong.push(`${key}: ${who} overtook ${other.who}, whose place had been acknowledged`);
    const before = this.#tokens.get(token);
    if (before !== undefined) this.wrong.push(`token ${token} was given to ${before} and to ${who}`);
    this.#tokens.set(token, who);
    const last = this.#lastToken.get(key) ?? 0;
    if (token <= last) this.wrong.push(`${key}: token ${token} came after ${last}`);
    this.#lastToken.set(key, token);
  }

  /** Before the release is sent, or when it was lost. */
  gone(key: string, who: string): void {
    if (this.#holders.get(key) === who) this.#holders.delete(key);
  }

  gaveUp(wait: Wait): void {
    this.#waits.delete(wait);
  }
}
