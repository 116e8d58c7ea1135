/**
 * A network driver by hand: negotiates over the registers of a device, owns one queue pair and the control queue, and sends and receives
 * any frame with any header. For what a guest that only knows its numbered frames cannot do.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_GSO_NONE,
} from '../../lib/constants/virtio-net';
import { ControlDriver } from '../../lib/guest/control-driver';
import { type MmioBus, MmioDriver } from '../../lib/guest/mmio-driver';
import { attachQueue, formatQueue, planQueue } from '../../lib/guest/rings';
import { PAGE_SIZE } from '../../lib/memory/address';
import type { GuestMemory } from '../../lib/memory/guest-memory';
import type { ControlCommand } from '../../lib/net/control-command';
import { hasBit } from '../../lib/net/features';
import { headerLength, readHeader, type VirtioNetHeader, writeHeader } from '../../lib/net/header';
import type { DriverQueue } from '../../lib/virtqueue/driver-queue';
import { alignUp } from '../../lib/virtqueue/layout';
import { highWord, lowWord, NO_WRITE_LOG } from '../../lib/virtqueue/ring-memory';
import { until } from './vhost-wait';

export interface RawDriverOptions {
  /** Features to ack where they are offered. */
  wanted: bigint;
  /** Where its memory begins, and where that of each further life or queue follows. Default 1 MiB. */
  gpa?: number;
  /** Entries of each queue. Default 64. */
  size?: number;
  /** Bytes of a buffer, header included. Default 2,048 to receive and 65,600 to send. */
  rxBufferSize?: number;
  txBufferSize?: number;
}

/** A frame as it was received. */
export interface RawFrame {
  header: VirtioNetHeader;
  bytes: Uint8Array;
  /** Buffers it came in. */
  buffers: number;
}

const NO_OFFLOAD: VirtioNetHeader = {
  flags: 0,
  gsoType: VIRTIO_NET_HDR_GSO_NONE,
  hdrLen: 0,
  gsoSize: 0,
  csumStart: 0,
  csumOffset: 0,
  numBuffers: 0,
};

/** A queue with a buffer for each descriptor. */
export interface RawQueue {
  readonly number: number;
  readonly ring: DriverQueue;
  /** Address of the buffer of descriptor 0. */
  readonly buffers: number;
  readonly bufferSize: number;
}

export class RawNetDriver {
  readonly mmio: MmioDriver;
  readonly memory: GuestMemory;
  readonly headerLength: number;
  rx!: RawQueue;
  tx!: RawQueue;
  control: ControlDriver | null = null;
  controlQueue = -1;
  /** Frames with their headers that the device has not used, oldest first. */
  readonly #unsent: Uint8Array[] = [];
  readonly #merged: boolean;
  readonly #options: Required<RawDriverOptions>;
  #next: number;

  private constructor(mmio: MmioDriver, memory: GuestMemory, options: RawDriverOptions) {
    this.mmio = mmio;
    this.memory = memory;
    this.headerLength = headerLength(mmio.features);
    this.#merged = hasBit(mmio.features, VIRTIO_NET_F_MRG_RXBUF);
    this.#options = { gpa: 0x10_0000, size: 64, rxBufferSize: 2048, txBufferSize: 65_600, ...options };
    this.#next = this.#options.gpa;
  }

  /** From reset to FEATURES_OK: queues are set up by `setUp`. */
  static async negotiate(bus: MmioBus, memory: GuestMemory, options: RawDriverOptions): Promise<RawNetDriver> {
    const mmio = MmioDriver.probe(bus);
    await mmio.reset();
    mmio.negotiate(options.wanted);
    return new RawNetDriver(mmio, memory, options);
  }

  /** From reset to DRIVER_OK, receive buffers posted. */
  static async start(bus: MmioBus, memory: GuestMemory, options: RawDriverOptions): Promise<RawNetDriver> {
    const driver = await RawNetDriver.negotiate(bus, memory, options);
    driver.setUpReceive();
    driver.setUpTransmit();
    if (hasBit(driver.mmio.features, VIRTIO_NET_F_CTRL_VQ)) driver.#setUpControl();
    driver.mmio.driverOk();
    return driver;
  }

  #take(bytes: number, alignment = PAGE_SIZE): number {
    const start = alignUp(this.#next, alignment);
    this.#next = start + bytes;
    return start;
  }

  #queue(number: number, bufferSize: number): RawQueue {
    const size = Math.min(this.#options.size, this.mmio.queueMax(number));
    const plan = planQueue(this.mmio.features, size, false, (bytes, alignment) => this.#take(bytes, alignment));
    formatQueue(this.memory, plan, NO_WRITE_LOG);
    const ring = attachQueue(this.memory, plan.state, NO_WRITE_LOG);
    return { number, ring, buffers: this.#take(size * bufferSize), bufferSize };
  }

  /** A receive queue on memory of its own, all buffers posted, and told to the device. */
  setUpReceive(): void {
    this.rx = this.#queue(0, this.#options.rxBufferSize);
    this.mmio.setUpQueue(0, this.rx.ring.queueState());
    const { ring, buffers, bufferSize } = this.rx;
    while (ring.free > 0) {
      const at = buffers + ring.nextId * bufferSize;
      ring.post(lowWord(at), highWord(at), bufferSize, true);
    }
    ring.publish();
    this.mmio.kick(0);
  }

  /** An empty transmit queue on memory of its own, told to the device. */
  setUpTransmit(): void {
    this.tx = this.#queue(1, this.#options.txBufferSize);
    this.mmio.setUpQueue(1, this.tx.ring.queueState());
  }

  #setUpControl(): void {
    const { features } = this.mmio;
    this.controlQueue = 2 * (hasBit(features, VIRTIO_NET_F_MQ) ? this.mmio.config().maxPairs : 1);
    const { ring, buffers, bufferSize } = this.#queue(this.controlQueue, 64);
    this.mmio.setUpQueue(this.controlQueue, ring.queueState());
    this.control = new ControlDriver(ring, this.memory, { gpa: buffers, bytes: ring.size * bufferSize });
  }

  /** The ack of a command. */
  async command(command: ControlCommand): Promise<number> {
    const { control } = this;
    if (control === null) throw new Error('there is no control queue');
    if (control.send(command)) this.mmio.kick(this.controlQueue);
    let ack: number | null = null;
    await until(`an ack of ${command.kind}`, () => {
      ack = control.poll();
      return ack !== null;
    });
    return ack!;
  }

  /** Writes a frame behind its header and makes it available, unpublished. Answers false when the ring is full. */
  post(bytes: Uint8Array, header: Partial<VirtioNetHeader> = {}): boolean {
    this.reap();
    if (this.tx.ring.free === 0) return false;
    const whole = new Uint8Array(this.headerLength + bytes.length);
    writeHeader(new DataView(whole.buffer), 0, this.headerLength, { ...NO_OFFLOAD, ...header });
    whole.set(bytes, this.headerLength);
    this.#post(whole);
    return true;
  }

  #post(whole: Uint8Array): void {
    const { ring, buffers, bufferSize } = this.tx;
    const at = buffers + ring.nextId * bufferSize;
    this.memory.write(at, whole);
    ring.post(lowWord(at), highWord(at), whole.length, false);
    this.#unsent.push(whole);
  }

  /** Takes back what the device has used, in order. */
  reap(): void {
    const { ring } = this.tx;
    const done = ring.pending();
    ring.release(done);
    this.#unsent.splice(0, done);
  }

  /** Resets the transmit queue, waits for `meanwhile` and sets it up elsewhere; what the device had not used goes there again. */
  async renewTransmit(meanwhile: () => Promise<void>): Promise<void> {
    await this.mmio.resetQueue(1);
    await meanwhile();
    this.reap();
    const unsent = this.#unsent.splice(0);
    this.setUpTransmit();
    for (const whole of unsent) this.#post(whole);
    this.publish();
  }

  /** Resets the receive queue, waits for `meanwhile` and sets it up elsewhere. Answers what had arrived in the old one. */
  async renewReceive(meanwhile: () => Promise<void>): Promise<RawFrame[]> {
    await this.mmio.resetQueue(0);
    await meanwhile();
    const frames = this.receive(false);
    this.setUpReceive();
    return frames;
  }

  /** Shows the device what was posted. */
  publish(): void {
    if (this.tx.ring.publish()) this.mmio.kick(1);
  }

  /** Sends one frame; waits for room and until the device has used it. */
  async send(bytes: Uint8Array, header?: Partial<VirtioNetHeader>): Promise<void> {
    await until('room in the transmit queue', () => this.post(bytes, header));
    this.publish();
    const { ring } = this.tx;
    await until('the frame is used', () => ring.pending() === ring.inFlight);
  }

  /** Frames that have come since the last call; their buffers go back unless the queue is no longer the device's. */
  receive(repost = true): RawFrame[] {
    const { ring, number } = this.rx;
    const pending = ring.pending();
    const frames: RawFrame[] = [];
    let taken = 0;
    while (taken < pending) {
      const frame = this.#frameAt(taken);
      frames.push(frame);
      taken += frame.buffers;
    }
    if (!repost) {
      ring.release(taken);
      return frames;
    }
    ring.repost(taken);
    if (ring.publish()) this.mmio.kick(number);
    return frames;
  }

  #frameAt(first: number): RawFrame {
    const { ring, buffers, bufferSize } = this.rx;
    const piece = (index: number): Uint8Array =>
      this.memory.view(buffers + ring.usedId(first + index) * bufferSize, ring.usedLength(first + index));
    const head = piece(0);
    const header = readHeader(new DataView(head.buffer, head.byteOffset, head.length), 0, this.headerLength);
    const count = this.#merged ? header.numBuffers! : 1;
    const parts = Array.from({ length: count }, (_, index) => piece(index));
    return { header, bytes: new Uint8Array(Buffer.concat(parts)).slice(this.headerLength), buffers: count };
  }

  /** Collects frames until there are `count`, or throws. */
  async frames(count: number, milliseconds = 5000): Promise<RawFrame[]> {
    const got: RawFrame[] = [];
    await until(
      `${count} frames`,
      () => {
        got.push(...this.receive());
        return got.length >= count;
      },
      milliseconds,
    );
    return got;
  }

  /** Whatever comes within a number of turns of the event loop and milliseconds. */
  async quiet(milliseconds: number): Promise<RawFrame[]> {
    const got: RawFrame[] = [];
    for (const end = performance.now() + milliseconds; performance.now() < end; await nextTurn()) {
      got.push(...this.receive());
    }
    return got;
  }
}
