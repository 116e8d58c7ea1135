/**
 * The driver's half of a split virtqueue (virtio 1.4 section 2.7). Its whole state lies in guest memory, so that `attach` builds it again
 * from memory alone. Nothing on the way of a packet allocates: buffers are posted as numbers, used chains are looked at by position.
 *
 *     post / chainBegin, chainAdd, chainEnd    make chains available, not yet seen by the device
 *     publish                                  shows them all at once, answers whether to kick
 *     pending, usedId, usedLength              what the device gave back
 *     release / repost                         ends the first of those: descriptors free again, or available again as they are
 */
import {
  VRING_AVAIL_F_NO_INTERRUPT,
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
  VRING_USED_F_NO_NOTIFY,
} from '../constants/virtio-ring';
import { invalidArgument, VhostError } from '../errors';
import { gpa } from '../memory/address';
import type { DriverQueue } from './driver-queue';
import {
  DRIVER_STATE_HEADER,
  FREE_COUNT,
  FREE_HEAD,
  IN_FLIGHT,
  indirectTableBytes,
  NEXT_AVAIL,
  NEXT_USED,
  PUBLISHED,
} from './driver-state';
import { availRingBytes, usedRingBytes } from './layout';
import { needEvent } from './need-event';
import type { QueueState } from './queue-state';
import { highWord, lowWord, NO_WRITE_LOG, type RingMemory, u16At, u32At, type WriteLog } from './ring-memory';
import { DriverMarks, type DriverPlaces, driverRanges } from './split-driver-marks';
import { formatDriverState, readDriverState, type SplitDriverOptions } from './split-driver-state';

const FLAGS = 0;
const IDX = 1;
const RING = 2;

export class SplitDriver implements DriverQueue {
  readonly size: number;
  readonly eventIdx: boolean;
  readonly #mask: number;
  readonly #places: DriverPlaces;
  readonly #marks: DriverMarks;
  readonly #tableEntries: number;

  readonly #desc: Uint32Array;
  readonly #avail: Uint16Array;
  readonly #used: Uint16Array;
  readonly #usedRing: Uint32Array;
  readonly #tables: Uint32Array | null;
  readonly #state: Uint16Array;
  readonly #chains: Uint32Array;
  readonly #next: Uint16Array;
  readonly #usedEvent: number;
  readonly #availEvent: number;

  /** The used index as last read from the device. */
  #seen: number;
  #chainHead = -1;
  #chainAt = 0;
  #chainLeft = 0;
  #chainCount = 0;
  #chainInTable = false;
  #chainWritable = false;

  /**
   * Writes an unused queue to guest memory: rings, indirect tables and, at `stateAt`, the driver's state (`driverStateBytes`).
   * Throws VHOST_ERR_INVALID_ARGUMENT, or what `memory.regionOf` throws.
   */
  static format(memory: RingMemory, stateAt: number, options: SplitDriverOptions, log?: WriteLog): SplitDriver {
    formatDriverState(memory, stateAt, options);
    const driver = new SplitDriver(memory, stateAt, log);
    if (driver.#marks.enabled) driver.#marks.all();
    return driver;
  }

  /** Goes on with the queue whose state lies at `stateAt`. Throws VHOST_ERR_RING when there is none. */
  static attach(memory: RingMemory, stateAt: number, log?: WriteLog): SplitDriver {
    return new SplitDriver(memory, stateAt, log);
  }

  private constructor(memory: RingMemory, stateAt: number, log: WriteLog = NO_WRITE_LOG) {
    const places = { state: stateAt, ...readDriverState(memory, stateAt) };
    const { size, eventIdx, desc, avail, used, indirect } = places;
    this.size = size;
    this.eventIdx = eventIdx;
    this.#mask = size - 1;
    this.#places = places;
    this.#marks = new DriverMarks(log, places);
    this.#tableEntries = indirect?.entries ?? 0;
    this.#desc = u32At(memory, desc, size * 4);
    this.#avail = u16At(memory, avail, availRingBytes(size, eventIdx) / 2);
    this.#used = u16At(memory, used, usedRingBytes(size, eventIdx) / 2);
    this.#usedRing = u32At(memory, used, 1 + 2 * size);
    this.#tables =
      indirect === null ? null : u32At(memory, indirect.tables, indirectTableBytes(size, indirect.entries) / 4);
    this.#state = u16At(memory, stateAt, DRIVER_STATE_HEADER / 2);
    this.#chains = u32At(memory, stateAt + DRIVER_STATE_HEADER, size);
    this.#next = u16At(memory, stateAt + DRIVER_STATE_HEADER + 4 * size, size);
    this.#usedEvent = RING + size;
    this.#availEvent = RING + 4 * size;
    this.#seen = this.#state[NEXT_USED]!;
  }

  /** Descriptors that are free. */
  get free(): number {
    return this.#state[FREE_COUNT]!;
  }

  /** Chains made available and not taken back. */
  get inFlight(): number {
    return (this.#state[NEXT_AVAIL]! - this.#state[NEXT_USED]!) & 0xffff;
  }

  /** The id that the next `post` or `chainBegin` gives; meaningless when nothing is free. */
  get nextId(): number {
    return this.#state[FREE_HEAD]!;
  }

  /** A chain of one buffer. Answers its id (its descriptor), or -1 when no descriptor is free. */
  post(addressLow: number, addressHigh: number, length: number, writable: boolean): number {
    const state = this.#state;
    const free = state[FREE_COUNT]!;
    if (free === 0) return -1;
    const id = state[FREE_HEAD]!;
    this.#describe(this.#desc, id * 4, addressLow, addressHigh, length, writable ? VRING_DESC_F_WRITE : 0);
    state[FREE_HEAD] = this.#next[id]!;
    state[FREE_COUNT] = free - 1;
    if (this.#marks.enabled) this.#marks.descriptor(id);
    this.#makeAvailable(id, 1);
    return id;
  }

  /**
   * Begins a chain of `buffers` buffers: that many `chainAdd` and a `chainEnd` follow. Answers its id, or -1 when there are not enough free
   * descriptors. A chain that is not ended leaves no trace.
   */
  chainBegin(buffers: number): number {
    if (!(buffers >= 1 && buffers <= Math.max(this.size, this.#tableEntries))) {
      throw invalidArgument(`a chain of ${buffers} buffers`, `1 to ${Math.max(this.size, this.#tableEntries)}`);
    }
    this.#chainInTable = buffers > 1 && buffers <= this.#tableEntries;
    const taken = this.#chainInTable ? 1 : buffers;
    this.#chainHead = -1;
    if (this.#state[FREE_COUNT]! < taken) return -1;
    const head = this.#state[FREE_HEAD]!;
    this.#chainHead = head;
    this.#chainAt = this.#chainInTable ? head * this.#tableEntries : head;
    this.#chainLeft = buffers;
    this.#chainCount = buffers;
    this.#chainWritable = false;
    return head;
  }

  /** Buffers the device reads come before those it writes (section 2.7.4.2). */
  chainAdd(addressLow: number, addressHigh: number, length: number, writable: boolean): void {
    if (this.#chainHead < 0 || this.#chainLeft === 0)
      throw new VhostError('VHOST_ERR_STATE', 'no chain wants a buffer');
    if (this.#chainWritable && !writable) throw invalidArgument('a readable buffer behind a writable one');
    this.#chainWritable = writable;
    const at = this.#chainAt;
    const last = --this.#chainLeft === 0;
    const follower = this.#chainInTable ? this.#chainCount - this.#chainLeft : this.#next[at]!;
    const flags = (writable ? VRING_DESC_F_WRITE : 0) | (last ? 0 : VRING_DESC_F_NEXT | (follower << 16));
    this.#describe(this.#chainInTable ? this.#tables! : this.#desc, at * 4, addressLow, addressHigh, length, flags);
    if (this.#marks.enabled) {
      if (this.#chainInTable) this.#marks.tableEntry(at);
      else this.#marks.descriptor(at);
    }
    this.#chainAt = this.#chainInTable ? at + 1 : this.#next[at]!;
  }

  chainEnd(): void {
    const head = this.#chainHead;
    if (head < 0 || this.#chainLeft > 0)
      throw new VhostError('VHOST_ERR_STATE', `the chain wants ${this.#chainLeft} more buffers`);
    this.#chainHead = -1;
    let taken = this.#chainCount;
    let firstFree = this.#chainAt;
    if (this.#chainInTable) {
      taken = 1;
      firstFree = this.#next[head]!;
      const table = this.#places.indirect!.tables + head * this.#tableEntries * VRING_DESC_SIZE;
      const bytes = this.#chainCount * VRING_DESC_SIZE;
      this.#describe(this.#desc, head * 4, lowWord(table), highWord(table), bytes, VRING_DESC_F_INDIRECT);
      if (this.#marks.enabled) this.#marks.descriptor(head);
    }
    this.#state[FREE_HEAD] = firstFree;
    this.#state[FREE_COUNT] = this.#state[FREE_COUNT]! - taken;
    this.#makeAvailable(head, taken);
  }

  /** Shows the device everything made available since the last call. Answers whether the device must be kicked. */
  publish(): boolean {
    const to = this.#state[NEXT_AVAIL]!;
    const from = this.#state[PUBLISHED]!;
    if (to === from) return false;
    // A release store: whoever sees this index sees the descriptors and ring entries written before it.
    Atomics.store(this.#avail, IDX, to);
    this.#state[PUBLISHED] = to;
    if (this.#marks.enabled) {
      this.#marks.availWord(IDX);
      this.#marks.stateHeader();
    }
    // The load may not overtake the store, or both sides could miss each other and sleep; two sequentially consistent accesses
    // keep their order on every processor, so no further fence is needed.
    if (this.eventIdx) return needEvent(Atomics.load(this.#used, this.#availEvent), to, from);
    return (Atomics.load(this.#used, FLAGS) & VRING_USED_F_NO_NOTIFY) === 0;
  }

  /** How many used chains wait to be taken back. Throws VHOST_ERR_RING when the device claims more than it was given. */
  pending(): number {
    // An acquire load: the used elements read after it are at least as new as the index.
    const seen = Atomics.load(this.#used, IDX);
    const waiting = (seen - this.#state[NEXT_USED]!) & 0xffff;
    if (waiting > ((this.#state[PUBLISHED]! - this.#state[NEXT_USED]!) & 0xffff)) {
      throw this.#broken(`the used index ${seen} is ahead of everything made available`);
    }
    this.#seen = seen;
    return waiting;
  }

  /** The id of the `position`th used chain, 0 <= position < pending(). */
  usedId(position: number): number {
    const id = this.#usedRing[1 + 2 * ((this.#state[NEXT_USED]! + position) & this.#mask)]!;
    if (id >= this.size || (this.#chains[id]! & IN_FLIGHT) === 0) throw this.#broken(`used id ${id} is not in flight`);
    return id;
  }

  /** Bytes the device wrote into it. */
  usedLength(position: number): number {
    return this.#usedRing[2 + 2 * ((this.#state[NEXT_USED]! + position) & this.#mask)]!;
  }

  /** Frees the descriptors of the first `count` used chains. Throws VHOST_ERR_RING for an id that is not in flight. */
  release(count: number): void {
    const from = this.#take(count);
    const { size } = this;
    const state = this.#state;
    const chains = this.#chains;
    const next = this.#next;
    let freeHead = state[FREE_HEAD]!;
    for (let taken = 0; taken < count; taken++) {
      const id = this.#usedRing[1 + 2 * ((from + taken) & this.#mask)]!;
      const chain = id < size ? chains[id]! : 0;
      if ((chain & IN_FLIGHT) === 0) {
        if (this.#marks.enabled) this.#marks.stateHeader();
        throw this.#broken(`used id ${id} is not in flight`);
      }
      const descriptors = chain & 0xffff;
      let tail = id;
      for (let more = descriptors - 1; more > 0; more--) tail = next[tail]!;
      next[tail] = freeHead;
      freeHead = id;
      chains[id] = 0;
      // The index moves with every chain, so that an error leaves the state consistent up to the chain before.
      state[FREE_HEAD] = freeHead;
      state[FREE_COUNT] = state[FREE_COUNT]! + descriptors;
      state[NEXT_USED] = from + taken + 1;
      if (this.#marks.enabled) {
        this.#marks.chains(id, id);
        this.#marks.next(tail);
      }
    }
    if (count > 0 && this.#marks.enabled) this.#marks.stateHeader();
  }

  /** Makes the first `count` used chains available again with the buffers they had. Throws VHOST_ERR_RING like `release`. */
  repost(count: number): void {
    const from = this.#take(count);
    const { size } = this;
    const chains = this.#chains;
    const avail = this.#avail;
    const to = this.#state[NEXT_AVAIL]!;
    const mask = this.#mask;
    // Each id once: what was taken in this call is not in flight again before its end.
    for (let taken = 0; taken < count; taken++) {
      const id = this.#usedRing[1 + 2 * ((from + taken) & mask)]!;
      const chain = id < size ? chains[id]! : 0;
      if ((chain & IN_FLIGHT) === 0) {
        for (let undo = 0; undo < taken; undo++) chains[avail[RING + ((to + undo) & mask)]!]! |= IN_FLIGHT;
        if (taken > 0 && this.#marks.enabled) this.#markReposted(to, taken);
        throw this.#broken(`used id ${id} is not in flight`);
      }
      chains[id] = chain & 0xffff;
      avail[RING + ((to + taken) & mask)] = id;
    }
    for (let taken = 0; taken < count; taken++) chains[avail[RING + ((to + taken) & mask)]!]! |= IN_FLIGHT;
    this.#state[NEXT_USED] = from + count;
    this.#state[NEXT_AVAIL] = to + count;
    if (count > 0 && this.#marks.enabled) this.#markReposted(to, count);
  }

  /** Takes up to `max` used chains back: ids and written lengths into the arrays, descriptors free. Answers how many. */
  reap(max: number, ids: Uint16Array, lengths: Uint32Array): number {
    const count = Math.min(max, this.pending(), ids.length, lengths.length);
    for (let position = 0; position < count; position++) {
      ids[position] = this.usedId(position);
      lengths[position] = this.usedLength(position);
    }
    this.release(count);
    return count;
  }

  /**
   * Asks the device to call at the next used chain. Answers whether chains were used meanwhile: then no call may come for them, take them
   * before sleeping.
   */
  enableCalls(): boolean {
    const nextUsed = this.#state[NEXT_USED]!;
    if (this.eventIdx) Atomics.store(this.#avail, this.#usedEvent, nextUsed);
    else Atomics.store(this.#avail, FLAGS, 0);
    if (this.#marks.enabled) this.#marks.availWord(this.eventIdx ? this.#usedEvent : FLAGS);
    // Looks again after asking: a chain used in between was suppressed. Both accesses are sequentially consistent, so the device
    // sees the request or this sees the chain.
    return Atomics.load(this.#used, IDX) !== nextUsed;
  }

  /** Asks the device not to call. With EVENT_IDX a call may still come once in 65,536 chains. */
  disableCalls(): void {
    if (this.eventIdx) Atomics.store(this.#avail, this.#usedEvent, (this.#state[NEXT_USED]! - 1) & 0xffff);
    else Atomics.store(this.#avail, FLAGS, VRING_AVAIL_F_NO_INTERRUPT);
    if (this.#marks.enabled) this.#marks.availWord(this.eventIdx ? this.#usedEvent : FLAGS);
  }

  /** The queue for a device that begins where the last one ended: everything it took, it has used. */
  queueState(): QueueState {
    return {
      size: this.size,
      ready: true,
      descTable: gpa(this.#places.desc),
      availRing: gpa(this.#places.avail),
      usedRing: gpa(this.#places.used),
      nextAvail: Atomics.load(this.#used, IDX),
    };
  }

  /** What of this queue lies where in guest memory. */
  ranges(name: string): { name: string; gpa: number; length: number }[] {
    return driverRanges(name, this.#places);
  }

  #describe(table: Uint32Array, word: number, low: number, high: number, length: number, flagsAndNext: number): void {
    table[word] = low;
    table[word + 1] = high;
    table[word + 2] = length;
    table[word + 3] = flagsAndNext;
  }

  #makeAvailable(id: number, descriptors: number): void {
    const to = this.#state[NEXT_AVAIL]!;
    const slot = to & this.#mask;
    this.#chains[id] = IN_FLIGHT | descriptors;
    this.#avail[RING + slot] = id;
    this.#state[NEXT_AVAIL] = to + 1;
    if (this.#marks.enabled) {
      this.#marks.availEntries(to, 1);
      this.#marks.chains(id, id);
      this.#marks.stateHeader();
    }
  }

  /** Checks that `count` chains were seen as used and answers the index of the first. */
  #take(count: number): number {
    const from = this.#state[NEXT_USED]!;
    if (!(count >= 0 && count <= ((this.#seen - from) & 0xffff))) {
      throw invalidArgument(`${count} used chains`, 'at most what pending() answered');
    }
    return from;
  }

  #broken(what: string): VhostError {
    return new VhostError('VHOST_ERR_RING', `split virtqueue driver: ${what}`);
  }

  #markReposted(first: number, count: number): void {
    let least = this.size;
    let most = 0;
    for (let at = 0; at < count; at++) {
      const id = this.#avail[RING + ((first + at) & this.#mask)]!;
      if (id < least) least = id;
      if (id > most) most = id;
    }
    this.#marks.availEntries(first, count);
    this.#marks.chains(least, most);
    this.#marks.stateHeader();
  }
}
