import * as zlib from 'node:zlib';
import { run, which } from './process';

const ZSTD_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const XZ_MAGIC = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);
const ELF_MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);

/**
 * The ELF kernel inside a bzImage, or undefined when this host has nothing to unpack it with. Booting it saves the guest
 * from decompressing itself, about a second under emulation. The payload's place is in the boot header
 * (Linux Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length).
 */
export async function extractVmlinux(bzImage: Buffer): Promise<Buffer | undefined> {
  const setupBytes = ((bzImage[0x1f1] || 4) + 1) * 512;
  const start = setupBytes + bzImage.readUInt32LE(0x248);
  // The last four bytes of the payload are the unpacked size, not part of the compressed stream.
  const payload = bzImage.subarray(start, start + bzImage.readUInt32LE(0x24c) - 4);
  const elf = await unpack(payload);
  return elf?.subarray(0, 4).equals(ELF_MAGIC) ? elf : undefined;
}

async function unpack(payload: Buffer): Promise<Buffer | undefined> {
  const magic = (bytes: Buffer): boolean => payload.subarray(0, bytes.length).equals(bytes);
  if (magic(XZ_MAGIC)) return output('busybox', ['xz', '-dc'], payload);
  if (!magic(ZSTD_MAGIC)) return undefined;
  const builtIn = (zlib as { zstdDecompressSync?: (bytes: Buffer) => Buffer }).zstdDecompressSync;
  if (builtIn !== undefined) return builtIn(payload);
  return which('zstd') === undefined ? undefined : output('zstd', ['-dc'], payload);
}

async function output(program: string, args: string[], input: Buffer): Promise<Buffer | undefined> {
  const result = await run(program, args, { input });
  return result.status === 0 ? result.stdout : undefined;
}
