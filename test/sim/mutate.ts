/** Plants a mutant: changes one file of the source as it is loaded. Import it before anything of src/. */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import type { Mutant } from './mutants.ts';

const SRC = new URL('../../src/', import.meta.url).href;

export function mutated({ name, file, find, replace }: Mutant): string {
  const source = readFileSync(new URL(file, SRC), 'utf8');
  const parts = source.split(find);
  if (parts.length !== 2)
    throw new Error(
      `The mutant "${name}" finds its place in src/${file} ${parts.length - 1} times, not once.`,
    );
  return parts.join(replace);
}

export function plant(mutant: Mutant): void {
  const source = mutated(mutant);
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context);
      return url === `${SRC}${mutant.file}` ? { ...loaded, source } : loaded;
    },
  });
}
