/**
 * What happens on the way to a virtual machine, as steps. Each is a line of JSON in the machine's event log, and told to
 * whoever waits: a step that begins, how far it is, that it is done or failed.
 */
import type { Effects } from './effects.ts';
import { VmError } from './errors.ts';

export interface StepEvent {
  /** ISO 8601. */
  readonly time: string;
  /** `build the image`. */
  readonly step: string;
  readonly state: 'begins' | 'goes on' | 'done' | 'failed' | 'note';
  readonly text?: string;
  readonly ms?: number;
}

export type Listener = (event: StepEvent) => void;

export class Journal {
  readonly #effects: Effects;
  readonly #listener: Listener;
  #path: string | undefined;
  #early: string[] = [];

  constructor(effects: Effects, listener: Listener) {
    this.#effects = effects;
    this.#listener = listener;
  }

  /** From now on events go to this file, too; those that came before as well. */
  writeTo(path: string): void {
    this.#path = path;
    if (this.#early.length) this.#effects.append(path, this.#early.join(''));
    this.#early = [];
  }

  #tell(event: Omit<StepEvent, 'time'>): void {
    const whole = { time: new Date(this.#effects.clock.wallMs()).toISOString(), ...event };
    const line = `${JSON.stringify(whole)}\n`;
    if (this.#path === undefined) this.#early.push(line);
    else this.#effects.append(this.#path, line);
    this.#listener(whole);
  }

  note(text: string): void {
    this.#tell({ step: '', state: 'note', text });
  }

  /**
   * One step. `work` may say how far it is; it gives its result, and what to say when it is done (null: nothing worth a line).
   * A failure is told with the step's name.
   */
  async step<T>(
    step: string,
    work: (goesOn: (text: string) => void) => Promise<{ value: T; said: string | null }>,
  ): Promise<T> {
    const startMs = this.#effects.clock.nowMs();
    const ms = () => Math.round(this.#effects.clock.nowMs() - startMs);
    this.#tell({ step, state: 'begins' });
    try {
      const { value, said } = await work((text) => this.#tell({ step, state: 'goes on', text, ms: ms() }));
      this.#tell({ step, state: 'done', text: said ?? undefined, ms: ms() });
      return value;
    } catch (error) {
      this.#tell({ step, state: 'failed', text: (error as Error).message, ms: ms() });
      if (error instanceof VmError) throw error;
      throw new VmError(`${step}: ${(error as Error).message}`);
    }
  }
}
