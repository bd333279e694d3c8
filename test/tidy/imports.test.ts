/** Who may import whom: docs/architecture.md, "The house". */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { cruise, type ICruiseResult } from 'dependency-cruiser';
import { projectDir } from '../../src/base/version.ts';

/** What each room may import besides itself and packages. Type-only imports count. */
const MAY: Readonly<Record<string, readonly string[]>> = {
  base: [],
  sys: ['base'],
  lock: ['base'],
  fuse: ['base', 'sys'],
  store: ['base', 'lock'],
  broker: ['base', 'lock', 'store', 'sys'],
  // The session protocol's words are the broker's; nothing else of it is.
  client: ['base', 'lock', 'broker/wire.ts'],
  view: ['base', 'lock', 'sys', 'client', 'broker/wire.ts'],
  // Of the remote mount's protocol the view's side knows the words and how they travel.
  mount: [
    'base',
    'lock',
    'sys',
    'client',
    'view',
    'fuse',
    'broker/wire.ts',
    'remote/wire.ts',
    'remote/stream.ts',
    'remote/link.ts',
  ],
  sftp: ['base', 'lock', 'sys', 'client', 'view', 'broker/wire.ts'],
  ssh: ['base'],
  remote: ['base', 'lock', 'sys', 'fuse', 'view', 'mount', 'ssh'],
  vm: ['base', 'sys', 'ssh'],
  cli: [
    'base',
    'sys',
    'lock',
    'fuse',
    'store',
    'broker',
    'client',
    'view',
    'mount',
    'sftp',
    'ssh',
    'remote',
    'vm',
  ],
};

const isSource = (name: string) => name.endsWith('.ts') && !name.endsWith('.test.ts');

test('rooms import only what they may, and nothing goes in circles between them', async () => {
  process.chdir(projectDir);
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter(isSource);
  const rooms = new Set(files.map((file) => file.split('/')[0]!));
  for (const room of rooms)
    assert.ok(MAY[room], `src/${room} has no rule; add one here and in docs/architecture.md`);
  const outcome = await cruise(['src'], {
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.json'] },
  });
  const { modules } = outcome.output as ICruiseResult;
  const cruised = modules.filter((module) => module.source.startsWith('src/') && isSource(module.source));
  assert.ok(cruised.length >= files.length, `cruised ${cruised.length} modules of ${files.length} files`);

  const wrong: string[] = [];
  let edges = 0;
  for (const module of cruised) {
    const room = module.source.split('/')[1]!;
    for (const dependency of module.dependencies) {
      if (!dependency.resolved.startsWith('src/')) continue;
      edges++;
      const to = dependency.resolved.slice('src/'.length);
      const allowed = [room, ...MAY[room]!].some((rule) =>
        rule.endsWith('.ts') ? to === rule : to.startsWith(`${rule}/`),
      );
      if (!allowed) wrong.push(`${module.source} imports ${dependency.resolved}`);
    }
    for (const dependency of module.dependencies)
      if (dependency.couldNotResolve) wrong.push(`${module.source}: ${dependency.module} does not resolve`);
  }
  assert.ok(edges > files.length, `only ${edges} imports between our own files were seen`);
  assert.deepEqual(wrong, []);
});
