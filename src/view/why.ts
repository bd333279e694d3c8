const PER_OWNER_MAX = 20;
const OWNERS_MAX = 1000;

/** The last refusals of each actor, in words: `/.gate/why` shows the asker its own. */
export class WhyLog {
  readonly #byOwner = new Map<string, { atMs: number; text: string }[]>();

  add(owner: string, atMs: number, text: string): void {
    let lines = this.#byOwner.get(owner);
    if (lines === undefined) lines = [];
    else this.#byOwner.delete(owner);
    this.#byOwner.set(owner, lines);
    lines.push({ atMs, text });
    if (lines.length > PER_OWNER_MAX) lines.shift();
    if (this.#byOwner.size > OWNERS_MAX) this.#byOwner.delete(this.#byOwner.keys().next().value!);
  }

  text(owner: string, nowMs: number): string {
    const lines = this.#byOwner.get(owner) ?? [];
    if (lines.length === 0) return 'Nothing was refused to you.\n';
    return lines.map((l) => `${Math.round((nowMs - l.atMs) / 1000)} s ago: ${l.text}\n`).join('');
  }
}
