/** One member of a newc cpio archive, the format of an initramfs (Linux Documentation/driver-api/early-userspace/buffer-format.rst). */
export interface CpioEntry {
  readonly name: string;
  /** st_mode: file type and permission bits. */
  readonly mode: number;
  readonly data?: Uint8Array;
}

export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
/** `data` is the target. */
export const S_IFLNK = 0o120000;

const NEWC_MAGIC = '070701';
const ALIGNMENT = 4;

/**
 * Archive bytes, a multiple of 4 long. Several archives one after the other are one initramfs to the kernel, later members
 * adding to earlier ones. Modification times are zero: equal input gives equal bytes.
 */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  let inode = 1;
  for (const entry of entries) parts.push(...member(entry, inode++));
  parts.push(...member({ name: 'TRAILER!!!', mode: 0 }, 0));
  return Buffer.concat(parts);
}

function member(entry: CpioEntry, inode: number): Buffer[] {
  const name = Buffer.from(`${entry.name}\0`);
  const data = Buffer.from(entry.data ?? new Uint8Array());
  const links = entry.mode >> 12 === S_IFDIR >> 12 ? 2 : 1;
  const fields = [inode, entry.mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, name.length, 0];
  const header = NEWC_MAGIC + fields.map((value) => value.toString(16).padStart(8, '0')).join('');
  return [padded(Buffer.concat([Buffer.from(header), name])), padded(data)];
}

function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % ALIGNMENT;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(ALIGNMENT - rest)]);
}
