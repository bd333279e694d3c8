/** The lock core's public door. core.ts opens with what it is for and what it does not promise. */

export { contains, overlaps } from './conflict.ts';
export { LockCore, type LockCoreOptions } from './core.ts';
export { isBelow, isNormalised, normalisePath, parentOf } from './paths.ts';
export type { LockStats, LockStatus } from './queries.ts';
export { type Region, RegionSet, regionOf } from './regions.ts';
export type * from './types.ts';
export type { LockLimits } from './validate.ts';
