import * as sys from '../sys/index.ts';
import { writeAttributes } from './attributes.ts';
import type { Answer } from './packets.ts';
import { VIRTUAL_DIRECTORY, Walker } from './walk.ts';

/** `/.gate`: not listed, and not the folder of that name on the disk. `about`: a line of JSON that only this server has. */
export const VIRTUAL_FILES = ['about', 'who', 'why'] as const;
export type VirtualFile = (typeof VIRTUAL_FILES)[number] | 'directory';

/** Which of them a path names; undefined: none. */
export function virtualOf(path: Buffer): VirtualFile | undefined {
  if (!path.includes(VIRTUAL_DIRECTORY)) return undefined;
  const names = Walker.names(path).filter((name) => name !== '' && name !== '.');
  if (names[0] !== VIRTUAL_DIRECTORY) return undefined;
  if (names.length === 1) return 'directory';
  return names.length === 2 ? VIRTUAL_FILES.find((name) => name === names[1]) : undefined;
}

/** The length of such a file is not known before it is opened: 0, as in /proc. sshfs with `direct_io` reads on. */
export function writeVirtualAttributes(answer: Answer, file: VirtualFile, nowMs: number): Answer {
  const sec = Math.floor(nowMs / 1000);
  const mode = file === 'directory' ? sys.S_IFDIR | 0o555 : sys.S_IFREG | 0o444;
  return writeAttributes(answer, { size: 0, uid: 0, gid: 0, mode, atimeSec: sec, mtimeSec: sec });
}
