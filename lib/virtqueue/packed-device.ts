/**
 * The device's half of a packed virtqueue (virtio 1.4 section 2.8) in plain TypeScript: takes chains of a driver it does not trust, gives
 * them back in any order, and suppresses notifications both ways. A ring that breaks the rules throws VHOST_ERR_RING and stays broken,
 * alone.
 *
 * Descriptors taken and not given back are those from the next used to the next available one. A used descriptor goes to the front of
 * them, and the rest of its chain's length is skipped, whichever chain it is for: so it never lands on a descriptor not yet taken, nor on
 * one of the chains taken last, and `unpop` finds these as they were.
 */
import { VRING_DESC_F_WRITE } from '../constants/virtio-ring';
import { VRING_PACKED_EVENT_FLAG_DISABLE, VRING_PACKED_EVENT_FLAG_ENABLE } from '../constants/virtio-ring-packed';
import { invalidArgument, VhostError } from '../errors';
import { brokenRing } from './broken';
import type { DeviceQueue } from './device-queue';
import { PackedChain } from './packed-chain';
import {
  advance,
  asksForEvents,
  availFlags,
  distance,
  eventAt,
  eventOf,
  OWNER_FLAGS,
  positionOf,
  retreat,
  slotOf,
  usedFlags,
  wantsEvent,
  wrapOf,
} from './packed-position';
import { type QueueState, validatePackedQueueState } from './queue-state';
import { i32At, NO_WRITE_LOG, type RingMemory, u32At, type WriteLog } from './ring-memory';

export interface PackedDeviceOptions {
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  eventIdx?: boolean;
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated. Default true. */
  indirect?: boolean;
  /** Told of every write to descriptor ring and device event suppression. Buffers are marked by whoever writes them. */
  log?: WriteLog;
}

export class PackedDevice implements DeviceQueue {
  readonly size: number;
  readonly eventIdx: boolean;
  /** The chain that `pop` took last. */
  readonly chain: PackedChain;
  readonly #state: QueueState;
  readonly #log: WriteLog;
  readonly #ring: Int32Array;
  readonly #driverEvent: Uint32Array;
  readonly #deviceEvent: Uint32Array;
  /** Descriptors of the chain with this id, 0 when it is not in flight. */
  readonly #descriptors: Uint16Array;
  /** Ids in the order they were taken, the next one to go to #takenAt; as many of the last as are in flight are sure to be there. */
  readonly #taken: Uint16Array;
  #takenAt = 0;
  #inFlight = 0;
  /** Positions: see packed-position.ts. */
  #nextAvail: number;
  #nextUsed: number;
  #published: number;
  /** Length, and id and flags, of the used descriptor that `publish` writes. */
  #firstLength = 0;
  #firstIdAndFlags = 0;
  /** What the device event suppression structure says; -1: not known after a start. */
  #asked = -1;
  /** False until the first publish: what the driver was last called for is not known after a start. */
  #calledBefore = false;
  #error: VhostError | null = null;

  /** Throws VHOST_ERR_RING for a state that does not fit guest memory. */
  constructor(memory: RingMemory, state: Readonly<QueueState>, options: PackedDeviceOptions = {}) {
    const { eventIdx = false, indirect = true, log = NO_WRITE_LOG } = options;
    const sound = validatePackedQueueState(state, memory);
    const { size, descTable, packed } = sound;
    this.#state = sound;
    this.size = size;
    this.eventIdx = eventIdx;
    this.#log = log;
    this.chain = new PackedChain(memory, descTable, size, indirect);
    this.#ring = i32At(memory, descTable, size * 4);
    this.#driverEvent = u32At(memory, sound.availRing, 1);
    this.#deviceEvent = u32At(memory, sound.usedRing, 1);
    this.#descriptors = new Uint16Array(size);
    this.#taken = new Uint16Array(size);
    this.#nextAvail = positionOf(sound.nextAvail, packed.availWrap, size);
    this.#nextUsed = positionOf(packed.nextUsed, packed.usedWrap, size);
    this.#published = this.#nextUsed;
  }

  /** What broke the ring, or null. */
  get error(): VhostError | null {
    return this.#error;
  }

  /** Where the next `pop` takes from: an index of the descriptor ring. */
  get nextAvail(): number {
    return slotOf(this.#nextAvail, this.size);
  }

  /** Where the driver looks for the next used descriptor; also equal to `nextAvail` when the whole ring is in flight. */
  get usedIdx(): number {
    return slotOf(this.#published, this.size);
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
    const { size, chain } = this;
    const at = this.#nextAvail;
    // An acquire load: everything of the chain that is read after it is at least as new as these flags, and id and flags are of one moment.
    const head = Atomics.load(this.#ring, slotOf(at, size) * 4 + 3);
    if (((head >>> 16) & OWNER_FLAGS) !== availFlags(at, size)) return -1;
    // What was pushed but not published is not the driver's yet, so a chain that reaches into it is a lie as well.
    const id = chain.read(at, head, size - distance(this.#published, at, size));
    if (id >= size) throw brokenRing('packed', `id ${id} in a queue of ${size}`);
    if (this.#descriptors[id] !== 0) throw brokenRing('packed', `id ${id} is in flight already`);
    this.#descriptors[id] = chain.descriptors;
    this.#taken[this.#takenAt] = id;
    this.#takenAt = this.#takenAt + 1 < size ? this.#takenAt + 1 : 0;
    this.#inFlight++;
    this.#nextAvail = advance(at, chain.descriptors, size);
    return id;
  }

  /** Gives the last `count` chains taken back untouched, as if they had not been taken; none of them may have been pushed. */
  unpop(count: number): void {
    if (!(count >= 0 && count <= this.#inFlight)) throw invalidArgument(`${count} chains`, `0 to ${this.#inFlight}`);
    for (let given = 0; given < count; given++) {
      const last = (this.#takenAt > 0 ? this.#takenAt : this.size) - 1;
      const id = this.#taken[last]!;
      const descriptors = this.#descriptors[id]!;
      if (descriptors === 0) throw invalidArgument(`${count} chains`, `only the last ${given} were not pushed`);
      this.#descriptors[id] = 0;
      this.#takenAt = last;
      this.#inFlight--;
      this.#nextAvail = retreat(this.#nextAvail, descriptors, this.size);
    }
  }

  /**
   * Writes a used descriptor; the driver sees it after `publish`. `length` is the bytes written to the chain; WRITE says that there are any
   * (section 2.8.3).
   */
  push(id: number, length: number): void {
    const { size } = this;
    const descriptors = this.#descriptors[id];
    if (!descriptors) throw invalidArgument(`used id ${id}`, 'one that was taken and not pushed');
    const at = this.#nextUsed;
    const idAndFlags = id | ((usedFlags(at, size) | (length > 0 ? VRING_DESC_F_WRITE : 0)) << 16);
    // The driver looks only at the descriptor behind the last it has seen used. As long as the first one of a batch is missing it sees
    // none of them, and with it all: so a frame of several merged buffers is never seen in part (section 2.8.9).
    if (at === this.#published) {
      this.#firstLength = length;
      this.#firstIdAndFlags = idAndFlags;
    } else {
      const slot = slotOf(at, size);
      this.#ring[slot * 4 + 2] = length;
      this.#ring[slot * 4 + 3] = idAndFlags;
      if (this.#log.enabled) this.#markUsed(slot);
    }
    this.#descriptors[id] = 0;
    this.#inFlight--;
    this.#nextUsed = advance(at, descriptors, size);
  }

  /** Shows the driver everything pushed since the last call. Answers whether the driver must be called. */
  publish(): boolean {
    const to = this.#nextUsed;
    const from = this.#published;
    if (to === from) return false;
    const slot = slotOf(from, this.size);
    this.#ring[slot * 4 + 2] = this.#firstLength;
    // A release store: whoever sees these flags sees the length, the other used descriptors and the buffers written before it.
    Atomics.store(this.#ring, slot * 4 + 3, this.#firstIdAndFlags);
    this.#published = to;
    if (this.#log.enabled) this.#markUsed(slot);
    // Sequentially consistent like the store before it, so the driver's request is not missed; no further fence is needed. Offset and flags
    // are one word: a driver that writes the offset first and the flags after it is never read with new flags and an old offset.
    const event = Atomics.load(this.#driverEvent, 0);
    const first = !this.#calledBefore;
    this.#calledBefore = true;
    return (first && asksForEvents(event)) || wantsEvent(event, to, from, this.size, this.eventIdx);
  }

  /**
   * Asks the driver to kick at the next available chain. Answers whether chains became available meanwhile: then no kick may come for
   * them, take them before sleeping.
   */
  enableKicks(): boolean {
    return this.#askAt(this.#nextAvail);
  }

  /**
   * Asks the driver to kick when it adds to what is available now: for a device that wants more than it was given, and left what there is
   * untaken. Answers whether more was added meanwhile.
   */
  enableKicksForMore(): boolean {
    const { size } = this;
    let at = this.#nextAvail;
    // There is no index to read, so the descriptors are looked at in turn. The first one that is not available is where the driver goes on:
    // it makes the first descriptor of what it adds available last.
    for (let left = size - distance(this.#published, at, size); left > 0 && this.#isAvailable(at); left--) {
      at = advance(at, 1, size);
    }
    return this.#askAt(at);
  }

  /** Breaks the ring for a rule that only the kind of device knows, and answers the error to throw. */
  fail(what: string): VhostError {
    this.#error ??= brokenRing('packed', what);
    return this.#error;
  }

  /** Asks the driver not to kick. */
  disableKicks(): void {
    this.#ask(eventOf(VRING_PACKED_EVENT_FLAG_DISABLE));
  }

  /** For whoever serves the queue next. Every chain taken must have been pushed and published, or given back. */
  state(): QueueState {
    const { size } = this;
    return {
      ...this.#state,
      nextAvail: slotOf(this.#nextAvail, size),
      packed: {
        availWrap: wrapOf(this.#nextAvail, size),
        nextUsed: slotOf(this.#published, size),
        usedWrap: wrapOf(this.#published, size),
      },
    };
  }

  #isAvailable(at: number): boolean {
    const idAndFlags = Atomics.load(this.#ring, slotOf(at, this.size) * 4 + 3);
    return ((idAndFlags >>> 16) & OWNER_FLAGS) === availFlags(at, this.size);
  }

  #askAt(position: number): boolean {
    this.#ask(this.eventIdx ? eventAt(position, this.size) : eventOf(VRING_PACKED_EVENT_FLAG_ENABLE));
    // Looks again after asking, both sequentially consistent: the driver sees the request or this sees its chain.
    return this.#isAvailable(position);
  }

  /** Asking again for what was asked for last needs no store: the one that asked for it comes before every look since. */
  #ask(event: number): void {
    if (event === this.#asked) return;
    Atomics.store(this.#deviceEvent, 0, event);
    this.#asked = event;
    if (this.#log.enabled) this.#log.mark(this.#state.usedRing, 4);
  }

  #markUsed(slot: number): void {
    this.#log.mark(this.#state.descTable + slot * 16 + 8, 8);
  }
}
