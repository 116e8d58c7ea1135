/**
 * Receive buffers taken from the driver ahead of the frames they are for, each descriptor read once and kept here, so that frames are read
 * from the tap when there is room for them.
 */

import type { DeviceQueue } from '../virtqueue/device-queue';
import type { RegionView } from '../virtqueue/ring-memory';

export class HeldChains {
  readonly #most: number;
  readonly #ids: Int32Array;
  /** First buffer of chain i in the flat arrays; one more entry marks the end. */
  readonly #firsts: Int32Array;
  readonly #bytes: Float64Array;
  readonly #addresses: number[] = [];
  readonly #lengths: number[] = [];
  readonly #regions: RegionView[] = [];
  #count = 0;
  #taken = 0;
  #left = 0;

  /** `most`: entries of the ring. */
  constructor(most: number) {
    this.#most = most;
    this.#ids = new Int32Array(most);
    this.#firsts = new Int32Array(most + 1);
    this.#bytes = new Float64Array(most);
  }

  /**
   * Takes chains from `device` until there are `enough`, with room for `bytes` at least, or no more. Throws VHOST_ERR_RING for a chain no
   * device may write to.
   */
  fill(device: DeviceQueue, enough: number, bytes: number): void {
    while (this.#count < this.#most && (this.#count < enough || this.#left < bytes)) {
      const id = device.pop();
      if (id < 0) return;
      const { chain } = device;
      if (chain.firstWritable !== 0) throw device.fail('a readable buffer on the receive queue');
      let at = this.#firsts[this.#count]!;
      for (let index = 0; index < chain.buffers; index++, at++) {
        this.#addresses[at] = chain.addresses[index]!;
        this.#lengths[at] = chain.lengths[index]!;
        this.#regions[at] = chain.regions[index]!;
      }
      this.#ids[this.#count] = id;
      this.#bytes[this.#count] = chain.writableBytes;
      this.#left += chain.writableBytes;
      this.#firsts[++this.#count] = at;
    }
  }

  /** Frames of up to `largest` bytes for which there certainly is room: of whole chains each, of one chain each unless `merged`. */
  room(largest: number, merged: boolean): number {
    if (!merged) return this.#count - this.#taken;
    let frames = 0;
    let bytes = 0;
    for (let index = this.#taken; index < this.#count; index++) {
      bytes += this.#bytes[index]!;
      if (bytes >= largest) {
        frames++;
        bytes = 0;
      }
    }
    return frames;
  }

  /** Bytes of the chains that were not written to. */
  get left(): number {
    return this.#left;
  }

  /** As many chains as the ring has entries: the driver can add none. */
  get full(): boolean {
    return this.#count === this.#most;
  }

  /** The next chain to write to, or -1. */
  get current(): number {
    return this.#taken < this.#count ? this.#taken : -1;
  }

  idOf(index: number): number {
    return this.#ids[index]!;
  }

  bytesOf(index: number): number {
    return this.#bytes[index]!;
  }

  /** The chain was written to and goes back to the driver. */
  take(): void {
    this.#left -= this.#bytes[this.#taken]!;
    this.#taken++;
  }

  /** Copies `length` bytes from `source` into chain `index`; `mark` hears of each piece. */
  write(
    index: number,
    source: Uint8Array,
    from: number,
    length: number,
    mark: (gpa: number, length: number) => void,
  ): void {
    let done = 0;
    for (let at = this.#firsts[index]!; done < length; at++) {
      const part = Math.min(length - done, this.#lengths[at]!);
      const region = this.#regions[at]!;
      const gpa = this.#addresses[at]!;
      region.u8.set(source.subarray(from + done, from + done + part), gpa - region.gpa);
      mark(gpa, part);
      done += part;
    }
  }

  /** Gives what was not written to back to the driver's ring, and forgets everything. */
  release(device: DeviceQueue): void {
    if (this.#count > this.#taken) device.unpop(this.#count - this.#taken);
    this.#count = 0;
    this.#taken = 0;
    this.#left = 0;
  }
}
