/** A step towards a virtual machine that failed: which one, why, and what the person can do. */
export class VmError extends Error {
  override readonly name = 'VmError';
  readonly hint: string | undefined;
  /** Lines that explain it: the end of the serial console, or of a program's output. */
  readonly detail: readonly string[];

  constructor(message: string, more: { hint?: string; detail?: readonly string[] } = {}) {
    super(message);
    this.hint = more.hint;
    this.detail = more.detail ?? [];
  }
}
