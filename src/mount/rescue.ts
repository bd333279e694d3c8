/** The mount's thread for what would be lost. */
import { workerData } from 'node:worker_threads';
import { encodeInvalEntry } from '../fuse/index.ts';
import * as sys from '../sys/index.ts';
import { serveRescues } from '../view/lost/rescue.ts';
import type { RescueData } from '../view/lost/rescuer.ts';

const { fuseFd } = workerData as RescueData;
serveRescues((parentId, name) => sys.write(fuseFd, encodeInvalEntry(parentId, name)));
