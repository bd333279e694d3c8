/**
 * The one registry of errors. Every refusal that leaves a process of Gate, over HTTP, over the session
 * protocol or as an errno, is one of these, so that the same thing has the same name everywhere.
 *
 * A message to a person says what happened, on which file, who is in the way, and what to do next.
 */

export interface ErrorKind {
  /** HTTP status of the answer. */
  readonly status: number;
  /** Name of the errno that a program in the view sees. */
  readonly errno: string;
  /** What the person who reads it can do. */
  readonly hint: string;
}

export const ERRORS = {
  invalid_request: { status: 400, errno: 'EINVAL', hint: 'Correct the named field and send it again.' },
  unauthorized: { status: 401, errno: 'EACCES', hint: 'Send the bearer token from <state>/token.' },
  forbidden: { status: 403, errno: 'EACCES', hint: 'Use the Unix socket, or an allowed Origin and Host.' },
  owner_mismatch: { status: 403, errno: 'EACCES', hint: 'Only its owner releases a lock.' },
  not_found: { status: 404, errno: 'ENOENT', hint: 'It was released, has expired, or never existed.' },
  timeout: { status: 408, errno: 'EAGAIN', hint: '`gate who PATH` says who holds it.' },
  cancelled: { status: 409, errno: 'EINTR', hint: 'The waiter gave up.' },
  deadlock: { status: 409, errno: 'EDEADLK', hint: 'Close what you hold, then try again.' },
  conflict: { status: 409, errno: 'EBUSY', hint: 'Somebody holds it; `gate who PATH` says who.' },
  session_lost: { status: 410, errno: 'ESTALE', hint: 'Open the file again.' },
  too_large: { status: 413, errno: 'E2BIG', hint: 'Send a smaller request.' },
  limit: { status: 429, errno: 'EAGAIN', hint: 'Wait for some locks to be released.' },
  stale: { status: 409, errno: 'ESTALE', hint: 'Read the file again before you write it.' },
  unavailable: { status: 503, errno: 'ENOLCK', hint: 'The broker is away; `gate status` says why.' },
  internal: { status: 500, errno: 'EIO', hint: '`gate logs` has the details; please report it.' },
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof ERRORS;

export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(ERRORS, code);
}

/** An error of the registry. `details` travels with it as JSON. */
export class GateError extends Error {
  override readonly name = 'GateError';
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(code: ErrorCode, message: string, details?: Record<string, unknown>) {
    super(message);
    this.code = code;
    this.details = details;
  }

  get status(): number {
    return ERRORS[this.code].status;
  }

  get errno(): string {
    return ERRORS[this.code].errno;
  }

  get hint(): string {
    return ERRORS[this.code].hint;
  }
}
