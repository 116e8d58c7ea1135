/**
 * Guest memory of another process, read by copying (pread): nothing is mapped, so nothing can be written by mistake, holes stay holes, and
 * a file that shrinks is an error and no SIGBUS.
 */
import { constants } from 'node:fs';
import { closeAll } from '../descriptors';
import { check, closedError, VhostError } from '../errors';
import { type FdHandle, native } from '../native';
import { checkOverlap, checkRegion } from './region';

/** A region as a file: typically a memfd by way of /proc/PID/fd. Bytes. */
export interface RegionFile {
  gpa: number;
  size: number;
  path: string;
  /** Of the region's first byte in the file. */
  offset: number;
}

interface OpenRegion extends RegionFile {
  fd: FdHandle;
}

export class ReadOnlyMemory {
  readonly #regions: readonly OpenRegion[];
  readonly #word = new Uint8Array(2);
  #closed = false;

  private constructor(regions: readonly OpenRegion[]) {
    this.#regions = regions;
  }

  /** Throws VHOST_ERR_MEMORY_TABLE for regions that cannot be or whose file ends before they do, and the error of open. */
  static open(files: readonly RegionFile[]): ReadOnlyMemory {
    for (const file of files) checkRegion(file);
    checkOverlap(files);
    const regions: OpenRegion[] = [];
    const memory = new ReadOnlyMemory(regions);
    try {
      for (const file of files) {
        const fd = check<FdHandle>(native().fdOpen(file.path, constants.O_RDONLY), 'open', file.path);
        regions.push({ ...file, fd });
        memory.copy(file.gpa + file.size - 1, 1);
      }
      return memory;
    } catch (error) {
      memory.close();
      throw error;
    }
  }

  #at(gpa: number, length: number): OpenRegion | null {
    if (this.#closed) throw closedError('ReadOnlyMemory');
    for (const region of this.#regions) {
      if (gpa >= region.gpa && gpa + length <= region.gpa + region.size) return region;
    }
    return null;
  }

  /** The region that holds the byte, or null. */
  regionAt(gpa: number): { gpa: number; size: number } | null {
    return this.#at(gpa, 1);
  }

  /** A copy, or null when it is not wholly inside one region. Throws when the file cannot be read. */
  copy(gpa: number, length: number): Uint8Array | null {
    const bytes = new Uint8Array(length);
    return this.#read(gpa, bytes) ? bytes : null;
  }

  /** The u16 as it is now, or null. The kernel copies bytes: a word that changes meanwhile may be half old. */
  u16(gpa: number): number | null {
    return this.#read(gpa, this.#word) ? this.#word[0]! | (this.#word[1]! << 8) : null;
  }

  #read(gpa: number, into: Uint8Array): boolean {
    const region = this.#at(gpa, into.length);
    if (region === null) return false;
    const { fd, path, offset } = region;
    const got = check<number>(native().fdPread(fd, into, offset + (gpa - region.gpa)), 'pread', path);
    if (got !== into.length) {
      throw new VhostError('VHOST_ERR_MEMORY_TABLE', `${path} ends before the region of ${region.size} bytes does`);
    }
    return true;
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true;
    closeAll(this.#regions.map(({ fd }) => fd));
  }
}
