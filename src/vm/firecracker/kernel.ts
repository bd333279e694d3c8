/**
 * Firecracker boots an ELF kernel; Debian packs one into a bzImage. Where the packed kernel lies stands in the setup header:
 * Documentation/arch/x86/boot.rst, `setup_sects` at 0x1f1, `payload_offset` at 0x248, `payload_length` at 0x24c. Its last four bytes are
 * the size of the ELF.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import type { Effects } from '../effects.ts';
import { VmError } from '../errors.ts';

const SECTOR_BYTES = 512;
const HEADER_MAGIC = 'HdrS';
const LZ4_LEGACY_MAGIC = 0x184c2102;
const ELF_MAGIC = 0x464c457f;

export interface Payload {
  readonly start: number;
  readonly end: number;
  /** Bytes of the ELF. */
  readonly elfBytes: number;
}

/** Where the packed kernel lies in a bzImage. Throws a VmError when it is none, or packed otherwise than with LZ4. */
export function payloadOf(image: Buffer): Payload {
  const refuse = (why: string) =>
    new VmError(`this is no kernel that Firecracker's can be taken from: ${why}`);
  if (image.length < 0x250 || image.toString('latin1', 0x202, 0x206) !== HEADER_MAGIC)
    throw refuse('it has no setup header');
  const sectors = image[0x1f1] || 4;
  const start = (sectors + 1) * SECTOR_BYTES + image.readUInt32LE(0x248);
  const end = start + image.readUInt32LE(0x24c);
  if (end > image.length || end - start < 8) throw refuse('its payload lies outside the file');
  if (image.readUInt32LE(start) !== LZ4_LEGACY_MAGIC) throw refuse('it is not packed with LZ4');
  return { start, end: end - 4, elfBytes: image.readUInt32LE(end - 4) };
}

/** Writes the ELF of `kernel` to `to`, unless it is there. */
export async function extractKernel(effects: Effects, kernel: string, to: string): Promise<void> {
  if (existsSync(to)) return;
  const packed = `${to}.lz4`;
  const temporary = `${to}.new`;
  let elfBytes = 0;
  if (!effects.dry) {
    const image = readFileSync(kernel);
    const payload = payloadOf(image);
    elfBytes = payload.elfBytes;
    effects.write(packed, image.subarray(payload.start, payload.end));
  }
  await effects.run('lz4', ['-d', '-f', '-q', packed, temporary], { what: 'unpack the kernel' });
  effects.remove(packed);
  if (!effects.dry) {
    const got = statSync(temporary).size;
    if (got !== elfBytes || readFileSync(temporary).readUInt32LE(0) !== ELF_MAGIC)
      throw new VmError(`the unpacked kernel is no ELF of ${elfBytes} bytes, but has ${got} bytes`);
  }
  effects.rename(temporary, to);
}
