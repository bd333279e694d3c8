/** What Gate needs of a machine, as data: a name, a test, what to do about it, and whether nothing works without it. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import { isAlive } from '../base/process.ts';
import { canWrite, type StateFiles } from '../base/state.ts';
import { bypassers } from './bypass.ts';
import type { Context } from './context.ts';
import { keptIn } from './lost.ts';
import { mountAt, mountedViews, VIEW_TYPE } from './mounts.ts';
import { bytes } from './output.ts';
import { readBroker } from './supervisor/supervisor.ts';
import { isInPlace, readViews } from './views.ts';

export interface World {
  readonly context: Context;
  readonly files: StateFiles;
}

export interface Check {
  readonly name: string;
  /** Undefined: does not apply. `ok`, or what is wrong; `says` is shown in both cases. */
  readonly test: (world: World) => { ok: boolean; says: string } | undefined;
  readonly hint: string;
  /** Nothing works without it. */
  readonly fatal: boolean;
}

const good = (says: string) => ({ ok: true, says });
const bad = (says: string) => ({ ok: false, says });

function kernelAtLeast(major: number, minor: number): boolean {
  const [a = 0, b = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10));
  return a > major || (a === major && b >= minor);
}

function openable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** CAP_SYS_ADMIN, capabilities(7), is bit 21 of the effective set. */
function hasSysAdmin(): boolean {
  const line = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${line}`) >> 21n) & 1n) === 1n;
}

const DISK_FREE_BYTES = 256 * 1024 * 1024;

export const CHECKS: readonly Check[] = [
  {
    name: 'node',
    fatal: true,
    hint: 'Start Gate with its launcher, ./gate, which brings its own Node.',
    test: () => {
      const fits = Number.parseInt(process.versions.node, 10) >= 24;
      return fits
        ? good(`Node ${process.versions.node}`)
        : bad(`Node ${process.versions.node} is older than 24`);
    },
  },
  {
    name: 'fuse',
    fatal: true,
    hint: "As root: 'modprobe fuse'. In a container: --device /dev/fuse --cap-add SYS_ADMIN (and on some hosts --security-opt apparmor=unconfined).",
    test: () => (existsSync('/dev/fuse') ? good('/dev/fuse is there') : bad('there is no /dev/fuse')),
  },
  {
    name: 'fuse-permission',
    fatal: true,
    hint: "Every user must be able to open it, also for fusermount3: as root 'chmod 666 /dev/fuse' (the package fuse3 brings a udev rule that does so at boot).",
    test: () => {
      if (!existsSync('/dev/fuse')) return undefined;
      return openable('/dev/fuse')
        ? good('/dev/fuse can be opened')
        : bad('/dev/fuse cannot be opened by this user');
    },
  },
  {
    name: 'mount-permission',
    fatal: true,
    hint: 'A container needs --cap-add SYS_ADMIN to mount.',
    test: ({ context }) => {
      if (context.uid !== 0) return undefined;
      return hasSysAdmin()
        ? good('this root may mount (CAP_SYS_ADMIN)')
        : bad('this root may not mount: CAP_SYS_ADMIN is missing');
    },
  },
  {
    name: 'fusermount3',
    fatal: true,
    hint: "'apt-get install fuse3' (or your distribution's name for it).",
    test: ({ context }) => {
      if (context.uid === 0) return undefined;
      const at = ['/usr/bin', '/bin', '/usr/local/bin'].find((dir) => existsSync(`${dir}/fusermount3`));
      return at ? good(`${at}/fusermount3`) : bad('fusermount3 is missing, and only root mounts without it');
    },
  },
  {
    name: 'user_allow_other',
    fatal: false,
    hint: "Only if other users are to work in your views: add the line 'user_allow_other' to /etc/fuse.conf as root.",
    test: ({ context }) => {
      if (context.uid === 0) return undefined;
      const text = existsSync('/etc/fuse.conf') ? readFileSync('/etc/fuse.conf', 'utf8') : '';
      return /^\s*user_allow_other\b/m.test(text)
        ? good('other users can enter your views')
        : bad('only you can enter your views (user_allow_other is not set in /etc/fuse.conf)');
    },
  },
  {
    name: 'passthrough',
    fatal: false,
    hint: 'Reads and writes then go through the view: everything works, large files are slower. Linux 6.9 and root have passthrough.',
    test: ({ context }) => {
      if (!kernelAtLeast(6, 9)) return bad(`Linux ${release()} has no FUSE passthrough`);
      if (context.uid !== 0 || !hasSysAdmin()) return bad('an ordinary user has no FUSE passthrough');
      return good(`Linux ${release()} has FUSE passthrough`);
    },
  },
  {
    name: 'state-directory',
    fatal: true,
    hint: 'Name another with --state-dir DIR or GATE_STATE_DIR.',
    test: ({ files }) =>
      canWrite(files.dir)
        ? good(`${files.dir} can be written`)
        : bad(`${files.dir} cannot be written by this user`),
  },
  {
    name: 'disk-space',
    fatal: false,
    hint: 'Free some space: a broker that cannot write refuses locks.',
    test: ({ files }) => {
      let dir = files.dir;
      while (!existsSync(dir)) dir = dir.slice(0, dir.lastIndexOf('/')) || '/';
      const fs = statfsSync(dir);
      const free = fs.bavail * fs.bsize;
      const text = `${Math.round(free / 1024 / 1024)} MiB free for ${files.dir}`;
      return free >= DISK_FREE_BYTES ? good(text) : bad(text);
    },
  },
  {
    name: 'broker',
    fatal: false,
    hint: "'gate up --all' starts it; 'gate logs --component broker' says what happened.",
    test: ({ files }) => {
      const info = readBroker(files);
      if (info) return good(`answers at ${info.url} (pid ${info.pid})`);
      return readViews(files).length > 0 ? bad('there are views, and no broker runs') : undefined;
    },
  },
  {
    name: 'views',
    fatal: false,
    hint: "'gate up --all' brings them back; 'gate down NAME' removes one.",
    test: ({ files }) => {
      const views = readViews(files);
      if (views.length === 0) return undefined;
      const down = views.filter((view) => mountAt(view.mount)?.type !== VIEW_TYPE || !isAlive(view.process));
      return down.length === 0
        ? good(`${views.length} up`)
        : bad(`not up: ${down.map((view) => `${view.name} (${view.mount})`).join(', ')}`);
    },
  },
  {
    name: 'stale-mounts',
    fatal: false,
    hint: "'gate down NAME' for a known view, else 'gate unmount DIR'.",
    test: ({ files }) => {
      const served = new Set(readViews(files).flatMap((view) => (isAlive(view.process) ? [view.mount] : [])));
      const stale = mountedViews()
        .map((entry) => entry.mountPoint)
        .filter((mount) => !served.has(mount) && isStale(mount));
      return stale.length === 0 ? good('none') : bad(`nobody serves ${stale.join(', ')}`);
    },
  },
  {
    name: 'kept-files',
    fatal: false,
    hint: "'gate conflicts' lists, compares, restores and prunes them.",
    test: ({ files }) => {
      // Beneath a view in place they are seen by `gate status` and `gate conflicts` only.
      const kept = readViews(files)
        .filter((view) => !isInPlace(view))
        .flatMap(({ root, mount }) => keptIn({ root, mount, base: root }));
      if (kept.length === 0) return undefined;
      const size = kept.reduce((sum, { diskBytes }) => sum + diskBytes, 0);
      const conflicts = kept.filter(({ record }) => record.state === 'conflict').length;
      const says = `${kept.length} kept of what would have been lost (${bytes(size)}), ${conflicts} of them conflict copies`;
      return conflicts === 0 ? good(says) : bad(says);
    },
  },
  {
    name: 'bypass',
    fatal: false,
    hint: 'What they do in the repository itself takes no locks. Let them work in the mount.',
    test: ({ files }) => {
      const views = readViews(files);
      if (views.length === 0) return undefined;
      const lines = views.flatMap((view) => bypassers(view.root, view.mount));
      return lines.length === 0 ? good('nobody works beside a view') : bad(lines.join('; '));
    },
  },
];

/**
 * Asks a mount for something that the kernel must ask its server, in a process of its own that is left behind when it gets no answer:
 * a server that is stopped or hangs must not take the doctor along. Status 0: ENOTCONN, nobody serves it.
 */
const PROBE = `{ stat -f -- "$1" 2>&1 | grep -q 'endpoint is not connected'; } & asked=$!
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill -0 $asked 2>/dev/null || break; sleep 0.05; done
kill -0 $asked 2>/dev/null && exit 2; wait $asked`;

function isStale(mount: string): boolean {
  const env = { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C' };
  return spawnSync('sh', ['-c', PROBE, 'sh', mount], { stdio: 'ignore', cwd: '/', env }).status === 0;
}
