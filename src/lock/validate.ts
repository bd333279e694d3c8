import { GateError } from '../base/errors.ts';
import { checkPathLength, isNormalised } from './paths.ts';
import type { AcquireRequest, Target } from './types.ts';

/** The limits that the core enforces; `LIMITS` in base/limits.ts has the values. */
export interface LockLimits {
  readonly targetsPerRequest: number;
  readonly waitersPerKey: number;
  readonly locksPerSession: number;
  readonly idChars: number;
}

function invalid(field: string, problem: string): never {
  throw new GateError('invalid_request', `${field}: ${problem}`, { field });
}

function checkId(value: unknown, field: string, limits: LockLimits): void {
  if (typeof value !== 'string' || value === '') invalid(field, 'must be a string that is not empty');
  if ((value as string).length > limits.idChars) invalid(field, `longer than ${limits.idChars} characters`);
}

function checkMs(value: unknown, field: string, least: number): void {
  if (value === null || (typeof value === 'number' && value >= least && Number.isFinite(value))) return;
  invalid(field, `must be null or a number of milliseconds, at least ${least}`);
}

export function checkPath(path: unknown, field: string): void {
  if (typeof path !== 'string') invalid(field, 'must be a string');
  if (!isNormalised(path as string)) invalid(field, 'must be normalised (no NUL, no ., .. or empty names)');
  checkPathLength(path as string, field);
}

export function checkTarget(target: Target, field: string): void {
  checkPath(target.path, `${field}.path`);
  if (target.mode !== 'read' && target.mode !== 'write' && target.mode !== 'replace')
    invalid(`${field}.mode`, 'must be read, write or replace');
  if (target.scope !== 'file' && target.scope !== 'tree') invalid(`${field}.scope`, 'must be file or tree');
}

export function checkTargets(targets: readonly Target[], limits: LockLimits): void {
  if (!Array.isArray(targets) || targets.length === 0) invalid('targets', 'at least one is needed');
  if (targets.length > limits.targetsPerRequest)
    throw new GateError('limit', `targets: more than ${limits.targetsPerRequest}`, { field: 'targets' });
  for (let i = 0; i < targets.length; i++) checkTarget(targets[i]!, `targets[${i}]`);
}

/** Throws `invalid_request` or `limit`, naming the field, when a request is not what types.ts says. */
export function checkRequest(request: AcquireRequest, limits: LockLimits): void {
  checkId(request.requestId, 'requestId', limits);
  checkId(request.session, 'session', limits);
  checkId(request.volume, 'volume', limits);
  checkId(request.owner, 'owner', limits);
  if (request.kind !== 'name' && request.kind !== 'handle') invalid('kind', 'must be name or handle');
  checkMs(request.waitMs, 'waitMs', 0);
  checkMs(request.leaseMs, 'leaseMs', 1);
  checkMs(request.holdCapMs, 'holdCapMs', 0);
  checkTargets(request.targets, limits);
}

export { checkMs };
