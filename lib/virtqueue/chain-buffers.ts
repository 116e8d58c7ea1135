/**
 * The buffers of a chain, whatever format the ring has: every length and address of a driver that is not trusted is checked on the way in.
 * What was read lies in arrays that are used again for the next chain.
 */
import { VRING_DESC_SIZE } from '../constants/virtio-ring';
import type { VhostError } from '../errors';
import { brokenRing } from './broken';
import type { DescriptorChain } from './device-queue';
import { HIGH_WORD, type RegionView, type RingMemory } from './ring-memory';

/** Buffers of one chain at least accepted, as many as the kernel takes (UIO_MAXIOV). */
const MAX_BUFFERS = 1024;
/** The largest address word whose addresses are safe integers. */
const MAX_HIGH_WORD = 0x1fffff;

export abstract class ChainBuffers implements DescriptorChain {
  /** Buffers of the chain read last; one that crosses into an adjacent region counts as two. */
  buffers = 0;
  /** The first of them that the device may write: those before are for reading. */
  firstWritable = 0;
  /** Bytes to read and to write. */
  readableBytes = 0;
  writableBytes = 0;
  /** Of buffer i: guest physical address, bytes, and the region it lies in. */
  readonly addresses: Float64Array;
  readonly lengths: Uint32Array;
  readonly regions: RegionView[];

  /** The region that holds the indirect table opened last. */
  protected table: Uint8Array;
  readonly #format: 'split' | 'packed';
  readonly #memory: RingMemory;
  readonly #indirect: boolean;
  #region: RegionView;

  protected constructor(
    format: 'split' | 'packed',
    memory: RingMemory,
    descTable: number,
    size: number,
    indirect: boolean,
  ) {
    this.#format = format;
    this.#memory = memory;
    this.#indirect = indirect;
    this.#region = memory.regionOf(descTable, VRING_DESC_SIZE);
    this.table = this.#region.u8;
    const capacity = Math.max(size, MAX_BUFFERS);
    this.addresses = new Float64Array(capacity);
    this.lengths = new Uint32Array(capacity);
    this.regions = new Array<RegionView>(capacity).fill(this.#region);
  }

  protected begin(): void {
    this.buffers = 0;
    this.firstWritable = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
  }

  /** Checks the indirect table that descriptor `holder` names and answers where in `table` it begins. */
  protected openTable(holder: number, low: number, high: number, bytes: number): number {
    if (!this.#indirect) throw this.broken(`descriptor ${holder} is INDIRECT, which was not negotiated`);
    if (bytes === 0 || bytes % VRING_DESC_SIZE !== 0) throw this.broken(`indirect table of ${bytes} bytes`);
    const gpa = this.#address(low, high);
    const region = this.#regionAt(gpa);
    const start = gpa - region.gpa;
    if (start + bytes > region.u8.length)
      throw this.broken(`indirect table at 0x${gpa.toString(16)} leaves its memory region`);
    this.table = region.u8;
    return start;
  }

  protected add(low: number, high: number, length: number, writable: boolean): void {
    if (length === 0) throw this.broken('a buffer of no bytes');
    if (!writable && this.firstWritable < this.buffers) throw this.broken('a readable buffer behind a writable one');
    let gpa = this.#address(low, high);
    let left = length;
    while (left > 0) {
      const region = this.#regionAt(gpa);
      const part = Math.min(left, region.gpa + region.u8.length - gpa);
      const index = this.buffers;
      if (index >= this.addresses.length) throw this.broken(`a chain of more than ${index} buffers`);
      this.addresses[index] = gpa;
      this.lengths[index] = part;
      this.regions[index] = region;
      this.buffers = index + 1;
      if (!writable) this.firstWritable = index + 1;
      gpa += part;
      left -= part;
    }
    if (writable) this.writableBytes += length;
    else this.readableBytes += length;
  }

  protected broken(what: string, cause?: unknown): VhostError {
    return brokenRing(this.#format, what, cause);
  }

  #address(low: number, high: number): number {
    if (high > MAX_HIGH_WORD) throw this.broken(`address 0x${high.toString(16)}${low.toString(16).padStart(8, '0')}`);
    return high * HIGH_WORD + low;
  }

  #regionAt(gpa: number): RegionView {
    const last = this.#region;
    if (gpa >= last.gpa && gpa < last.gpa + last.u8.length) return last;
    try {
      this.#region = this.#memory.regionOf(gpa, 1);
    } catch (cause) {
      throw this.broken(`address 0x${gpa.toString(16)} is outside guest memory`, cause);
    }
    return this.#region;
  }
}

/** Indirect tables need no alignment, so words are put together from bytes, each read once. */
export const tableWord = (u8: Uint8Array, at: number): number =>
  (u8[at]! | (u8[at + 1]! << 8) | (u8[at + 2]! << 16) | (u8[at + 3]! << 24)) >>> 0;
