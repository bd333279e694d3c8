/** Run as an ordinary user by session.test.ts: mounts the example through fusermount3 and says `ok`, or what is wrong. */
import fs from 'node:fs';
import path from 'node:path';
import { mountExample } from './mounted.ts';

try {
  const mount = await mountExample({ passthrough: false });
  await fs.promises.writeFile(path.join(mount.dir, 'a'), 'hi');
  const below = await fs.promises.readFile(path.join(mount.backing, 'a'), 'utf8');
  const { negotiated } = await mount.stats();
  await mount.close();
  process.stdout.write(below === 'hi' && negotiated?.passthrough === false ? 'ok' : `read ${below}`);
} catch (error) {
  process.stdout.write(String(error));
}
