/**
 * The base image `debian-12`: a root file system with a kernel and an initrd beside it, from Debian's packages. It is the same
 * for every machine; what is a machine's own (keys, name, addresses) comes with its seed at each start. An image is named by the
 * hash of all that goes into it but Gate itself, which is upgraded over ssh.
 */
import { copyFileSync, cpSync, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { bootId } from '../base/process.ts';
import { projectDir } from '../base/version.ts';
import { type Bundle, GUEST_COMMAND, GUEST_DIR, sha256 } from './bundle.ts';
import type { Effects } from './effects.ts';
import { VmError } from './errors.ts';
import type { Journal } from './events.ts';
import type { CacheFiles } from './names.ts';

export interface Image {
  readonly dir: string;
  /** The file system, or a disk with a boot loader of its own. */
  readonly disk: string;
  readonly format: 'raw' | 'qcow2';
  /** Null: the disk boots by itself. */
  readonly kernel: string | null;
  readonly initrd: string | null;
  /** How a machine learns its keys: our seed, or cloud-init's. */
  readonly seed: 'gate' | 'cloud-init';
}

export const KERNEL_ARGUMENTS = 'console=ttyS0 root=/dev/vda rw rootfstype=ext4 quiet panic=-1';
/** What the guest says on its console when ssh answers; its name follows. */
export const READY_MARK = 'GATE-READY';

const SUITE = 'bookworm';
const PACKAGES = [
  'linux-image-cloud-amd64',
  'systemd',
  'systemd-sysv',
  'libpam-systemd',
  'udev',
  'dbus',
  'openssh-server',
  'fuse3',
  'rsync',
  'iproute2',
  'e2fsprogs',
  'initramfs-tools',
  'zstd',
  'kmod',
  'attr',
  'ripgrep',
  'git',
  'python3-minimal',
];
/** Documentation and translations. */
const LEFT_OUT = ['man', 'locale', 'doc', 'info'].map((name) => `/usr/share/${name}/*`);
/** Debian's cloud kernel has all of them as modules. */
const INITRD_MODULES = 'virtio_pci virtio_mmio virtio_blk virtio_net ext4 virtio_console virtio_rng';
/** Size of the file system in the image; a machine's disk is at least as large. */
const IMAGE_MIB = 1536;
const BUILD_MS = 900_000;

/** Before initramfs-tools is configured: which modules the initrd has. */
const ESSENTIAL_HOOK = `#!/bin/sh
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\\nCOMPRESS=zstd\\n' >"$1/etc/initramfs-tools/conf.d/gate"
for module in ${INITRD_MODULES}; do echo "$module"; done >"$1/etc/initramfs-tools/modules"
`;

/** After all packages. `SKELETON` is our own files, `BUNDLE` Gate. */
const CUSTOMIZE_HOOK = `#!/bin/sh
set -eu
root=$1
cp -R --preserve=mode "$SKELETON/." "$root/"
cp -a "$BUNDLE" "$root${GUEST_DIR}"
chown -R 0:0 "$root${GUEST_DIR}"
mkdir -p "$root/usr/local/bin" "$root/etc/ssh/authorized_keys" "$root/srv/gate" "$root/var/lib/gate"
ln -sf ${GUEST_DIR}/gate "$root${GUEST_COMMAND}"
chroot "$root" useradd --create-home --shell /bin/bash --user-group gate
# With UsePAM no, a locked password ("!") refuses keys, too.
chroot "$root" usermod -p '*' gate
chroot "$root" usermod -p '*' root
chroot "$root" chown gate:gate /srv/gate
rm -f "$root"/etc/ssh/ssh_host_*
chroot "$root" systemctl enable ssh.service systemd-networkd.service gate-seed.service gate-ready.service
chroot "$root" systemctl mask serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \\
  systemd-networkd-wait-online.service e2scrub_all.timer fstrim.timer dpkg-db-backup.timer
: >"$root/etc/machine-id"
echo gate >"$root/etc/hostname"
printf '127.0.0.1 localhost\\n' >"$root/etc/hosts"
grep -q user_allow_other "$root/etc/fuse.conf" 2>/dev/null && sed -i 's/^#user_allow_other/user_allow_other/' "$root/etc/fuse.conf"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
cp "$root"/boot/vmlinuz-* "$OUT/vmlinuz"
cp "$root"/boot/initrd.img-* "$OUT/initrd"
`;

const skeleton = `${projectDir}/systems/guest`;

/** The hash of everything that makes the image, but Gate. */
export function recipeHash(): string {
  const files = readdirSync(skeleton, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .map((path) => [relative(skeleton, path), sha256(readFileSync(path)), statSync(path).mode & 0o111]);
  const recipe = [SUITE, PACKAGES, LEFT_OUT, ESSENTIAL_HOOK, CUSTOMIZE_HOOK, IMAGE_MIB, files];
  return sha256(JSON.stringify(recipe)).slice(0, 16);
}

export function debianImage(cache: CacheFiles): Image {
  const dir = `${cache.images}/debian-12-${recipeHash()}`;
  return {
    dir,
    disk: `${dir}/rootfs.ext4`,
    format: 'raw',
    kernel: `${dir}/vmlinuz`,
    initrd: `${dir}/initrd`,
    seed: 'gate',
  };
}

/**
 * Where this host gets the same Debian from, in apt's own words: whole files of its sources that speak of that suite and nothing
 * else. Empty: mmdebstrap's own choice.
 */
export function hostSources(etc = '/etc/apt'): string[] {
  const files = ['sources.list', ...namesIn(`${etc}/sources.list.d`).map((name) => `sources.list.d/${name}`)];
  return files.flatMap((name) => {
    let text: string;
    try {
      text = readFileSync(`${etc}/${name}`, 'utf8');
    } catch {
      return [];
    }
    const suites = name.endsWith('.sources')
      ? [...text.matchAll(/^Suites:\s*(.+)$/gim)].flatMap((match) => match[1]!.trim().split(/\s+/))
      : [...text.matchAll(/^deb\s+(?:\[[^\]]*\]\s+)?\S+\s+(\S+)/gim)].map((match) => match[1]!);
    const ours =
      suites.length > 0 && suites.every((suite) => suite === SUITE || suite.startsWith(`${SUITE}-`));
    return ours ? [`${etc}/${name}`] : [];
  });
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir).sort();
  } catch {
    return [];
  }
}

/** Builds the image unless it is there. `rebuild`: all the same. */
export async function buildDebian(
  effects: Effects,
  journal: Journal,
  cache: CacheFiles,
  bundle: Bundle,
  options: { readonly uid: number; readonly rebuild: boolean },
): Promise<Image> {
  const image = debianImage(cache);
  if (existsSync(image.dir) && !options.rebuild) return image;
  if (options.uid !== 0 && !effects.dry)
    throw new VmError('only root builds an image', {
      hint: `Build it once as root, for everybody: sudo gate vm build --vm-dir DIR; then use the same --vm-dir.`,
    });
  const work = `${image.dir}.${bootId().slice(0, 8)}.${process.pid}`;
  return journal.step('build the image', async (goesOn) => {
    goesOn("from Debian's packages; once, about a minute");
    effects.makeDir(work);
    try {
      await build(effects, work, bundle, goesOn);
      if (options.rebuild) effects.remove(image.dir);
      effects.rename(work, image.dir);
    } catch (error) {
      effects.remove(work);
      throw error;
    }
    return { value: image, said: `image debian-12 built (${image.dir})` };
  });
}

async function build(
  effects: Effects,
  work: string,
  bundle: Bundle,
  goesOn: (text: string) => void,
): Promise<void> {
  const root = `${work}/root`;
  effects.write(`${work}/essential`, ESSENTIAL_HOOK, 0o755);
  effects.write(`${work}/customize`, CUSTOMIZE_HOOK, 0o755);
  if (!effects.dry) {
    // The clone may belong to anybody: what goes in belongs to root.
    cpSync(skeleton, `${work}/skeleton`, { recursive: true });
    copyFileSync(`${bundle.dir}/VERSION`, `${work}/GATE-VERSION`);
  }
  const args = [
    '--mode=root',
    '--variant=minbase',
    '--architectures=amd64',
    `--include=${PACKAGES.join(',')}`,
    '--aptopt=Apt::Install-Recommends "false"',
    '--aptopt=Acquire::Languages "none"',
    ...LEFT_OUT.map((path) => `--dpkgopt=path-exclude=${path}`),
    `--essential-hook=${work}/essential`,
    `--customize-hook=${work}/customize`,
    SUITE,
    root,
    ...hostSources(),
  ];
  const said = /^I: (.+?)\.*$/;
  await effects.run('mmdebstrap', args, {
    what: 'build the root file system',
    limitMs: BUILD_MS,
    env: {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      LC_ALL: 'C',
      SKELETON: `${work}/skeleton`,
      BUNDLE: bundle.dir,
      OUT: work,
    },
    line: (line) => {
      const stage = said.exec(line)?.[1];
      if (stage) goesOn(stage);
    },
  });
  goesOn('making the file system');
  await effects.run(
    'mke2fs',
    ['-q', '-F', '-t', 'ext4', '-d', root, '-E', 'root_owner=0:0', `${work}/rootfs.ext4`, `${IMAGE_MIB}M`],
    { what: 'make the file system of the image', limitMs: BUILD_MS },
  );
  for (const name of ['root', 'skeleton', 'essential', 'customize']) effects.remove(`${work}/${name}`);
}
