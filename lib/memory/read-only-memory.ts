/**
 * Guest memory of another process, mapped for reading only: what an inspection needs and no more. Its views are typed arrays like any
 * other, but a write through them ends this process with SIGSEGV.
 */
import { constants } from 'node:fs';
import { check, closedError, VhostError } from '../errors';
import { type FdHandle, type MappingHandle, native } from '../native';
import { checkOverlap, checkRegion } from './region';

const PROT_READ = 1;

/** A region as a file: typically a memfd by way of /proc/PID/fd. Bytes. */
export interface RegionFile {
  gpa: number;
  size: number;
  path: string;
  /** Of the region's first byte in the file, a multiple of 4,096. */
  offset: number;
}

export interface ReadOnlyRegion {
  readonly gpa: number;
  readonly u8: Uint8Array;
}

export class ReadOnlyMemory {
  readonly regions: readonly ReadOnlyRegion[];
  readonly #mappings: readonly MappingHandle[];
  #closed = false;

  private constructor(regions: readonly ReadOnlyRegion[], mappings: readonly MappingHandle[]) {
    this.regions = regions;
    this.#mappings = mappings;
  }

  /** Throws VHOST_ERR_MEMORY_TABLE for regions that cannot be, and the error of open or mmap; then nothing stays mapped. */
  static open(files: readonly RegionFile[]): ReadOnlyMemory {
    for (const file of files) checkRegion(file);
    checkOverlap(files);
    const mappings: MappingHandle[] = [];
    try {
      const regions = files.map((file) => {
        const mapping = map(file);
        mappings.push(mapping);
        return { gpa: file.gpa, u8: new Uint8Array(check<ArrayBuffer>(native().mappingBuffer(mapping), 'mmap')) };
      });
      return new ReadOnlyMemory(regions, mappings);
    } catch (error) {
      for (const mapping of mappings) native().mappingClose(mapping);
      throw error;
    }
  }

  /** The region that holds all of [gpa, gpa + length). Throws VHOST_ERR_MEMORY_TABLE when there is none. */
  regionOf(gpa: number, length: number): ReadOnlyRegion {
    if (this.#closed) throw closedError('ReadOnlyMemory');
    for (const region of this.regions) {
      if (gpa >= region.gpa && length >= 0 && gpa + length <= region.gpa + region.u8.length) return region;
    }
    const range = `[0x${gpa.toString(16)}, 0x${(gpa + length).toString(16)})`;
    throw new VhostError('VHOST_ERR_MEMORY_TABLE', `${range} is not inside one region of guest memory`);
  }

  /** Views are detached. Idempotent. */
  close(): void {
    this.#closed = true;
    for (const mapping of this.#mappings) native().mappingClose(mapping);
  }
}

function map({ path, offset, size }: RegionFile): MappingHandle {
  const addon = native();
  const fd = check<FdHandle>(addon.fdOpen(path, constants.O_RDONLY), 'open', path);
  try {
    // -EINVAL when the file ends before the region does: a touch behind its end would be SIGBUS.
    return check<MappingHandle>(addon.mappingCreate(fd, offset, size, 0, PROT_READ), 'mmap', path);
  } finally {
    addon.fdClose(fd);
  }
}
