/**
 * The driver's half of a packed virtqueue (virtio 1.4 section 2.8). Its whole state lies in guest memory, so that `attach` builds it again
 * from memory alone. Nothing on the way of a packet allocates: buffers are posted as numbers, used chains are looked at by position.
 *
 *     post / chainBegin, chainAdd, chainEnd    write chains to the ring, behind a descriptor the device does not see yet
 *     publish                                  shows them all at once, answers whether to kick
 *     pending, usedId, usedLength              what the device gave back
 *     release / repost                         ends the first of those: descriptors free again, or available again at the ring's next place
 */
import {
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
} from '../constants/virtio-ring';
import { VRING_PACKED_EVENT_FLAG_DISABLE, VRING_PACKED_EVENT_FLAG_ENABLE } from '../constants/virtio-ring-packed';
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
import { PackedDriverMarks, type PackedDriverPlaces, packedDriverRanges } from './packed-driver-marks';
import {
  bufferTableBytes,
  bufferTableOffset,
  CHAINS_IN_FLIGHT,
  FIRST_ID_AND_FLAGS,
  formatPackedDriverState,
  type PackedDriverOptions,
  readPackedDriverState,
} from './packed-driver-state';
import { advance, availFlags, distance, eventAt, eventOf, slotOf, wantsEvent, wrapOf } from './packed-position';
import { PackedUsed } from './packed-used';
import type { QueueState } from './queue-state';
import { highWord, i32At, lowWord, NO_WRITE_LOG, type RingMemory, u16At, u32At, type WriteLog } from './ring-memory';

export class PackedDriver implements DriverQueue {
  readonly size: number;
  readonly eventIdx: boolean;
  readonly #places: PackedDriverPlaces;
  readonly #marks: PackedDriverMarks;
  readonly #tableEntries: number;

  readonly #ring: Int32Array;
  readonly #driverEvent: Uint32Array;
  readonly #deviceEvent: Uint32Array;
  readonly #tables: Uint32Array | null;
  readonly #state: Uint16Array;
  readonly #stateWords: Uint32Array;
  readonly #chains: Uint32Array;
  /** The buffer table, as words and as halves: 4 or 8 of them an entry. */
  readonly #buffers: Uint32Array;
  readonly #halves: Uint16Array;
  readonly #used: PackedUsed;

  #chainHead = -1;
  #chainAt = 0;
  #chainLeft = 0;
  #chainCount = 0;
  #chainInTable = false;
  #chainWritable = false;

  /**
   * Writes an unused queue to guest memory: ring, event suppression structures, indirect tables and, at `stateAt`, the driver's state
   * (`packedDriverStateBytes`). Throws VHOST_ERR_INVALID_ARGUMENT, or what `memory.regionOf` throws.
   */
  static format(memory: RingMemory, stateAt: number, options: PackedDriverOptions, log?: WriteLog): PackedDriver {
    formatPackedDriverState(memory, stateAt, options);
    const driver = new PackedDriver(memory, stateAt, log);
    if (driver.#marks.enabled) driver.#marks.all();
    return driver;
  }

  /** Goes on with the queue whose state lies at `stateAt`. Throws VHOST_ERR_RING when there is none. */
  static attach(memory: RingMemory, stateAt: number, log?: WriteLog): PackedDriver {
    return new PackedDriver(memory, stateAt, log);
  }

  private constructor(memory: RingMemory, stateAt: number, log: WriteLog = NO_WRITE_LOG) {
    const places = { state: stateAt, ...readPackedDriverState(memory, stateAt) };
    const { size, eventIdx, desc, driverEvent, deviceEvent, indirect } = places;
    const tableAt = stateAt + bufferTableOffset(size);
    this.size = size;
    this.eventIdx = eventIdx;
    this.#places = places;
    this.#marks = new PackedDriverMarks(log, places);
    this.#tableEntries = indirect?.entries ?? 0;
    this.#ring = i32At(memory, desc, size * 4);
    this.#driverEvent = u32At(memory, driverEvent, 1);
    this.#deviceEvent = u32At(memory, deviceEvent, 1);
    this.#tables =
      indirect === null ? null : u32At(memory, indirect.tables, indirectTableBytes(size, indirect.entries) / 4);
    this.#state = u16At(memory, stateAt, DRIVER_STATE_HEADER / 2);
    this.#stateWords = u32At(memory, stateAt, DRIVER_STATE_HEADER / 4);
    this.#chains = u32At(memory, stateAt + DRIVER_STATE_HEADER, size);
    this.#buffers = u32At(memory, tableAt, bufferTableBytes(size) / 4);
    this.#halves = u16At(memory, tableAt, bufferTableBytes(size) / 2);
    this.#used = new PackedUsed(this.#ring, this.#chains, size, this.#state[NEXT_USED]!);
  }

  /** Descriptors that are free. */
  get free(): number {
    return this.#state[FREE_COUNT]!;
  }

  /** Chains made available and not taken back. */
  get inFlight(): number {
    return this.#state[CHAINS_IN_FLIGHT]!;
  }

  /** The id that the next `post` or `chainBegin` gives; meaningless when nothing is free. */
  get nextId(): number {
    return this.#state[FREE_HEAD]!;
  }

  /** A chain of one buffer. Answers its id, or -1 when no descriptor is free. */
  post(addressLow: number, addressHigh: number, length: number, writable: boolean): number {
    if (this.#state[FREE_COUNT] === 0) return -1;
    const id = this.#state[FREE_HEAD]!;
    this.#describe(id, addressLow, addressHigh, length, writable ? VRING_DESC_F_WRITE : 0);
    this.#make(id, 1, this.#halves[id * 8 + 7]!);
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
    this.#chainHead = -1;
    if (this.#state[FREE_COUNT]! < (this.#chainInTable ? 1 : buffers)) return -1;
    const head = this.#state[FREE_HEAD]!;
    this.#chainHead = head;
    this.#chainAt = this.#chainInTable ? head * this.#tableEntries : head;
    this.#chainLeft = buffers;
    this.#chainCount = buffers;
    this.#chainWritable = false;
    return head;
  }

  /** Buffers the device reads come before those it writes (section 2.8.17). */
  chainAdd(addressLow: number, addressHigh: number, length: number, writable: boolean): void {
    if (this.#chainHead < 0 || this.#chainLeft === 0)
      throw new VhostError('VHOST_ERR_STATE', 'no chain wants a buffer');
    if (this.#chainWritable && !writable) throw invalidArgument('a readable buffer behind a writable one');
    this.#chainWritable = writable;
    this.#chainLeft--;
    const at = this.#chainAt;
    const flags = writable ? VRING_DESC_F_WRITE : 0;
    if (this.#chainInTable) {
      // Of what a ring descriptor has, only this flag means anything in a table: its descriptors follow each other (section 2.8.7).
      const tables = this.#tables!;
      tables[at * 4] = addressLow;
      tables[at * 4 + 1] = addressHigh;
      tables[at * 4 + 2] = length;
      tables[at * 4 + 3] = flags << 16;
      if (this.#marks.enabled) this.#marks.tableEntry(at);
      this.#chainAt = at + 1;
    } else {
      this.#describe(at, addressLow, addressHigh, length, flags);
      this.#chainAt = this.#halves[at * 8 + 7]!;
    }
  }

  chainEnd(): void {
    const head = this.#chainHead;
    if (head < 0 || this.#chainLeft > 0)
      throw new VhostError('VHOST_ERR_STATE', `the chain wants ${this.#chainLeft} more buffers`);
    this.#chainHead = -1;
    if (this.#chainInTable) {
      const table = this.#places.indirect!.tables + head * this.#tableEntries * VRING_DESC_SIZE;
      const bytes = this.#chainCount * VRING_DESC_SIZE;
      this.#describe(head, lowWord(table), highWord(table), bytes, VRING_DESC_F_INDIRECT);
      this.#make(head, 1, this.#halves[head * 8 + 7]!);
    } else {
      this.#make(head, this.#chainCount, this.#chainAt);
    }
  }

  /** Shows the device everything made available since the last call. Answers whether the device must be kicked. */
  publish(): boolean {
    const state = this.#state;
    const to = state[NEXT_AVAIL]!;
    const from = state[PUBLISHED]!;
    if (to === from) return false;
    // A release store: whoever sees these flags sees all of this chain and, behind it, the chains written before the store.
    Atomics.store(this.#ring, slotOf(from, this.size) * 4 + 3, this.#stateWords[FIRST_ID_AND_FLAGS]! | 0);
    state[PUBLISHED] = to;
    if (this.#marks.enabled) {
      this.#marks.descriptors(from, 1);
      this.#marks.stateHeader();
    }
    // The load may not overtake the store, or both sides could miss each other and sleep; two sequentially consistent accesses
    // keep their order on every processor, so no further fence is needed. Offset and flags are one word, so they are of one moment.
    return wantsEvent(Atomics.load(this.#deviceEvent, 0), to, from, this.size, this.eventIdx);
  }

  /**
   * How many used chains wait to be taken back. Throws VHOST_ERR_RING when the next of them has an id that is not in flight, or more
   * descriptors than the device was given; chains before such a one can be taken back.
   */
  pending(): number {
    const used = this.#used;
    used.read(this.#state[PUBLISHED]!);
    if (used.count === 0 && used.fault !== null) throw this.#broken(used.fault);
    return used.count;
  }

  /** The id of the `position`th used chain, 0 <= position < pending(). */
  usedId(position: number): number {
    return this.#used.id(position);
  }

  /** Bytes the device wrote into it. */
  usedLength(position: number): number {
    return this.#used.length(position);
  }

  /** Frees the descriptors of the first `count` used chains. `pending` has checked them. */
  release(count: number): void {
    this.#requireRead(count);
    const state = this.#state;
    const halves = this.#halves;
    for (let taken = 0; taken < count; taken++) {
      const id = this.#used.drop();
      const descriptors = this.#chains[id]! & 0xffff;
      let tail = id;
      for (let more = descriptors - 1; more > 0; more--) tail = halves[tail * 8 + 7]!;
      halves[tail * 8 + 7] = state[FREE_HEAD]!;
      this.#chains[id] = 0;
      state[FREE_HEAD] = id;
      state[FREE_COUNT] = state[FREE_COUNT]! + descriptors;
      state[CHAINS_IN_FLIGHT] = state[CHAINS_IN_FLIGHT]! - 1;
      state[NEXT_USED] = advance(state[NEXT_USED]!, descriptors, this.size);
      if (this.#marks.enabled) {
        this.#marks.chain(id);
        this.#marks.buffer(tail);
      }
    }
    if (count > 0 && this.#marks.enabled) this.#marks.stateHeader();
  }

  /** Makes the first `count` used chains available again with the buffers they had, be they of one descriptor or many. */
  repost(count: number): void {
    this.#requireRead(count);
    const state = this.#state;
    const first = state[NEXT_AVAIL]!;
    for (let taken = 0; taken < count; taken++) {
      const id = this.#used.drop();
      const descriptors = this.#chains[id]! & 0xffff;
      // Its descriptors are free first, so that there is room for it even in a full ring.
      state[NEXT_USED] = advance(state[NEXT_USED]!, descriptors, this.size);
      this.#place(id, descriptors);
    }
    if (count > 0 && this.#marks.enabled) {
      this.#marks.descriptors(first, distance(first, state[NEXT_AVAIL]!, this.size));
      this.#marks.stateHeader();
    }
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
    this.#ask(this.eventIdx ? eventAt(nextUsed, this.size) : eventOf(VRING_PACKED_EVENT_FLAG_ENABLE));
    // Looks again after asking: a chain used in between was suppressed. Both accesses are sequentially consistent, so the device
    // sees the request or this sees the chain.
    return this.#used.isUsed(nextUsed);
  }

  /** Asks the device not to call. */
  disableCalls(): void {
    this.#ask(eventOf(VRING_PACKED_EVENT_FLAG_DISABLE));
  }

  /**
   * The queue for a device that begins where the last one ended: everything it took, it has used. No index says where that is, so the used
   * descriptors are read. Throws VHOST_ERR_RING when one of them is a lie.
   */
  queueState(): QueueState {
    this.#used.read(this.#state[PUBLISHED]!);
    if (this.#used.fault !== null) throw this.#broken(this.#used.fault);
    const next = slotOf(this.#used.end, this.size);
    const wrap = wrapOf(this.#used.end, this.size);
    return {
      size: this.size,
      ready: true,
      descTable: gpa(this.#places.desc),
      availRing: gpa(this.#places.driverEvent),
      usedRing: gpa(this.#places.deviceEvent),
      nextAvail: next,
      packed: { availWrap: wrap, nextUsed: next, usedWrap: wrap },
    };
  }

  /** What of this queue lies where in guest memory. */
  ranges(name: string): { name: string; gpa: number; length: number }[] {
    return packedDriverRanges(name, this.#places);
  }

  /** Writes an entry of the buffer table, all but its link. */
  #describe(entry: number, low: number, high: number, length: number, flags: number): void {
    const word = entry * 4;
    this.#buffers[word] = low;
    this.#buffers[word + 1] = high;
    this.#buffers[word + 2] = length;
    this.#halves[entry * 8 + 6] = flags;
    if (this.#marks.enabled) this.#marks.buffer(entry);
  }

  /** Makes the chain available whose entries of the buffer table were taken from the free list, which begins at `freeHead` now. */
  #make(id: number, descriptors: number, freeHead: number): void {
    const state = this.#state;
    const first = state[NEXT_AVAIL]!;
    this.#chains[id] = IN_FLIGHT | descriptors;
    state[FREE_HEAD] = freeHead;
    state[FREE_COUNT] = state[FREE_COUNT]! - descriptors;
    state[CHAINS_IN_FLIGHT] = state[CHAINS_IN_FLIGHT]! + 1;
    this.#place(id, descriptors);
    if (this.#marks.enabled) {
      this.#marks.descriptors(first, descriptors);
      this.#marks.chain(id);
      this.#marks.stateHeader();
    }
  }

  /**
   * Writes a chain to the ring. The first descriptor since the last `publish` keeps its old id and flags until the next one: the device
   * does not look beyond it, whatever stands there.
   */
  #place(id: number, descriptors: number): void {
    const { size } = this;
    const ring = this.#ring;
    const buffers = this.#buffers;
    const published = this.#state[PUBLISHED]!;
    let position = this.#state[NEXT_AVAIL]!;
    let entry = id;
    for (let left = descriptors; left > 0; left--) {
      const from = entry * 4;
      const to = slotOf(position, size) * 4;
      const flags = this.#halves[entry * 8 + 6]! | availFlags(position, size) | (left > 1 ? VRING_DESC_F_NEXT : 0);
      ring[to] = buffers[from]!;
      ring[to + 1] = buffers[from + 1]!;
      ring[to + 2] = buffers[from + 2]!;
      if (position === published) this.#stateWords[FIRST_ID_AND_FLAGS] = id | (flags << 16);
      else ring[to + 3] = id | (flags << 16);
      position = advance(position, 1, size);
      entry = this.#halves[entry * 8 + 7]!;
    }
    this.#state[NEXT_AVAIL] = position;
  }

  #ask(event: number): void {
    Atomics.store(this.#driverEvent, 0, event);
    if (this.#marks.enabled) this.#marks.driverEvent();
  }

  #requireRead(count: number): void {
    if (!(count >= 0 && count <= this.#used.count)) {
      throw invalidArgument(`${count} used chains`, 'at most what pending() answered');
    }
  }

  #broken(what: string): VhostError {
    return new VhostError('VHOST_ERR_RING', `packed virtqueue driver: ${what}`);
  }
}
