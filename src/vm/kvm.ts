/**
 * Can this host run guests with KVM? /dev/kvm may open, and even run firmware, where no stock kernel boots. So only what a guest
 * prints counts: the image's own kernel is started with nothing to run, and must say its version. The answer holds until the
 * next boot of the host.
 */
import { accessSync, constants, readFileSync } from 'node:fs';
import { bootId } from '../base/process.ts';
import type { Effects } from './effects.ts';
import type { Image } from './image.ts';
import type { CacheFiles } from './names.ts';

const PROBE_MS = 15_000;

export interface KvmAnswer {
  readonly usable: boolean;
  readonly why: string;
}

export async function probeKvm(
  effects: Effects,
  cache: CacheFiles,
  image: Image,
  device = '/dev/kvm',
): Promise<KvmAnswer> {
  try {
    accessSync(device, constants.R_OK | constants.W_OK);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return {
      usable: false,
      why: code === 'ENOENT' ? `there is no ${device}` : `this user cannot open ${device}`,
    };
  }
  // A cloud image has no kernel beside it: its own boot shows.
  if (image.kernel === null || image.initrd === null) return { usable: true, why: `${device} can be opened` };
  const known = cached(cache.kvm);
  if (known) return known;
  const args = [
    ...['-machine', 'q35', '-accel', 'kvm', '-cpu', 'host', '-m', '256'],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
    ...['-kernel', image.kernel, '-initrd', image.initrd],
    ...['-append', 'console=ttyS0 panic=-1 rdinit=/nonexistent'],
  ];
  const ran = await effects.run('qemu-system-x86_64', args, {
    what: 'try KVM',
    limitMs: PROBE_MS,
    anyStatus: true,
  });
  if (effects.dry) return { usable: false, why: 'nothing was tried' };
  const usable = /Linux version \d/.test(ran.stdout);
  const said = ran.stderr.split('\n').find((line) => line.trim()) ?? 'no guest kernel runs under it';
  const answer = { usable, why: usable ? 'a guest ran' : `${device} opens, but ${said}` };
  effects.write(cache.kvm, `${JSON.stringify({ bootId: bootId(), ...answer })}\n`);
  return answer;
}

function cached(path: string): KvmAnswer | undefined {
  try {
    const known = JSON.parse(readFileSync(path, 'utf8')) as KvmAnswer & { bootId: string };
    return known.bootId === bootId() ? { usable: known.usable, why: known.why } : undefined;
  } catch {
    return undefined;
  }
}
