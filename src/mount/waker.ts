/**
 * The waker: a process that gives files in the view the mode that they have, so that who watches them is told (wake.ts). It is a process
 * of its own because who serves a mount must never wait for it. It follows no symbolic link and does not leave the view: it may be root.
 *
 * Its input are batches of paths relative to the view's root, each path ended by a NUL and each batch by another; it answers a line
 * for each. It ends with its input.
 */
import { decodePath } from '../base/bytes.ts';
import * as sys from '../sys/index.ts';

const [mountPoint = '', mountDev = ''] = process.argv.slice(2);
const stat = new sys.StatBuf();
const RESOLVE = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_NO_XDEV;

function wake(rootFd: number, path: Buffer): void {
  const fd = sys.openat2(rootFd, decodePath(path), sys.O_PATH | sys.O_NOFOLLOW | sys.O_CLOEXEC, 0, RESOLVE);
  if (fd < 0) return;
  if (sys.fstatx(fd, stat) === 0 && (stat.mode & sys.S_IFMT) !== sys.S_IFLNK)
    sys.fchmodat(sys.AT_FDCWD, `/proc/self/fd/${fd}`, stat.mode & 0o7777);
  sys.close(fd);
}

/** The root is open only meanwhile: the view can be unmounted at other times. */
function wakeAll(paths: readonly Buffer[]): void {
  const flags = sys.O_PATH | sys.O_DIRECTORY | sys.O_CLOEXEC;
  const rootFd = sys.openat(sys.AT_FDCWD, mountPoint, flags);
  if (rootFd < 0) return;
  if (sys.fstatx(rootFd, stat) === 0 && String(stat.dev) === mountDev)
    for (const path of paths) wake(rootFd, path);
  sys.close(rootFd);
}

let rest = Buffer.alloc(0);
process.stdin.on('data', (part: Buffer) => {
  rest = Buffer.concat([rest, part]);
  const paths: Buffer[] = [];
  let at = 0;
  let kept = 0;
  for (let nul = rest.indexOf(0); nul >= 0; nul = rest.indexOf(0, at)) {
    if (nul > at) paths.push(rest.subarray(at, nul));
    else {
      wakeAll(paths.splice(0));
      process.stdout.write('\n');
      kept = nul + 1;
    }
    at = nul + 1;
  }
  rest = Buffer.from(rest.subarray(kept));
});
