/** The receive half of the emulated data path: frames read from the tap go into the driver's buffers, in batches. */
import { VIRTIO_NET_F_MRG_RXBUF } from '../constants/virtio-net';
import type { Tap } from '../host/tap';
import { native } from '../native';
import { hasBit } from '../net/features';
import type { DeviceQueue } from '../virtqueue/device-queue';
import type { DeviceWriteLog } from './emulated-log';
import { BATCH, frameArena, STRIDE } from './frame-arena';
import { HeldChains } from './held-chains';

/** Offset of num_buffers in virtio_net_hdr. */
const NUM_BUFFERS = 10;

export interface ReceiveOptions {
  features: bigint;
  /** Bytes of header before each frame. */
  header: number;
  /** Bytes of the largest frame the tap gives, header included. */
  largest: number;
}

/** What one run did: `starved` when frames may wait but buffers are missing. */
export interface ReceiveRun {
  frames: number;
  starved: boolean;
}

export class EmulatedReceive {
  readonly #device: DeviceQueue;
  readonly #tap: Tap;
  readonly #log: DeviceWriteLog;
  readonly #options: ReceiveOptions;
  readonly #merged: boolean;
  readonly #held: HeldChains;
  readonly #arena = frameArena();
  readonly #lengths = new Int32Array(BATCH);
  readonly #mark = (gpa: number, length: number): void => {
    if (this.#log.enabled) this.#log.mark(gpa, length);
  };
  readonly #result: ReceiveRun = { frames: 0, starved: false };
  received = 0;
  /** Frames larger than the buffer that was there for them, without MRG_RXBUF: dropped, as the kernel does. */
  dropped = 0;

  constructor(device: DeviceQueue, tap: Tap, log: DeviceWriteLog, options: ReceiveOptions) {
    this.#device = device;
    this.#tap = tap;
    this.#log = log;
    this.#options = options;
    this.#merged = hasBit(options.features, VIRTIO_NET_F_MRG_RXBUF);
    this.#held = new HeldChains(Math.max(BATCH, Math.min(device.size, 256)));
  }

  /** Moves one batch; `onCall` is told when the driver wants to know. The answer is used again by the next call. */
  run(onCall: () => void): ReceiveRun {
    const device = this.#device;
    const held = this.#held;
    const result = this.#result;
    result.frames = 0;
    held.fill(device);
    try {
      const room = Math.min(BATCH, held.room(this.#options.largest, this.#merged));
      result.starved = room === 0;
      if (room > 0) {
        const frames = native().framesRead(this.#tap.handle, this.#arena, STRIDE, room, this.#lengths);
        for (let index = 0; index < frames; index++) this.#deliver(index * STRIDE, this.#lengths[index]!);
        // An empty queue, and a tap that is gone, both are no frames.
        result.frames = Math.max(0, frames);
      }
    } finally {
      held.release(device);
    }
    if (device.publish()) onCall();
    return result;
  }

  #deliver(at: number, length: number): void {
    const held = this.#held;
    const first = held.current;
    if (!this.#merged && length > held.bytesOf(first)) {
      this.dropped++;
      return;
    }
    let buffers = 0;
    for (let left = length; left > 0; buffers++) left -= Math.min(left, held.bytesOf(first + buffers));
    if (this.#options.header > NUM_BUFFERS) {
      this.#arena[at + NUM_BUFFERS] = buffers & 0xff;
      this.#arena[at + NUM_BUFFERS + 1] = buffers >> 8;
    }
    let done = 0;
    for (let index = first; index < first + buffers; index++) {
      const part = Math.min(length - done, held.bytesOf(index));
      held.write(index, this.#arena, at + done, part, this.#mark);
      this.#device.push(held.idOf(index), part);
      held.take();
      done += part;
    }
    this.received++;
  }
}
