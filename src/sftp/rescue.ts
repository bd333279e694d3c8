/** The server's thread for what would be lost. Nobody remembers names here. */
import { serveRescues } from '../view/lost/rescue.ts';

serveRescues(() => {});
