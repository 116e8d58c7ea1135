/** Reads guest memory for an inspection: copies and words, null where there is no memory. Never writes. */
import { VhostError } from '../errors';
import { hexAddress, type Place } from './ring-inspection';
import type { RegionView, RingMemory } from './ring-memory';

/** Where a range of addresses is a safe integer throughout. */
const LARGEST = BigInt(Number.MAX_SAFE_INTEGER) - 0xffff_ffffn;

export class RingReader {
  readonly #memory: RingMemory;

  constructor(memory: RingMemory) {
    this.#memory = memory;
  }

  /** The region that holds all of it, or null. A memory that was closed throws. */
  #region(gpa: number, length: number): RegionView | null {
    try {
      const region = this.#memory.regionOf(gpa, length);
      return region.u8.length === 0 ? null : region;
    } catch (error) {
      if (error instanceof VhostError && error.code === 'VHOST_ERR_CLOSED') throw error;
      return null;
    }
  }

  /** A copy, or null when it is not wholly inside one region. */
  copy(gpa: number, length: number): DataView | null {
    const region = this.#region(gpa, length);
    if (region === null) return null;
    const at = gpa - region.gpa;
    const bytes = new Uint8Array(length);
    bytes.set(region.u8.subarray(at, at + length));
    return new DataView(bytes.buffer);
  }

  /** The u16 at `gpa` as the other side sees it now, or null. */
  u16(gpa: number): number | null {
    const region = this.#region(gpa, 2);
    if (region === null) return null;
    const at = region.u8.byteOffset + (gpa - region.gpa);
    // A misaligned index is a violation of its own; two byte reads may then disagree, which nothing here relies on.
    if (at % 2 !== 0) return region.u8[gpa - region.gpa]! | (region.u8[gpa - region.gpa + 1]! << 8);
    // An acquire load: ring entries and descriptors copied after it are at least as new as the index.
    return Atomics.load(new Uint16Array(region.u8.buffer, at, 1), 0);
  }

  /** Where a buffer begins, if all of it is guest memory: it may cross into adjacent regions. */
  place(gpa: bigint, length: number): Place {
    if (gpa > LARGEST) return 'outside guest memory';
    const start = Number(gpa);
    const first = this.#region(start, 1);
    if (first === null) return 'outside guest memory';
    let region = first;
    for (let end = region.gpa + region.u8.length; end < start + length; end = region.gpa + region.u8.length) {
      const next = this.#region(end, 1);
      if (next === null || next.gpa + next.u8.length <= end) return 'outside guest memory';
      region = next;
    }
    return { region: hexAddress(first.gpa), offset: start - first.gpa };
  }
}
