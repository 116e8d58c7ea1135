/**
 * The device's half of a split virtqueue (virtio 1.4 section 2.7) in plain TypeScript: takes chains of a driver it does not trust, gives
 * them back, and suppresses notifications both ways. A ring that breaks the rules throws VHOST_ERR_RING and stays broken, alone.
 */
import { VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY } from '../constants/virtio-ring';
import { invalidArgument, VhostError } from '../errors';
import { brokenRing } from './broken';
import type { DeviceQueue } from './device-queue';
import { availRingBytes, usedRingBytes } from './layout';
import { needEvent } from './need-event';
import { type QueueState, validateSplitQueueState } from './queue-state';
import { NO_WRITE_LOG, type RingMemory, u16At, u32At, type WriteLog } from './ring-memory';
import { SplitChain } from './split-chain';

const FLAGS = 0;
const IDX = 1;
const RING = 2;

export interface SplitDeviceOptions {
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  eventIdx?: boolean;
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated. Default true. */
  indirect?: boolean;
  /** Told of every write to the used ring. Buffers are marked by whoever writes them. */
  log?: WriteLog;
}

export class SplitDevice implements DeviceQueue {
  readonly size: number;
  readonly eventIdx: boolean;
  /** The chain that `pop` took last. */
  readonly chain: SplitChain;
  readonly #state: QueueState;
  readonly #mask: number;
  readonly #log: WriteLog;
  readonly #avail: Uint16Array;
  readonly #used: Uint16Array;
  readonly #usedRing: Uint32Array;
  readonly #usedAt: number;
  readonly #usedEvent: number;
  readonly #availEvent: number;
  /** Free-running modulo 65536. */
  #nextAvail: number;
  #seenAvail: number;
  #nextUsed: number;
  #published: number;
  /** False until the first publish: what the driver was last called for is not known after a start. */
  #calledBefore = false;
  #error: VhostError | null = null;

  /** Throws VHOST_ERR_RING for a state that does not fit guest memory. */
  constructor(memory: RingMemory, state: Readonly<QueueState>, options: SplitDeviceOptions = {}) {
    const { eventIdx = false, indirect = true, log = NO_WRITE_LOG } = options;
    this.#state = validateSplitQueueState(state, memory, eventIdx);
    const { size, availRing, usedRing, descTable } = this.#state;
    this.size = size;
    this.eventIdx = eventIdx;
    this.#mask = size - 1;
    this.#log = log;
    this.chain = new SplitChain(memory, descTable, size, indirect);
    this.#avail = u16At(memory, availRing, availRingBytes(size, eventIdx) / 2);
    this.#used = u16At(memory, usedRing, usedRingBytes(size, eventIdx) / 2);
    this.#usedRing = u32At(memory, usedRing, 1 + 2 * size);
    this.#usedAt = usedRing;
    this.#usedEvent = RING + size;
    this.#availEvent = RING + 4 * size;
    this.#nextAvail = this.#state.nextAvail;
    this.#seenAvail = this.#nextAvail;
    this.#nextUsed = Atomics.load(this.#used, IDX);
    this.#published = this.#nextUsed;
  }

  /** What broke the ring, or null. */
  get error(): VhostError | null {
    return this.#error;
  }

  /** Where the next `pop` takes from, free-running modulo 65536. */
  get nextAvail(): number {
    return this.#nextAvail;
  }

  /** The used index as the driver sees it. */
  get usedIdx(): number {
    return this.#published;
  }

  /** Takes the next chain into `chain` and answers its id, or -1 when there is none. Throws VHOST_ERR_RING. */
  pop(): number {
    if (this.#error !== null) throw this.#error;
    try {
      return this.#pop();
    } catch (error) {
      if (error instanceof VhostError && error.code === 'VHOST_ERR_RING') this.#error = error;
      throw error;
    }
  }

  #pop(): number {
    const at = this.#nextAvail;
    if (at === this.#seenAvail) {
      // An acquire load: descriptors and ring entries read after it are at least as new as the index.
      const seen = Atomics.load(this.#avail, IDX);
      if (((seen - at) & 0xffff) > this.size) {
        throw brokenRing('split', `the available index jumped from ${at} to ${seen} in a queue of ${this.size}`);
      }
      if (seen === at) return -1;
      this.#seenAvail = seen;
    }
    const head = this.#avail[RING + (at & this.#mask)]!;
    this.chain.read(head);
    this.#nextAvail = (at + 1) & 0xffff;
    return head;
  }

  /** Gives the last `count` chains taken back untouched, as if they had not been taken; none of them may have been pushed. */
  unpop(count: number): void {
    if (!(count >= 0 && count <= this.size)) throw invalidArgument(`${count} chains`, `0 to ${this.size}`);
    this.#nextAvail = (this.#nextAvail - count) & 0xffff;
  }

  /** Writes a used element; the driver sees it after `publish`. `length` is the bytes written to the chain. */
  push(id: number, length: number): void {
    if (!(id >= 0 && id < this.size)) throw invalidArgument(`used id ${id}`, `0 to ${this.size - 1}`);
    const slot = this.#nextUsed & this.#mask;
    this.#usedRing[1 + 2 * slot] = id;
    this.#usedRing[2 + 2 * slot] = length;
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    if (this.#log.enabled) this.#log.mark(this.#usedAt + 4 + 8 * slot, 8);
  }

  /** Shows the driver everything pushed since the last call. Answers whether the driver must be called. */
  publish(): boolean {
    const to = this.#nextUsed;
    const from = this.#published;
    if (to === from) return false;
    // A release store: whoever sees this index sees the used elements and the buffers written before it.
    Atomics.store(this.#used, IDX, to);
    this.#published = to;
    if (this.#log.enabled) this.#log.mark(this.#usedAt + 2, 2);
    // Sequentially consistent like the store before it, so the driver's request is not missed; no further fence is needed.
    if (!this.eventIdx) return (Atomics.load(this.#avail, FLAGS) & VRING_AVAIL_F_NO_INTERRUPT) === 0;
    const event = Atomics.load(this.#avail, this.#usedEvent);
    const first = !this.#calledBefore;
    this.#calledBefore = true;
    return first || needEvent(event, to, from);
  }

  /**
   * Asks the driver to kick at the next available chain. Answers whether chains became available meanwhile: then no kick may come for
   * them, take them before sleeping.
   */
  enableKicks(): boolean {
    const nextAvail = this.#nextAvail;
    if (this.eventIdx) {
      Atomics.store(this.#used, this.#availEvent, nextAvail);
      if (this.#log.enabled) this.#log.mark(this.#usedAt + 2 * this.#availEvent, 2);
    } else {
      this.#setNoNotify(0);
    }
    // Looks again after asking, both sequentially consistent: the driver sees the request or this sees its chain.
    return Atomics.load(this.#avail, IDX) !== nextAvail;
  }

  /**
   * Asks the driver to kick when it adds to what is available now: for a device that wants more than it was given, and left what there is
   * untaken. Answers whether more was added meanwhile.
   */
  enableKicksForMore(): boolean {
    const seen = Atomics.load(this.#avail, IDX);
    if (this.eventIdx) {
      Atomics.store(this.#used, this.#availEvent, seen);
      if (this.#log.enabled) this.#log.mark(this.#usedAt + 2 * this.#availEvent, 2);
    } else {
      this.#setNoNotify(0);
    }
    return Atomics.load(this.#avail, IDX) !== seen;
  }

  /** Breaks the ring for a rule that only the kind of device knows, and answers the error to throw. */
  fail(what: string): VhostError {
    this.#error ??= brokenRing('split', what);
    return this.#error;
  }

  /** Asks the driver not to kick. With EVENT_IDX the event index left behind does that by itself, but for one kick in 65,536 chains. */
  disableKicks(): void {
    if (!this.eventIdx) this.#setNoNotify(VRING_USED_F_NO_NOTIFY);
  }

  /** For whoever serves the queue next. Every chain taken must have been pushed and published, or given back. */
  state(): QueueState {
    return { ...this.#state, nextAvail: this.#nextAvail };
  }

  #setNoNotify(flags: number): void {
    Atomics.store(this.#used, FLAGS, flags);
    if (this.#log.enabled) this.#log.mark(this.#usedAt, 2);
  }
}
