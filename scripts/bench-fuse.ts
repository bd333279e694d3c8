/**
 * Latency of the FUSE layer by itself: the example file system of src/fuse/testing, no locks, caches off.
 *
 *     node scripts/bench-fuse.ts            # stat, open+close, sequential read; spin 0 and 50; idle CPU
 */
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { delay } from '../src/base/clock.ts';
import { mountExample } from '../src/fuse/testing/mounted.ts';
import * as sys from '../src/sys/index.ts';

const ROUNDS = 5000;
const READ_BYTES = 256 * 1024 * 1024;

function quantiles(samples: Float64Array): string {
  const sorted = samples.sort();
  const at = (share: number) =>
    (sorted[Math.floor(share * (sorted.length - 1))]! * 1000).toFixed(0).padStart(5);
  return `p50 ${at(0.5)}  p99 ${at(0.99)} µs`;
}

function measure(run: () => void): string {
  for (let i = 0; i < 500; i++) run();
  const samples = new Float64Array(ROUNDS);
  for (let i = 0; i < ROUNDS; i++) {
    const start = performance.now();
    run();
    samples[i] = performance.now() - start;
  }
  return quantiles(samples);
}

/** Runs in a process of its own, on the mount. */
function client(dir: string): void {
  const st = new sys.StatBuf();
  const file = path.join(dir, 'file');
  const stat = measure(() => sys.statx(sys.AT_FDCWD, file, 0, st, sys.STATX_BASIC_STATS));
  const open = measure(() => sys.close(sys.openat(sys.AT_FDCWD, file, sys.O_RDONLY | sys.O_CLOEXEC)));
  const buffer = Buffer.alloc(1024 * 1024);
  const fd = sys.openat(sys.AT_FDCWD, path.join(dir, 'big'), sys.O_RDONLY | sys.O_CLOEXEC);
  const start = performance.now();
  let total = 0;
  for (let got = sys.read(fd, buffer); got > 0; got = sys.read(fd, buffer)) total += got;
  const seconds = (performance.now() - start) / 1000;
  sys.close(fd);
  process.stdout.write(
    `stat ${stat}   open+close ${open}   read ${(total / 1e9 / seconds).toFixed(1)} GB/s\n`,
  );
}

async function bench(passthrough: boolean, spinUs: number): Promise<void> {
  const mount = await mountExample({ passthrough, spinUs, validMs: 0 });
  try {
    fs.writeFileSync(path.join(mount.backing, 'file'), 'x');
    fs.writeFileSync(path.join(mount.backing, 'big'), Buffer.alloc(READ_BYTES, 1));
    const label = `${passthrough ? 'passthrough' : 'cached     '} spin ${String(spinUs).padStart(3)}`;
    const { stdout } = await promisify(execFile)(process.execPath, [
      import.meta.filename,
      '--client',
      mount.dir,
    ]);
    process.stdout.write(`${label}: ${stdout}`);
    const before = process.cpuUsage();
    await delay(3000);
    const used = process.cpuUsage(before);
    process.stdout.write(`${label}: idle CPU ${((used.user + used.system) / 3e4).toFixed(2)} %\n`);
  } finally {
    await mount.close();
  }
}

if (process.argv[2] === '--client') client(process.argv[3]!);
else for (const passthrough of [true, false]) for (const spinUs of [0, 50]) await bench(passthrough, spinUs);
