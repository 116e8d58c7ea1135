/** Reads guest memory for an inspection: copies and words, null where there is no memory. Never writes. */
import { VhostError } from '../errors';
import { hexAddress, type Place } from './ring-inspection';
import type { RegionView, RingMemory } from './ring-memory';

/** Memory that need not be mapped: what an inspection reads. ReadOnlyMemory fits. */
export interface InspectedMemory {
  /** The region that holds the byte, or null. */
  regionAt(gpa: number): { readonly gpa: number; readonly size: number } | null;
  /** A copy, or null when it is not wholly inside one region. */
  copy(gpa: number, length: number): Uint8Array | null;
  /** The u16 as the other side sees it now, or null. */
  u16(gpa: number): number | null;
}

/** Mapped guest memory as such. A memory that was closed throws. */
class MappedMemory implements InspectedMemory {
  readonly #memory: RingMemory;

  constructor(memory: RingMemory) {
    this.#memory = memory;
  }

  #at(gpa: number, length: number): RegionView | null {
    try {
      return this.#memory.regionOf(gpa, length);
    } catch (error) {
      if (error instanceof VhostError && error.code === 'VHOST_ERR_CLOSED') throw error;
      return null;
    }
  }

  regionAt(gpa: number): { gpa: number; size: number } | null {
    const region = this.#at(gpa, 1);
    return region === null ? null : { gpa: region.gpa, size: region.u8.length };
  }

  copy(gpa: number, length: number): Uint8Array | null {
    const region = this.#at(gpa, length);
    if (region === null) return null;
    const bytes = new Uint8Array(length);
    bytes.set(region.u8.subarray(gpa - region.gpa, gpa - region.gpa + length));
    return bytes;
  }

  u16(gpa: number): number | null {
    const region = this.#at(gpa, 2);
    if (region === null) return null;
    const at = region.u8.byteOffset + (gpa - region.gpa);
    // A misaligned index is a violation of its own; its two bytes may be of different moments.
    if (at % 2 !== 0) return region.u8[gpa - region.gpa]! | (region.u8[gpa - region.gpa + 1]! << 8);
    // An acquire load: ring entries and descriptors copied after it are at least as new as the index.
    return Atomics.load(new Uint16Array(region.u8.buffer, at, 1), 0);
  }
}

/** Up to here a range of 2^32 bytes has safe integers for addresses. */
const LARGEST = BigInt(Number.MAX_SAFE_INTEGER) - 0xffff_ffffn;

export class RingReader {
  readonly #memory: InspectedMemory;

  constructor(memory: RingMemory | InspectedMemory) {
    this.#memory = 'regionOf' in memory ? new MappedMemory(memory) : memory;
  }

  /** A copy, or null when it is not wholly inside one region. */
  copy(gpa: number, length: number): DataView | null {
    const bytes = this.#memory.copy(gpa, length);
    return bytes === null ? null : new DataView(bytes.buffer, bytes.byteOffset, length);
  }

  /** The u16 at `gpa` as the other side sees it now, or null. */
  u16(gpa: number): number | null {
    return this.#memory.u16(gpa);
  }

  /** Where a buffer begins, if all of it is guest memory: it may cross into adjacent regions. */
  place(gpa: bigint, length: number): Place {
    if (gpa > LARGEST) return 'outside guest memory';
    const start = Number(gpa);
    const first = this.#memory.regionAt(start);
    if (first === null) return 'outside guest memory';
    for (let end = first.gpa + first.size; end < start + length; ) {
      const next = this.#memory.regionAt(end);
      if (next === null) return 'outside guest memory';
      end = next.gpa + next.size;
    }
    return { region: hexAddress(first.gpa), offset: start - first.gpa };
  }
}
