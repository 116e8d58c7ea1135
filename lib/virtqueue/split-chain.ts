/**
 * Reads descriptor chains of a driver that is not trusted: every word once, every index, length and address checked. What was read lies
 * in arrays that are used again for the next chain.
 */
import {
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
} from '../constants/virtio-ring';
import { VhostError } from '../errors';
import type { DescriptorChain } from './device-queue';
import { HIGH_WORD, type RegionView, type RingMemory, u32At } from './ring-memory';

/** Buffers of one chain at least accepted, as many as the kernel takes (UIO_MAXIOV). */
const MAX_BUFFERS = 1024;
/** The largest address word whose addresses are safe integers. */
const MAX_HIGH_WORD = 0x1fffff;

export class SplitChain implements DescriptorChain {
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

  readonly #memory: RingMemory;
  readonly #table: Uint32Array;
  readonly #size: number;
  readonly #indirect: boolean;
  #region: RegionView;

  constructor(memory: RingMemory, descTable: number, size: number, indirect: boolean) {
    this.#memory = memory;
    this.#size = size;
    this.#indirect = indirect;
    this.#table = u32At(memory, descTable, size * 4);
    this.#region = memory.regionOf(descTable, VRING_DESC_SIZE);
    const capacity = Math.max(size, MAX_BUFFERS);
    this.addresses = new Float64Array(capacity);
    this.lengths = new Uint32Array(capacity);
    this.regions = new Array<RegionView>(capacity).fill(this.#region);
  }

  /** Throws VHOST_ERR_RING for anything section 2.7 of virtio 1.4 forbids, and for buffers outside guest memory. */
  read(head: number): void {
    this.buffers = 0;
    this.firstWritable = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
    if (head >= this.#size) throw broken(`head ${head} of a queue of ${this.#size}`);
    const table = this.#table;
    let at = head;
    for (let steps = 0; ; steps++) {
      if (steps >= this.#size) throw broken(`the chain at ${head} does not end`);
      const word = at * 4;
      const low = table[word]!;
      const high = table[word + 1]!;
      const length = table[word + 2]!;
      const flagsAndNext = table[word + 3]!;
      if ((flagsAndNext & VRING_DESC_F_INDIRECT) !== 0) {
        // A table may only be the whole chain's last step; descriptors before it are allowed as the kernel allows them.
        if ((flagsAndNext & VRING_DESC_F_NEXT) !== 0) throw broken(`descriptor ${at} has INDIRECT and NEXT`);
        this.#readTable(at, low, high, length);
        return;
      }
      this.#add(low, high, length, (flagsAndNext & VRING_DESC_F_WRITE) !== 0);
      if ((flagsAndNext & VRING_DESC_F_NEXT) === 0) return;
      at = flagsAndNext >>> 16;
      if (at >= this.#size) throw broken(`next ${at} in a queue of ${this.#size}`);
    }
  }

  #readTable(holder: number, low: number, high: number, bytes: number): void {
    if (!this.#indirect) throw broken(`descriptor ${holder} is INDIRECT, which was not negotiated`);
    if (bytes === 0 || bytes % VRING_DESC_SIZE !== 0) throw broken(`indirect table of ${bytes} bytes`);
    const entries = bytes / VRING_DESC_SIZE;
    const gpa = this.#address(low, high);
    const region = this.#regionAt(gpa);
    // Tables need no alignment, so words are put together from bytes, each read once.
    const start = gpa - region.gpa;
    if (start + bytes > region.u8.length)
      throw broken(`indirect table at 0x${gpa.toString(16)} leaves its memory region`);
    const u8 = region.u8;
    let at = 0;
    for (let steps = 0; ; steps++) {
      if (steps >= entries) throw broken(`the chain in the indirect table of descriptor ${holder} does not end`);
      const entry = start + at * VRING_DESC_SIZE;
      const flags = u8[entry + 12]! | (u8[entry + 13]! << 8);
      const next = u8[entry + 14]! | (u8[entry + 15]! << 8);
      if ((flags & VRING_DESC_F_INDIRECT) !== 0) throw broken(`indirect table within that of descriptor ${holder}`);
      this.#add(word(u8, entry), word(u8, entry + 4), word(u8, entry + 8), (flags & VRING_DESC_F_WRITE) !== 0);
      if ((flags & VRING_DESC_F_NEXT) === 0) return;
      at = next;
      if (at >= entries) throw broken(`next ${at} in an indirect table of ${entries}`);
    }
  }

  #add(low: number, high: number, length: number, writable: boolean): void {
    if (length === 0) throw broken('a buffer of no bytes');
    if (!writable && this.firstWritable < this.buffers) throw broken('a readable buffer behind a writable one');
    let gpa = this.#address(low, high);
    let left = length;
    while (left > 0) {
      const region = this.#regionAt(gpa);
      const part = Math.min(left, region.gpa + region.u8.length - gpa);
      const index = this.buffers;
      if (index >= this.addresses.length) throw broken(`a chain of more than ${index} buffers`);
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

  #address(low: number, high: number): number {
    if (high > MAX_HIGH_WORD) throw broken(`address 0x${high.toString(16)}${low.toString(16).padStart(8, '0')}`);
    return high * HIGH_WORD + low;
  }

  #regionAt(gpa: number): RegionView {
    const last = this.#region;
    if (gpa >= last.gpa && gpa < last.gpa + last.u8.length) return last;
    try {
      this.#region = this.#memory.regionOf(gpa, 1);
    } catch (cause) {
      throw broken(`address 0x${gpa.toString(16)} is outside guest memory`, cause);
    }
    return this.#region;
  }
}

const word = (u8: Uint8Array, at: number): number =>
  (u8[at]! | (u8[at + 1]! << 8) | (u8[at + 2]! << 16) | (u8[at + 3]! << 24)) >>> 0;

/** What a device says of a ring it will not touch again. */
export function broken(what: string, cause?: unknown): VhostError {
  return new VhostError('VHOST_ERR_RING', `split virtqueue: ${what}`, cause === undefined ? {} : { cause });
}
