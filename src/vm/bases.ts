import type { Effects } from './effects.ts';
import { VmError } from './errors.ts';
import type { Journal } from './events.ts';
import type { Image } from './image.ts';
import type { CacheFiles } from './names.ts';

export async function baseImage(
  _effects: Effects,
  _journal: Journal,
  _cache: CacheFiles,
  _options: { readonly base: string; readonly imageFrom?: string; readonly rebuild: boolean },
): Promise<Image> {
  throw new VmError('cloud images are not here yet');
}
