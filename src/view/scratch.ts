import { StatBuf } from '../sys/index.ts';

/** One stat buffer for all: read it before the next call into the tree. The view runs on one thread. */
export const scratch = new StatBuf();
