/**
 * Gate as one bundle for a machine that has nothing but a kernel: our code, the packages that it needs, the pinned Node without
 * its symbols. Made from the clone that runs; a folder, and from it a tar file. The version carries a hash of all content, so that
 * host and guest can be compared; MANIFEST lists every file's hash, so that an upgrade sends only what differs.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { projectDir, version } from '../base/version.ts';
import type { Effects } from './effects.ts';
import { VmError } from './errors.ts';
import type { CacheFiles } from './names.ts';

export type Arch = 'x64' | 'arm64';

export interface Bundle {
  /** `0.1.0+0a1b2c3d4e5f`. */
  readonly version: string;
  /** The unpacked bundle: what becomes /opt/gate. */
  readonly dir: string;
}

/** Where the bundle lies in a guest, and the command there. */
export const GUEST_DIR = '/opt/gate';
export const GUEST_COMMAND = '/usr/local/bin/gate';

/** All content has this time: bundles of the same content are the same bytes. */
const MTIME_S = 1_600_000_000;
const FILE_MODES = { plain: 0o644, program: 0o755 } as const;

/** Our own files and folders that go in. */
const OURS = ['gate', 'package.json', 'package-lock.json', 'LICENSE', 'src', 'scripts', 'systems'];

function isOurs(path: string): boolean {
  return (
    !/\.test(-helper)?\.ts$/.test(path) &&
    !path.split('/').includes('testing') &&
    !/^scripts\/(bench|soak)/.test(path) &&
    path !== 'scripts/test'
  );
}

/** Files of a package that nothing runs. */
function isNeeded(name: string, path: string): boolean {
  if (/(^|\/)(LICEN[CS]E|NOTICE)/i.test(path)) return true;
  if (/\.(md|map|markdown|ya?ml)$|\.d\.[cm]?ts$|(^|\/)\./.test(path)) return false;
  if (/^(tests?|__tests__|benchmarks?|bench|examples?|docs?|\.github|coverage)\//.test(path)) return false;
  // Its C++ sources are not used: the compiled module is a package of its own.
  if (name === 'koffi') return /\.(c?js|json)$/.test(path) && !/^(vendor|doc)\//.test(path);
  if (name.startsWith('@koromix/')) return !path.startsWith('musl_');
  if (name === 'zod') return !path.startsWith('src/');
  if (name.startsWith('node-linux-')) return path === 'bin/node' || path === 'package.json';
  return true;
}

/** Every plain file below `dir`, relative, sorted by bytes; not what lies in another package's node_modules. */
function filesBelow(dir: string, wanted: (path: string) => boolean): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(dir, join(entry.parentPath, entry.name)))
    .filter((path) => !path.split('/').includes('node_modules') && wanted(path))
    .sort();
}

interface LockPackage {
  readonly dev?: boolean;
  readonly optional?: boolean;
}

/**
 * Runs our modules as they are. Types are taken out when the bundle is made: a guest that is emulated would need seconds for it at its
 * first start. The launcher loads this when it is there.
 */
const PLAIN = `import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';

registerHooks({
  load: (url, context, next) =>
    url.endsWith('.ts')
      ? { format: 'module', source: readFileSync(new URL(url), 'utf8'), shortCircuit: true }
      : next(url, context),
});
`;

/** What a file of the bundle holds, when that is not its source's bytes. */
function rewritten(name: string, from: string): string | undefined {
  if (!name.startsWith('src/') || !name.endsWith('.ts')) return undefined;
  return stripTypeScriptTypes(readFileSync(from, 'utf8'));
}

/** The packages that run, as package-lock.json says, for one architecture. */
function packages(arch: Arch): string[] {
  const lock = JSON.parse(readFileSync(`${projectDir}/package-lock.json`, 'utf8')) as {
    packages: Record<string, LockPackage>;
  };
  const foreign = (path: string) =>
    /^node_modules\/(node-linux-|@koromix\/koffi-)/.test(path) && !path.endsWith(`linux-${arch}`);
  return Object.entries(lock.packages)
    .filter(([path, entry]) => path !== '' && entry.dev !== true && !foreign(path))
    .map(([path]) => path)
    .sort();
}

/** Where each file of the bundle comes from, by its name in the bundle. */
function sources(arch: Arch): Map<string, string> {
  const found = new Map<string, string>();
  for (const name of OURS) {
    const path = `${projectDir}/${name}`;
    if (!existsSync(path)) continue;
    if (statSync(path).isFile()) found.set(name, path);
    else
      for (const file of filesBelow(path, (below) => isOurs(`${name}/${below}`)))
        found.set(`${name}/${file}`, `${path}/${file}`);
  }
  for (const dir of packages(arch)) {
    const path = `${projectDir}/${dir}`;
    if (!existsSync(path))
      throw new VmError(`the package ${dir} is not installed`, {
        hint: `A bundle for ${arch} is made on a ${arch} machine, after './gate version' has installed Gate's packages.`,
      });
    const name = dir.slice(dir.lastIndexOf('node_modules/') + 'node_modules/'.length);
    for (const file of filesBelow(path, (below) => isNeeded(name, below)))
      found.set(`${dir}/${file}`, `${path}/${file}`);
  }
  return found;
}

export function sha256(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

/** The pinned Node without its symbols, when `strip` is here; made once. */
async function strippedNode(effects: Effects, cache: CacheFiles, from: string): Promise<string> {
  const state = statSync(from);
  const lock = sha256(readFileSync(`${projectDir}/package-lock.json`)).slice(0, 12);
  const to = `${cache.bundles}/node-${lock}-${state.size}`;
  if (existsSync(to)) return to;
  const temporary = `${to}.${process.pid}`;
  copyFileSync(from, temporary);
  chmodSync(temporary, FILE_MODES.program);
  const ran = await effects
    .run('strip', [temporary], { what: 'strip Node', looks: true, anyStatus: true })
    .catch(() => undefined);
  if (ran?.status !== 0) copyFileSync(from, temporary);
  effects.rename(temporary, to);
  return to;
}

/** The bundle of this clone's present content; made when there is none yet. */
export async function makeBundle(effects: Effects, cache: CacheFiles, arch = hostArch()): Promise<Bundle> {
  if (effects.dry) {
    effects.write(`${cache.bundles}/${version()}+HASH/`, '');
    return { version: version(), dir: `${cache.bundles}/${version()}+HASH` };
  }
  effects.makeDir(cache.bundles);
  const files = sources(arch);
  const node = `node_modules/node-linux-${arch}/bin/node`;
  const nodeFrom = files.get(node);
  if (!nodeFrom) throw new VmError(`the pinned Node is not installed: ${node}`);
  files.set(node, await strippedNode(effects, cache, nodeFrom));
  const texts = new Map([...files].map(([name, from]) => [name, rewritten(name, from)]));
  // What the launcher looks for: that everything is installed.
  const stamp = `prod ${sha256(readFileSync(`${projectDir}/package-lock.json`))}\n`;
  const lines = [...files].map(([name, from]) => {
    const mode = statSync(from).mode & 0o111 ? FILE_MODES.program : FILE_MODES.plain;
    return `${sha256(texts.get(name) ?? readFileSync(from))} ${mode.toString(8)} ${name}`;
  });
  const ours = new Map([
    ['node_modules/.gate-stamp', stamp],
    ['plain.mjs', PLAIN],
  ]);
  for (const [name, text] of ours) lines.push(`${sha256(text)} 644 ${name}`);
  const manifest = `${lines.sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1)).join('\n')}\n`;
  const full = `${version()}+${sha256(manifest).slice(0, 12)}`;
  const dir = `${cache.bundles}/${full}`;
  if (existsSync(dir)) return { version: full, dir };
  const temporary = `${dir}.${process.pid}`;
  effects.remove(temporary);
  const place = (name: string, write: (to: string) => void) => {
    const to = `${temporary}/${name}`;
    mkdirSync(dirname(to), { recursive: true });
    write(to);
  };
  for (const line of lines) {
    const name = nameOf(line);
    const from = files.get(name);
    if (from === undefined) continue;
    const text = texts.get(name);
    place(name, (to) => {
      if (text !== undefined) writeFileSync(to, text);
      else if (name === node) linkSync(from, to);
      else copyFileSync(from, to);
    });
    chmodSync(`${temporary}/${name}`, Number.parseInt(line.split(' ')[1]!, 8));
  }
  for (const [name, text] of ours) place(name, (to) => writeFileSync(to, text));
  place('MANIFEST', (to) => writeFileSync(to, manifest));
  place('VERSION', (to) => writeFileSync(to, `${full}\n`));
  for (const entry of readdirSync(temporary, { recursive: true, withFileTypes: true }))
    utimesSync(join(entry.parentPath, entry.name), MTIME_S, MTIME_S);
  try {
    effects.rename(temporary, dir);
  } catch (error) {
    // Somebody else made the same one meanwhile.
    effects.remove(temporary);
    if (!existsSync(dir)) throw error;
  }
  return { version: full, dir };
}

function nameOf(line: string): string {
  return line.slice(line.indexOf(' ', line.indexOf(' ') + 1) + 1);
}

/** A bundle as one file, `gate-VERSION-linux-ARCH.tar.gz`; the same bytes for the same content. */
export async function packBundle(effects: Effects, bundle: Bundle, to: string): Promise<string> {
  const path = statSync(to, { throwIfNoEntry: false })?.isDirectory()
    ? `${to}/gate-${basename(bundle.dir)}-linux-${hostArch()}.tar.gz`
    : to;
  const args = [
    '--format=ustar',
    '--sort=name',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    `--mtime=@${MTIME_S}`,
    '--hard-dereference',
    '--use-compress-program=gzip -n -6',
    '-cf',
    path,
    '-C',
    bundle.dir,
    '.',
  ];
  await effects.run('tar', args, { what: 'pack the bundle', limitMs: 300_000 });
  return path;
}

/** What a guest with the manifest `theirs` lacks of `ours`, and what it has too much. */
export function difference(ours: string, theirs: string): { send: string[]; drop: string[] } {
  const parse = (text: string) =>
    new Map(
      text
        .split('\n')
        .filter(Boolean)
        .map((line) => [nameOf(line), line]),
    );
  const here = parse(ours);
  const there = parse(theirs);
  return {
    send: [...here].filter(([name, line]) => there.get(name) !== line).map(([name]) => name),
    drop: [...there.keys()].filter((name) => !here.has(name)),
  };
}

export function hostArch(): Arch {
  return process.arch === 'arm64' ? 'arm64' : 'x64';
}
