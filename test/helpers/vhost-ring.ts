/** A split virtqueue as plain numbers in guest memory, driven by hand: what a test needs to see every byte of it. */
import { gpa } from '../../lib/memory/address';
import type { GuestMemory, GuestRegion } from '../../lib/memory/guest-memory';
import type { QueueState } from '../../lib/virtqueue/queue-state';

export const VIRTQ_DESC_F_NEXT = 1;
export const VIRTQ_DESC_F_WRITE = 2;

const pageUp = (address: number): number => Math.ceil(address / 4096) * 4096;

export interface RingOptions {
  /** Where every index starts. */
  start?: number;
  /** Offset of the used ring in its first page. */
  usedOffset?: number;
}

/** Descriptor table, available ring and used ring, each on pages of its own. */
export class RawRing {
  readonly size: number;
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** First page behind the ring. */
  readonly end: number;
  readonly #region: GuestRegion;
  #availIdx: number;
  /** Used entries taken so far, free-running. */
  taken: number;

  constructor(memory: GuestMemory, at: number, size: number, { start = 0, usedOffset = 0 }: RingOptions = {}) {
    this.size = size;
    this.desc = at;
    this.avail = pageUp(at + 16 * size);
    this.used = pageUp(this.avail + 6 + 2 * size) + usedOffset;
    this.end = pageUp(this.used + 6 + 8 * size);
    this.#region = memory.regionOf(at, this.end - at);
    this.#availIdx = start;
    this.taken = start;
    this.#setU16(this.avail + 2, start);
    this.#setU16(this.used + 2, start);
  }

  #setU16(address: number, value: number): void {
    Atomics.store(this.#region.u16, (address - this.#region.gpa) >> 1, value & 0xffff);
  }

  #u16(address: number): number {
    return Atomics.load(this.#region.u16, (address - this.#region.gpa) >> 1);
  }

  #setU32(address: number, value: number): void {
    this.#region.u32[(address - this.#region.gpa) >> 2] = value;
  }

  #u32(address: number): number {
    return this.#region.u32[(address - this.#region.gpa) >> 2]!;
  }

  state(overrides: Partial<QueueState> = {}): QueueState {
    return {
      size: this.size,
      ready: true,
      descTable: gpa(this.desc),
      availRing: gpa(this.avail),
      usedRing: gpa(this.used),
      nextAvail: this.usedIdx,
      ...overrides,
    };
  }

  setDescriptor(id: number, address: number, length: number, flags: number, next = 0): void {
    const at = this.desc + 16 * id;
    this.#setU32(at, address >>> 0);
    this.#setU32(at + 4, Math.floor(address / 2 ** 32));
    this.#setU32(at + 8, length);
    this.#setU16(at + 12, flags);
    this.#setU16(at + 14, next);
  }

  /** Puts the chain headed by `id` in the next available entry, not yet visible. */
  offer(id: number): void {
    this.#setU16(this.avail + 4 + 2 * (this.#availIdx & (this.size - 1)), id);
    this.#availIdx = (this.#availIdx + 1) & 0xffff;
  }

  /** Makes what was offered visible. */
  publish(): void {
    this.#setU16(this.avail + 2, this.#availIdx);
  }

  post(id: number, address: number, length: number, flags: number): void {
    this.setDescriptor(id, address, length, flags);
    this.offer(id);
    this.publish();
  }

  get availIdx(): number {
    return this.#availIdx;
  }

  get usedIdx(): number {
    return this.#u16(this.used + 2);
  }

  get usedFlags(): number {
    return this.#u16(this.used);
  }

  set usedFlags(value: number) {
    this.#setU16(this.used, value);
  }

  /** Used entries that were not taken yet. */
  get waiting(): number {
    return (this.usedIdx - this.taken) & 0xffff;
  }

  usedId(index: number): number {
    return this.#u32(this.used + 4 + 8 * (index & (this.size - 1)));
  }

  usedLength(index: number): number {
    return this.#u32(this.used + 8 + 8 * (index & (this.size - 1)));
  }

  /** Asks the device for no calls: the tests look for themselves. */
  suppressCalls(): void {
    this.#setU16(this.avail, 1);
  }
}
