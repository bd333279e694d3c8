/** What a command knows of the world around it. Only main.ts reads it from the process. */
export interface Context {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
  readonly uid: number;
  readonly stdoutIsTerminal: boolean;
  readonly stderrIsTerminal: boolean;
}

/** Exit statuses: 0 done, 1 failed, 2 usage, 75 gave up waiting (EX_TEMPFAIL, sysexits.h). */
export const EXIT = { done: 0, failed: 1, usage: 2, gaveUp: 75 } as const;

/** A refusal in words for a person: what happened, and what to do next. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exit: number;
  readonly hint: string | undefined;
  /** Lines that explain it: the end of a log. */
  readonly detail: readonly string[];

  constructor(message: string, options: { exit?: number; hint?: string; detail?: readonly string[] } = {}) {
    super(message);
    this.exit = options.exit ?? EXIT.failed;
    this.hint = options.hint;
    this.detail = options.detail ?? [];
  }
}

export function usage(message: string, hint?: string): CliError {
  return new CliError(message, { exit: EXIT.usage, hint });
}
