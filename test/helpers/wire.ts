/** The device of a guest in plain TypeScript: takes its frames off the transmit queue and delivers frames to its receive queue. */
import { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX } from '../../lib/constants/virtio-net';
import { hasBit } from '../../lib/net/features';
import { HDR_NUM_BUFFERS, headerLength } from '../../lib/net/header';
import type { DeviceQueue } from '../../lib/virtqueue/device-queue';
import { openDeviceQueue } from '../../lib/virtqueue/open-queue';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import type { RingMemory, WriteLog } from '../../lib/virtqueue/ring-memory';

export class WireDevice {
  readonly rx: DeviceQueue;
  readonly tx: DeviceQueue;
  /** Calls that the guest had to be given. */
  rxCalls = 0;
  txCalls = 0;
  readonly #header: number;
  readonly #merged: boolean;

  constructor(memory: RingMemory, queues: readonly QueueState[], features: bigint, log?: WriteLog) {
    const options = { eventIdx: hasBit(features, VIRTIO_RING_F_EVENT_IDX), ...(log === undefined ? {} : { log }) };
    this.rx = openDeviceQueue(memory, queues[0]!, options);
    this.tx = openDeviceQueue(memory, queues[1]!, options);
    this.#header = headerLength(features);
    this.#merged = hasBit(features, VIRTIO_NET_F_MRG_RXBUF);
  }

  /** Every frame the guest has made available, at most `most`. */
  take(most = Number.POSITIVE_INFINITY): Uint8Array[] {
    const frames: Uint8Array[] = [];
    while (frames.length < most) {
      const id = this.tx.pop();
      if (id < 0) break;
      const { chain } = this.tx;
      if (chain.firstWritable !== chain.buffers) throw new Error('a writable buffer on the transmit queue');
      const frame = new Uint8Array(chain.readableBytes);
      let at = 0;
      for (let index = 0; index < chain.buffers; index++) {
        const { u8, gpa } = chain.regions[index]!;
        const start = chain.addresses[index]! - gpa;
        frame.set(u8.subarray(start, start + chain.lengths[index]!), at);
        at += chain.lengths[index]!;
      }
      frames.push(frame.subarray(this.#header));
      this.tx.push(id, 0);
    }
    if (this.tx.publish()) this.txCalls++;
    return frames;
  }

  /** Answers false, and leaves the queue as it was, when there are not enough buffers. */
  deliver(frame: Uint8Array): boolean {
    const bytes = new Uint8Array(this.#header + frame.length);
    bytes.set(frame, this.#header);
    const used: { id: number; length: number }[] = [];
    let first: { u8: Uint8Array; at: number } | null = null;
    let written = 0;
    while (written < bytes.length) {
      const id = this.rx.pop();
      if (id < 0 || (used.length > 0 && !this.#merged)) {
        this.rx.unpop(used.length + (id < 0 ? 0 : 1));
        return false;
      }
      const { chain } = this.rx;
      if (chain.firstWritable !== 0) throw new Error('a readable buffer on the receive queue');
      const before = written;
      for (let index = 0; index < chain.buffers && written < bytes.length; index++) {
        const { u8, gpa } = chain.regions[index]!;
        const at = chain.addresses[index]! - gpa;
        const count = Math.min(chain.lengths[index]!, bytes.length - written);
        u8.set(bytes.subarray(written, written + count), at);
        first ??= { u8, at };
        written += count;
      }
      used.push({ id, length: written - before });
    }
    const { u8, at } = first!;
    if (this.#merged) new DataView(u8.buffer, u8.byteOffset).setUint16(at + HDR_NUM_BUFFERS, used.length, true);
    for (const { id, length } of used) this.rx.push(id, length);
    if (this.rx.publish()) this.rxCalls++;
    return true;
  }
}
