/** The transmit half of the emulated data path: chains of the driver become frames written to the tap, in batches. */
import type { Tap } from '../host/tap';
import { native } from '../native';
import type { DeviceQueue } from '../virtqueue/device-queue';
import { BATCH, frameArena, STRIDE } from './frame-arena';
import type { TransmitObserver } from './frame-inlet';

export class EmulatedTransmit {
  readonly #device: DeviceQueue;
  readonly #tap: Tap;
  readonly #observer: TransmitObserver | null;
  readonly #arena = frameArena();
  readonly #lengths = new Int32Array(BATCH);
  readonly #ids = new Int32Array(BATCH);
  /** Frames given to the tap, and frames the tap refused (bad header, link down): completed all the same, as the kernel does. */
  sent = 0;
  refused = 0;

  constructor(device: DeviceQueue, tap: Tap, observer: TransmitObserver | null = null) {
    this.#device = device;
    this.#tap = tap;
    this.#observer = observer;
  }

  /** Moves one batch. Answers how many chains it completed; `onCall` is told when the driver wants to know. */
  run(onCall: () => void): number {
    const device = this.#device;
    let count = 0;
    while (count < BATCH) {
      const id = device.pop();
      if (id < 0) break;
      this.#gather(count);
      this.#ids[count++] = id;
    }
    if (count === 0) return 0;
    this.#write(count);
    this.#observer?.(this.#arena, STRIDE, count, this.#lengths);
    for (let index = 0; index < count; index++) device.push(this.#ids[index]!, 0);
    if (device.publish()) onCall();
    return count;
  }

  #gather(index: number): void {
    const { chain } = this.#device;
    if (chain.firstWritable !== chain.buffers) throw this.#device.fail('a writable buffer on the transmit queue');
    const start = index * STRIDE;
    let at = start;
    if (chain.readableBytes <= STRIDE) {
      for (let buffer = 0; buffer < chain.buffers; buffer++) {
        const region = chain.regions[buffer]!;
        const from = chain.addresses[buffer]! - region.gpa;
        this.#arena.set(region.u8.subarray(from, from + chain.lengths[buffer]!), at);
        at += chain.lengths[buffer]!;
      }
    }
    // A frame no tap takes has length 0 here and is refused below.
    this.#lengths[index] = at - start;
  }

  #write(count: number): void {
    let first = 0;
    while (first < count) {
      const arena = first === 0 ? this.#arena : this.#arena.subarray(first * STRIDE);
      const lengths = first === 0 ? this.#lengths : this.#lengths.subarray(first);
      const written = native().framesWrite(this.#tap.handle, arena, STRIDE, count - first, lengths);
      if (written > 0) {
        this.sent += written;
        first += written;
      }
      if (first < count && written < count) {
        // The frame now in front is the one the tap did not take.
        this.refused++;
        first++;
      }
    }
  }
}
