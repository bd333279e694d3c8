/** What a view's thread and the thread that does its rescues say to each other. */
import type { CopyJob } from '../sweeps.ts';
import type { FreshJob } from '../unclean.ts';

export type RescueJob =
  | ({ readonly job: 'fresh' } & FreshJob)
  | ({ readonly job: 'copy' } & CopyJob)
  /** Something was kept by the view itself: it is to be watched, and counted. */
  | { readonly job: 'added'; readonly kept: string }
  /** Finds every file that somebody can write to. */
  | { readonly job: 'writers' };

/** Of a rescue: what went wrong, or null; of `writers` also the paths. */
export interface Rescued {
  readonly error: string | null;
  readonly paths?: readonly string[];
  /** What everything that is kept took on the disk, when it was last counted. */
  readonly bytes?: number;
}

/** The main thread to the thread that does the rescues, and back. */
export interface ToRescue {
  readonly id: number;
  readonly job: RescueJob;
}
export type FromRescue =
  | { readonly t: 'rescued'; readonly id: number; readonly result: Rescued }
  | {
      readonly t: 'note';
      readonly path: string;
      readonly what: string;
      readonly owner: string;
      readonly message: string;
      readonly whose?: string | undefined;
    }
  | {
      readonly t: 'log';
      readonly level: 'debug' | 'info' | 'warn' | 'error';
      readonly message: string;
    };
