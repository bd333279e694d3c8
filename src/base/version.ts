import { readFileSync } from 'node:fs';

/** The clone's own folder. */
export const projectDir: string = new URL('../..', import.meta.url).pathname.replace(/\/$/, '');

/** The version in package.json. */
export function version(): string {
  const text = readFileSync(`${projectDir}/package.json`, 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
