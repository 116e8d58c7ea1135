/**
 * A driver behind virtio-mmio registers that keeps every frame its rings are given, and says to the control queue whatever a test wants
 * said: commands in any framing, bytes that are none, chains that cannot be answered. It polls; nothing calls it.
 */
import { VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF } from '../../lib/constants/virtio-net';
import { VIRTIO_NET_CTRL_HDR_SIZE } from '../../lib/constants/virtio-net-ctrl';
import type { ControlFraming } from '../../lib/guest/control-driver';
import { type MmioBus, MmioDriver } from '../../lib/guest/mmio-driver';
import { attachQueue, formatQueue, planQueue } from '../../lib/guest/rings';
import { type ControlCommand, encodeControlCommand } from '../../lib/net/control-command';
import { hasBit } from '../../lib/net/features';
import { HDR_NUM_BUFFERS, headerLength, readHeader, type VirtioNetHeader } from '../../lib/net/header';
import type { DriverQueue } from '../../lib/virtqueue/driver-queue';
import { alignUp } from '../../lib/virtqueue/layout';
import { bytesAt, highWord, lowWord, NO_WRITE_LOG, type RingMemory } from '../../lib/virtqueue/ring-memory';
import { indirectTableBytes } from '../../lib/virtqueue/split-driver-state';
import { until } from './vhost-wait';

const GPA = 0x20_0000;
const BUFFER = 2048;
/** Command and, behind it, what the device may write. */
const COMMAND_BYTES = 0x2_0000;
const ANSWER_BYTES = 64;
/** In every byte that the device may write, before it does. */
export const UNWRITTEN = 0xee;
const TABLE_ENTRIES = 16;
const PATIENCE_MS = 20_000;

export interface Received {
  readonly header: VirtioNetHeader;
  readonly frame: Uint8Array;
}

/** What came back of one chain on the control queue. */
export interface Answer {
  /** The bytes that the device might write, in order: the ack and what must be as before. */
  readonly written: Uint8Array;
  /** Bytes that it says it wrote. */
  readonly length: number;
}

export interface ControlGuestOptions {
  /** Features to ack where they are offered. */
  wanted: bigint;
  /** Commands go through indirect tables. */
  indirect?: boolean;
  /** The control queue asks to be called for its first answer. */
  calls?: boolean;
}

interface Pair {
  rx: DriverQueue;
  tx: DriverQueue;
  rxBuffers: number;
  txBuffers: number;
}

export class ControlGuest {
  mmio: MmioDriver;
  readonly features: bigint;
  /** Number of the control queue, -1 without one. */
  readonly controlQueue: number;
  /** By queue pair, in the order in which they came. */
  readonly frames: readonly Received[][];
  readonly #memory: RingMemory;
  readonly #pairs: readonly Pair[];
  readonly #control: DriverQueue | null;
  readonly #commandAt: number;
  readonly #command: Uint8Array;

  /** Finds the device, sets all queues up, and says DRIVER_OK. */
  static async start(bus: MmioBus, memory: RingMemory, options: ControlGuestOptions): Promise<ControlGuest> {
    const mmio = MmioDriver.probe(bus);
    await mmio.reset();
    mmio.negotiate(options.wanted);
    const guest = new ControlGuest(mmio, memory, options.indirect ?? false);
    if (options.calls !== true) guest.#control?.disableCalls();
    mmio.driverOk();
    guest.#fill();
    return guest;
  }

  private constructor(mmio: MmioDriver, memory: RingMemory, indirect: boolean) {
    const { features } = mmio;
    let next = GPA;
    const take = (bytes: number, alignment: number): number => {
      const start = alignUp(next, alignment);
      next = start + bytes;
      return start;
    };
    const setUp = (number: number, tables: boolean): DriverQueue => {
      const size = mmio.queueMax(number);
      const plan = planQueue(features, size, false, take);
      if (tables) {
        plan.driver.indirect = { tables: take(indirectTableBytes(size, TABLE_ENTRIES), 64), entries: TABLE_ENTRIES };
      }
      formatQueue(memory, plan, NO_WRITE_LOG);
      const queue = attachQueue(memory, plan.state, NO_WRITE_LOG);
      mmio.setUpQueue(number, queue.queueState());
      return queue;
    };
    const pairs = hasBit(features, VIRTIO_NET_F_MQ) ? mmio.config().maxPairs : 1;
    this.mmio = mmio;
    this.features = features;
    this.#memory = memory;
    this.#pairs = Array.from({ length: pairs }, (_, index) => {
      const [rx, tx] = [setUp(2 * index, false), setUp(2 * index + 1, false)];
      for (const queue of [rx, tx]) queue.disableCalls();
      return { rx, tx, rxBuffers: take(rx.size * BUFFER, BUFFER), txBuffers: take(tx.size * BUFFER, BUFFER) };
    });
    this.frames = this.#pairs.map(() => []);
    this.controlQueue = hasBit(features, VIRTIO_NET_F_CTRL_VQ) ? 2 * pairs : -1;
    this.#control = this.controlQueue < 0 ? null : setUp(this.controlQueue, indirect);
    this.#commandAt = take(COMMAND_BYTES + ANSWER_BYTES, 64);
    this.#command = bytesAt(memory, this.#commandAt, COMMAND_BYTES + ANSWER_BYTES);
  }

  /** The device is behind other registers from now on, and everything else as it was. */
  moveTo(bus: MmioBus): void {
    const { features } = this.mmio;
    this.mmio = MmioDriver.probe(bus);
    this.mmio.features = features;
  }

  #fill(): void {
    for (const [index, { rx, rxBuffers }] of this.#pairs.entries()) {
      for (;;) {
        const at = rxBuffers + rx.nextId * BUFFER;
        if (rx.post(lowWord(at), highWord(at), BUFFER, true) < 0) break;
      }
      this.#publish(rx, 2 * index);
    }
  }

  #publish(queue: DriverQueue, number: number): void {
    if (queue.publish()) this.mmio.kick(number);
  }

  /** Takes what the rings were given. Answers how many frames that was. */
  poll(): number {
    let count = 0;
    for (const [index, pair] of this.#pairs.entries()) {
      const pending = pair.rx.pending();
      for (let taken = 0; taken < pending; count++) taken += this.#receive(index, pair, taken, pending);
      if (pending > 0) pair.rx.repost(pending);
      this.#publish(pair.rx, 2 * index);
    }
    return count;
  }

  /** Keeps the frame that begins with the `first`th used buffer. Answers how many buffers it has. */
  #receive(index: number, { rx, rxBuffers }: Pair, first: number, pending: number): number {
    const header = headerLength(this.features);
    const parts: Uint8Array[] = [];
    let buffers = 1;
    for (let part = 0; part < buffers; part++) {
      if (first + part >= pending) throw new Error(`a frame of ${buffers} buffers, ${pending - first} of them used`);
      const bytes = bytesAt(this.#memory, rxBuffers + rx.usedId(first + part) * BUFFER, BUFFER);
      if (part === 0 && hasBit(this.features, VIRTIO_NET_F_MRG_RXBUF)) {
        buffers = bytes[HDR_NUM_BUFFERS]! | (bytes[HDR_NUM_BUFFERS + 1]! << 8);
      }
      parts.push(bytes.slice(0, rx.usedLength(first + part)));
    }
    const whole = Uint8Array.from(Buffer.concat(parts));
    this.frames[index]!.push({
      header: readHeader(new DataView(whole.buffer), 0, header),
      frame: whole.subarray(header),
    });
    return buffers;
  }

  /** What came since the last call, over all pairs; of one pair in its order. */
  take(): Received[] {
    this.poll();
    return this.frames.flatMap((frames) => frames.splice(0));
  }

  /** Sends one frame and waits until the device has used it. */
  async send(frame: Uint8Array, pair = 0): Promise<void> {
    const { tx, txBuffers } = this.#pairs[pair]!;
    const header = headerLength(this.features);
    const at = txBuffers + tx.nextId * BUFFER;
    const bytes = bytesAt(this.#memory, at, BUFFER);
    bytes.fill(0, 0, header);
    bytes.set(frame, header);
    tx.post(lowWord(at), highWord(at), header + frame.length, false);
    this.#publish(tx, 2 * pair + 1);
    await until('a frame is sent', () => tx.pending() > 0);
    tx.release(1);
  }

  /** Sends a command and waits for its ack, which is answered without a turn of the event loop in between. */
  async command(command: ControlCommand, framing?: ControlFraming): Promise<number> {
    return (await this.request(encodeControlCommand(command), framing)).written[0]!;
  }

  /** Sends bytes as a command, framed as Linux does unless told otherwise, and waits for what comes back. */
  async request(bytes: Uint8Array, framing?: ControlFraming): Promise<Answer> {
    const data = bytes.length - VIRTIO_NET_CTRL_HDR_SIZE;
    const { readable, writable = [1] } = framing ?? {
      readable: data > 0 ? [VIRTIO_NET_CTRL_HDR_SIZE, data] : [bytes.length],
    };
    this.post(bytes, readable, writable);
    const control = this.#control!;
    const deadline = performance.now() + PATIENCE_MS;
    while (control.pending() === 0) {
      if (performance.now() > deadline) throw new Error(`no answer to ${Buffer.from(bytes).toString('hex')}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const length = control.usedLength(0);
    const total = writable.reduce((sum, one) => sum + one, 0);
    const written = this.#command.slice(COMMAND_BYTES, COMMAND_BYTES + total);
    control.release(1);
    return { written, length };
  }

  /** Makes a chain of `bytes` cut into `readable`, and of bytes for the device, available to it. */
  post(bytes: Uint8Array, readable: readonly number[], writable: readonly number[]): void {
    const control = this.#control!;
    if (control.inFlight > 0) throw new Error('one chain at a time');
    this.#command.set(bytes);
    this.#command.fill(UNWRITTEN, COMMAND_BYTES);
    if (control.chainBegin(readable.length + writable.length) < 0) throw new Error('no descriptors');
    this.#add(control, this.#commandAt, readable, false);
    this.#add(control, this.#commandAt + COMMAND_BYTES, writable, true);
    control.chainEnd();
    this.#publish(control, this.controlQueue);
  }

  #add(control: DriverQueue, at: number, lengths: readonly number[], writable: boolean): void {
    let gpa = at;
    for (const length of lengths) {
      control.chainAdd(lowWord(gpa), highWord(gpa), length, writable);
      gpa += length;
    }
  }

  /** Chains of the control queue that came back and were not asked for by `request`. */
  get answered(): number {
    return this.#control!.pending();
  }
}
