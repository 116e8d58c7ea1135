/**
 * The receive half of the emulated data path: frames read from the inlet, which is the tap, go into the driver's buffers, in batches. Nobody can tell how long a
 * frame is before it is read. So frames are read while there is room for the largest, and while there is less, which may be all that a
 * driver ever posts, one at a time: one that does not fit then is kept until the driver has posted more.
 */
import { VIRTIO_NET_F_MRG_RXBUF } from '../constants/virtio-net';
import { hasBit } from '../net/features';
import type { DeviceQueue } from '../virtqueue/device-queue';
import type { DeviceWriteLog } from './emulated-log';
import { BATCH, frameArena, STRIDE } from './frame-arena';
import type { FrameInlet } from './frame-inlet';
import { HeldChains } from './held-chains';

/** Offset of num_buffers in virtio_net_hdr. */
const NUM_BUFFERS = 10;
/** Chains that are taken for a run: as many as the last ones needed, since each costs time even when no frame comes for it. */
const LEAST_CHAINS = 8;
const MOST_CHAINS = 256;

export interface ReceiveOptions {
  features: bigint;
  /** Bytes of header before each frame. */
  header: number;
  /** Bytes of the largest frame the tap gives, and of the largest that was not put together from several; header included. */
  largest: number;
  ordinary: number;
}

/** A frame that waits for buffers, with its header. It outlives the ring, not the data path. */
export interface KeptFrame {
  bytes: Uint8Array | null;
  /** No other frame is read any more: the data path is about to stop. */
  last: boolean;
}

/** What one run did: `starved` when frames may wait but buffers are missing. */
export interface ReceiveRun {
  frames: number;
  starved: boolean;
}

export class EmulatedReceive {
  readonly #device: DeviceQueue;
  readonly #inlet: FrameInlet;
  readonly #log: DeviceWriteLog;
  readonly #options: ReceiveOptions;
  readonly #merged: boolean;
  readonly #kept: KeptFrame;
  readonly #held: HeldChains;
  #enough = LEAST_CHAINS;
  readonly #arena = frameArena();
  readonly #lengths = new Int32Array(BATCH);
  readonly #mark = (gpa: number, length: number): void => {
    if (this.#log.enabled) this.#log.mark(gpa, length);
  };
  readonly #result: ReceiveRun = { frames: 0, starved: false };
  received = 0;
  /** Frames larger than the buffer that was there for them, without MRG_RXBUF: dropped, as the kernel does. */
  dropped = 0;

  constructor(device: DeviceQueue, inlet: FrameInlet, log: DeviceWriteLog, kept: KeptFrame, options: ReceiveOptions) {
    this.#device = device;
    this.#inlet = inlet;
    this.#log = log;
    this.#options = options;
    this.#merged = hasBit(options.features, VIRTIO_NET_F_MRG_RXBUF);
    this.#kept = kept;
    this.#held = new HeldChains(device.size);
  }

  /** Moves one batch; `onCall` is told when the driver wants to know. The answer is used again by the next call. */
  run(onCall: () => void): ReceiveRun {
    const device = this.#device;
    const held = this.#held;
    const result = this.#result;
    result.frames = 0;
    held.fill(device, this.#enough, this.#options.largest);
    try {
      if (this.#kept.bytes === null) this.#read(result);
      else this.#deliverKept(this.#kept.bytes, result);
    } finally {
      held.release(device);
    }
    if (device.publish()) onCall();
    return result;
  }

  #read(result: ReceiveRun): void {
    const room = this.#kept.last ? 0 : this.#room();
    result.starved = room === 0;
    if (room === 0) return;
    const frames = this.#inlet.read(this.#arena, STRIDE, room, this.#lengths);
    for (let index = 0; index < frames; index++) this.#deliver(index * STRIDE, this.#lengths[index]!);
    // An empty queue, and a tap that is gone, both are no frames.
    result.frames = Math.max(0, frames);
    if (frames === room) this.#enough = Math.min(MOST_CHAINS, 2 * this.#enough);
    else if (2 * frames < room) this.#enough = Math.max(LEAST_CHAINS, this.#enough >> 1);
  }

  /** Frames that may be read now. */
  #room(): number {
    const held = this.#held;
    const certain = Math.min(BATCH, held.room(this.#options.largest, this.#merged));
    if (certain > 0 || !this.#merged) return certain;
    return held.left >= this.#options.ordinary || held.full ? 1 : 0;
  }

  #deliverKept(bytes: Uint8Array, result: ReceiveRun): void {
    result.starved = this.#held.left < bytes.length;
    if (result.starved) return;
    this.#kept.bytes = null;
    this.#arena.set(bytes);
    this.#deliver(0, bytes.length);
    result.frames = 1;
  }

  #deliver(at: number, length: number): void {
    const held = this.#held;
    const first = held.current;
    if (!this.#merged && length > held.bytesOf(first)) {
      this.dropped++;
      return;
    }
    if (length > held.left) {
      this.#kept.bytes = this.#arena.slice(at, at + length);
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
