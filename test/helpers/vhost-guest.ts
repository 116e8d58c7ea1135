/** The driver's side of the lab: posts receive buffers, transmits numbered frames, accounts for what comes. */
import type { QueueNotifiers } from '../../lib/backend/backend';
import type { GuestMemory, GuestRegion } from '../../lib/memory/guest-memory';
import { FRAME_LENGTH, FrameTally, frameNumber, writeFrame } from './vhost-frames';
import { type RawRing, VIRTQ_DESC_F_WRITE } from './vhost-ring';

const HEADER = 12;
const BUFFER = 2048;

export class LabGuest {
  readonly tally = new FrameTally();
  /** Frames transmitted so far: the next one's number. */
  sent = 0;
  readonly #region: GuestRegion;
  readonly #rx: RawRing;
  readonly #tx: RawRing;
  readonly #notifiers: readonly QueueNotifiers[];
  readonly #buffers: number;

  constructor(memory: GuestMemory, rx: RawRing, tx: RawRing, notifiers: readonly QueueNotifiers[], buffers: number) {
    this.#region = memory.regionOf(buffers, 2 * rx.size * BUFFER);
    this.#rx = rx;
    this.#tx = tx;
    this.#notifiers = notifiers;
    this.#buffers = buffers;
    rx.suppressCalls();
    tx.suppressCalls();
  }

  /** Receive buffer of descriptor `id`: half a page, header included. */
  rxBuffer(id: number): number {
    return this.#buffers + id * BUFFER;
  }

  txBuffer(id: number): number {
    return this.#buffers + (this.#rx.size + id) * BUFFER;
  }

  /** Receive buffers that the device has. */
  get posted(): number {
    return (this.#rx.availIdx - this.#rx.taken) & 0xffff;
  }

  /** Posts receive buffers up to `most` outstanding, and kicks. */
  refill(most = this.#rx.size): number {
    let count = 0;
    while (this.posted < most) {
      const id = this.#rx.availIdx & (this.#rx.size - 1);
      this.#rx.setDescriptor(id, this.rxBuffer(id), BUFFER, VIRTQ_DESC_F_WRITE);
      this.#rx.offer(id);
      count++;
    }
    if (count > 0) {
      this.#rx.publish();
      this.#notifiers[0]!.kick.signal();
    }
    return count;
  }

  /** Accounts for received frames: how many. */
  receive(): number {
    const count = this.#rx.waiting;
    for (let i = 0; i < count; i++) {
      const id = this.#rx.usedId(this.#rx.taken);
      this.tally.note(frameNumber(this.#region.u8, this.rxBuffer(id) - this.#region.gpa + HEADER));
      this.#rx.taken = (this.#rx.taken + 1) & 0xffff;
    }
    return count;
  }

  get inFlight(): number {
    return (this.#tx.availIdx - this.#tx.usedIdx) & 0xffff;
  }

  /** Transmits up to `count` numbered frames, as many as the ring has room for, and kicks: how many. */
  transmit(count: number): number {
    this.#tx.taken = this.#tx.usedIdx;
    const now = Math.min(count, this.#tx.size - this.inFlight);
    for (let i = 0; i < now; i++) {
      const id = this.#tx.availIdx & (this.#tx.size - 1);
      const at = this.txBuffer(id);
      const offset = at - this.#region.gpa;
      this.#region.u8.fill(0, offset, offset + HEADER);
      writeFrame(this.#region.u8, offset + HEADER, 'peer', this.sent++);
      this.#tx.setDescriptor(id, at, HEADER + FRAME_LENGTH, 0);
      this.#tx.offer(id);
    }
    if (now > 0) {
      this.#tx.publish();
      this.#notifiers[1]!.kick.signal();
    }
    return now;
  }
}
