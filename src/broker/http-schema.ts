/** The edge of the HTTP door: bodies and queries, by zod. JSON null counts as absent; unknown fields are ignored. */
import { z } from 'zod';
import { GateError } from '../base/errors.ts';
import { LIMITS } from '../base/limits.ts';

const name = z.string().min(1).max(LIMITS.idChars);
// Owner and request id together make one id inside the broker.
const owner = z
  .string()
  .min(1)
  .max(LIMITS.idChars / 2 - 16);
const requestId = z
  .string()
  .min(1)
  .max(LIMITS.idChars / 2 - 16);
const durationMs = z.number().nonnegative().max(Number.MAX_SAFE_INTEGER);
const leaseMs = z.number().positive().max(Number.MAX_SAFE_INTEGER);
const path = z.string().min(1);
const mode = z.enum(['read', 'write', 'replace']);
const scope = z.enum(['file', 'tree']);

export const acquireBody = z
  .object({
    path: path.optional(),
    mode: mode.optional(),
    scope: scope.optional(),
    targets: z
      .array(z.object({ path, mode, scope: scope.optional() }))
      .min(1)
      .max(LIMITS.targetsPerRequest)
      .optional(),
    owner,
    volume: name.optional(),
    timeout_ms: durationMs.optional(),
    lease_ms: leaseMs.optional(),
    max_hold_ms: leaseMs.optional(),
    request_id: requestId.optional(),
    reason: z.string().max(LIMITS.textChars).optional(),
  })
  .superRefine((body, context) => {
    if (body.targets) return;
    if (body.path === undefined) context.addIssue({ code: 'custom', path: ['path'], message: 'is required' });
    if (body.mode === undefined) context.addIssue({ code: 'custom', path: ['mode'], message: 'is required' });
  });
export const releaseBody = z.object({ lock_id: name, owner });
export const heartbeatBody = z.object({ lock_id: name, owner, lease_ms: leaseMs.optional() });
export const breakBody = z.object({ lock_id: name });

const count = z.coerce.number().int().positive();
export const statusQuery = z.object({ path, volume: name.optional(), scope: scope.optional() });
export const historyQuery = z.object({
  path: path.optional(),
  volume: name.optional(),
  limit: count.optional(),
});
export const eventsQuery = z.object({ volume: name.optional() });

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value).filter(([, inner]) => inner !== null);
  return Object.fromEntries(kept.map(([key, inner]) => [key, withoutNulls(inner)]));
}

/** Throws `invalid_request` (`limit` for too many targets), naming the first wrong field. */
export function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(withoutNulls(value ?? {}));
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.reduce<string>(
    (text, part) =>
      typeof part === 'number' ? `${text}[${part}]` : text === '' ? String(part) : `${text}.${String(part)}`,
    '',
  );
  const code = field === 'targets' && issue.code === 'too_big' ? 'limit' : 'invalid_request';
  throw new GateError(code, `${field || 'body'}: ${issue.message}`, { field: field || 'body' });
}
