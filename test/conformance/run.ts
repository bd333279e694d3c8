/**
 * The POSIX conformance suite: named checks that run on any directory of any file system.
 *
 *   node test/conformance/run.ts [--json] DIR [PATTERN [BENEATH]]
 *
 * prints a line a check, and ends with status 1 when one failed. DIR gets a folder of its own, which is removed. BENEATH: where
 * DIR is stored, when it is a view; some checks need many files, and make them there. In a view run it with
 * GATE_ACTOR=conformance: the checks are about POSIX, and their processes must not wait for each other's locks.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { attributes } from './attributes.ts';
import { data } from './data.ts';
import { type Checks, Skipped } from './kit.ts';
import { names } from './names.ts';
import { pages } from './pages.ts';
import { processes } from './processes.ts';
import { users } from './users.ts';

export const topics: Readonly<Record<string, Checks>> = { names, data, pages, attributes, users, processes };

export interface Outcome {
  readonly name: string;
  readonly result: 'passed' | 'failed' | 'skipped';
  /** Why it failed or was left out. */
  readonly detail: string;
}

/** Runs the checks whose name contains `pattern`, and reports each as it ends. */
export async function runChecks(
  dir: string,
  pattern: string,
  beneath: string,
  report: (outcome: Outcome) => void,
): Promise<void> {
  const home = mkdtempSync(join(dir, 'conformance-'));
  chmodSync(home, 0o755);
  let next = 1;
  try {
    for (const [topic, checks] of Object.entries(topics))
      for (const [title, check] of Object.entries(checks)) {
        const name = `${topic}: ${title}`;
        if (!name.includes(pattern)) continue;
        const own = join(home, String(next++));
        mkdirSync(own);
        chmodSync(own, 0o755);
        const place = {
          dir: own,
          beneath: join(beneath, basename(home), basename(own)),
          path: (child: string) => join(own, child),
        };
        try {
          await check(place);
          report({ name, result: 'passed', detail: '' });
        } catch (error) {
          const result = error instanceof Skipped ? 'skipped' : 'failed';
          report({ name, result, detail: error instanceof Error ? error.message : String(error) });
        }
        rmSync(own, { recursive: true, force: true });
      }
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2).filter((arg) => arg !== '--json');
  const json = process.argv.includes('--json');
  const [dir, pattern = '', beneath = dir] = args;
  if (dir === undefined || beneath === undefined) {
    console.error('usage: node test/conformance/run.ts [--json] DIR [PATTERN [BENEATH]]');
    process.exit(2);
  }
  await runChecks(dir, pattern, beneath, (outcome) => {
    const { name, result, detail } = outcome;
    if (result === 'failed') process.exitCode = 1;
    const shown = detail === '' ? '' : `\n        ${detail.replaceAll('\n', '\n        ')}`;
    console.log(json ? JSON.stringify(outcome) : `${result.padEnd(8)}${name}${shown}`);
  });
}
