/**
 * Accounts for the numbered frames of one flow at the place where they arrive (net/test-frame.ts). The whole account lies in bytes the
 * caller provides, in guest memory or not, and can be opened again from them.
 *
 *     offset  type        field
 *     0       u32         magic, 'VHFL'
 *     4       u32         version
 *     8       u32         flow
 *     12      u32         capacity: how many of the newest sequences are told apart, a multiple of 32
 *     16      f64[16]     counters, see `Counter`
 *     144     f64[2][16]  longest gaps: start, length; microseconds
 *     400     u32[]       a bit for each sequence modulo capacity
 *
 * A frame so late that its sequence is `capacity` or more behind the highest cannot be told from a duplicate: it counts as stale and stays
 * lost, so that the account errs on the side of loss.
 */
import { invalidArgument, VhostError } from '../errors';
import { checkFrame, FRAME_FOREIGN, FRAME_OK, type FrameArea, frameFlow, frameSequence } from '../net/test-frame';
import { NO_WRITE_LOG, type WriteLog } from '../virtqueue/ring-memory';

const MAGIC = 0x4c464856;
const VERSION = 1;
const COUNTERS_AT = 16;
const GAPS = 16;
const GAPS_AT = COUNTERS_AT + 16 * 8;
const BITS_AT = GAPS_AT + 2 * 8 * GAPS;

const Counter = {
  RECEIVED: 0,
  DUPLICATED: 1,
  REORDERED: 2,
  CORRUPTED: 3,
  FOREIGN: 4,
  STALE: 5,
  /** Sequence of the first frame that came; -1 before. */
  FIRST: 6,
  /** Highest sequence; -1 before. */
  HIGHEST: 7,
  /** When the last frame of the flow arrived; -1 before. */
  LAST_ARRIVAL: 8,
  /** Length of the shortest gap in a full table: a shorter one need not be looked at. */
  LEAST_GAP: 9,
  BYTES: 10,
} as const;

/** What a frame was found to be. */
export const LEDGER_RECEIVED = 0;
export const LEDGER_REORDERED = 1;
export const LEDGER_DUPLICATED = 2;
export const LEDGER_STALE = 3;
export const LEDGER_CORRUPTED = 4;
export const LEDGER_FOREIGN = 5;

export interface LedgerReport {
  /** As the sender says. */
  sent: number;
  /** Different frames that came, whole; those out of order included. */
  received: number;
  lost: number;
  duplicated: number;
  /** Came after one with a higher sequence. */
  reordered: number;
  /** Wrong length or checksum. */
  corrupted: number;
}

/** A stretch between two arrivals. Microseconds. */
export interface LedgerGap {
  start: number;
  length: number;
}

export interface LedgerOptions {
  flow: number;
  /** Sequences told apart, rounded up to a multiple of 32. Default 65,536. */
  capacity?: number;
}

export interface LedgerPlace {
  /** Told of every write; with the address of the first byte. */
  log?: WriteLog;
  gpa?: number;
}

const DEFAULT_CAPACITY = 65536;
const MAX_CAPACITY = 2 ** 31;

const words = (capacity: number): number => Math.ceil(capacity / 32);

export class FrameLedger {
  readonly flow: number;
  readonly capacity: number;
  readonly #counters: Float64Array;
  readonly #gaps: Float64Array;
  readonly #bits: Uint32Array;
  readonly #log: WriteLog;
  readonly #gpa: number;

  /** Bytes that a ledger of this capacity takes, a multiple of 8. */
  static bytes(capacity = DEFAULT_CAPACITY): number {
    return BITS_AT + 8 * Math.ceil(words(capacity) / 2);
  }

  /** Begins an account in `bytes` (8-byte aligned), or in memory of its own. */
  static create(options: LedgerOptions, bytes?: Uint8Array, place?: LedgerPlace): FrameLedger {
    const { flow, capacity = DEFAULT_CAPACITY } = options;
    if (!Number.isInteger(flow) || flow < 0 || flow > 0xffff) throw invalidArgument(`flow ${flow}`, '0 to 65535');
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAX_CAPACITY) {
      throw invalidArgument(`a ledger of ${capacity} sequences`, `1 to ${MAX_CAPACITY}`);
    }
    const size = FrameLedger.bytes(capacity);
    const target = bytes ?? new Uint8Array(size);
    if (target.byteLength < size) {
      throw invalidArgument(`${target.byteLength} bytes for a ledger of ${capacity} sequences`, `${size} bytes`);
    }
    target.fill(0, 0, size);
    const head = new Uint32Array(target.buffer, target.byteOffset, 4);
    head.set([MAGIC, VERSION, flow, words(capacity) * 32]);
    const counters = new Float64Array(target.buffer, target.byteOffset + COUNTERS_AT, 16);
    counters[Counter.FIRST] = counters[Counter.HIGHEST] = counters[Counter.LAST_ARRIVAL] = -1;
    const ledger = new FrameLedger(target, place);
    if (ledger.#log.enabled) ledger.#log.mark(ledger.#gpa, size);
    return ledger;
  }

  /** Goes on with the account in `bytes`. Throws VHOST_ERR_STATE when there is none. */
  static open(bytes: Uint8Array, place?: LedgerPlace): FrameLedger {
    return new FrameLedger(bytes, place);
  }

  private constructor(bytes: Uint8Array, { log = NO_WRITE_LOG, gpa = 0 }: LedgerPlace = {}) {
    const head = bytes.byteLength < BITS_AT ? [] : new Uint32Array(bytes.buffer, bytes.byteOffset, 4);
    const capacity = head[3] ?? 0;
    if (head[0] !== MAGIC || head[1] !== VERSION || capacity === 0 || FrameLedger.bytes(capacity) > bytes.byteLength) {
      throw new VhostError('VHOST_ERR_STATE', 'no frame ledger in these bytes');
    }
    this.flow = head[2]!;
    this.capacity = capacity;
    this.#counters = new Float64Array(bytes.buffer, bytes.byteOffset + COUNTERS_AT, 16);
    this.#gaps = new Float64Array(bytes.buffer, bytes.byteOffset + GAPS_AT, 2 * GAPS);
    this.#bits = new Uint32Array(bytes.buffer, bytes.byteOffset + BITS_AT, words(capacity));
    this.#log = log;
    this.#gpa = gpa;
  }

  /** Accounts for the `length` bytes at `offset` that arrived at `micros`. Answers LEDGER_*. */
  account(area: FrameArea, offset: number, length: number, micros: number): number {
    const verdict = checkFrame(area, offset, length);
    if (verdict !== FRAME_OK) {
      return verdict === FRAME_FOREIGN
        ? this.#count(Counter.FOREIGN, LEDGER_FOREIGN)
        : this.#count(Counter.CORRUPTED, LEDGER_CORRUPTED);
    }
    if (frameFlow(area, offset) !== this.flow) return this.#count(Counter.FOREIGN, LEDGER_FOREIGN);
    const counters = this.#counters;
    counters[Counter.BYTES]! += length;
    this.#arrival(micros);
    return this.#sequence(frameSequence(area, offset));
  }

  /** What came, held against what was sent. */
  report(sent: number): LedgerReport {
    const received = this.received;
    return {
      sent,
      received,
      lost: sent - received,
      duplicated: this.duplicated,
      reordered: this.reordered,
      corrupted: this.corrupted,
    };
  }

  get received(): number {
    return this.#counters[Counter.RECEIVED]!;
  }

  get duplicated(): number {
    return this.#counters[Counter.DUPLICATED]!;
  }

  get reordered(): number {
    return this.#counters[Counter.REORDERED]!;
  }

  get corrupted(): number {
    return this.#counters[Counter.CORRUPTED]!;
  }

  /** Frames of other flows and other kinds. */
  get foreign(): number {
    return this.#counters[Counter.FOREIGN]!;
  }

  /** Too late to be told from duplicates. */
  get stale(): number {
    return this.#counters[Counter.STALE]!;
  }

  /** Bytes of all sound frames of the flow. */
  get bytes(): number {
    return this.#counters[Counter.BYTES]!;
  }

  /** Sequence that came first, or -1. */
  get first(): number {
    return this.#counters[Counter.FIRST]!;
  }

  /** Highest sequence that came, or -1. */
  get highest(): number {
    return this.#counters[Counter.HIGHEST]!;
  }

  /** Up to 16 of the longest stretches without a frame, longest first. */
  gaps(): LedgerGap[] {
    const gaps: LedgerGap[] = [];
    for (let at = 0; at < GAPS; at++) {
      const length = this.#gaps[2 * at + 1]!;
      if (length > 0) gaps.push({ start: this.#gaps[2 * at]!, length });
    }
    return gaps.sort((a, b) => b.length - a.length);
  }

  /** The longest stretch without a frame, or null. */
  longestGap(): LedgerGap | null {
    return this.gaps()[0] ?? null;
  }

  /** Ascending, up to `max` of the sequences below `sent` that did not come, among the newest `capacity`. */
  lostSequences(max: number, sent = this.highest + 1): number[] {
    const lost: number[] = [];
    for (
      let sequence = Math.max(0, this.highest - this.capacity + 1);
      sequence < sent && lost.length < max;
      sequence++
    ) {
      if (sequence > this.highest || !this.#has(sequence)) lost.push(sequence);
    }
    return lost;
  }

  #count(counter: number, what: number): number {
    this.#counters[counter]! += 1;
    if (this.#log.enabled) this.#log.mark(this.#gpa + COUNTERS_AT, 16 * 8);
    return what;
  }

  #sequence(sequence: number): number {
    const counters = this.#counters;
    const highest = counters[Counter.HIGHEST]!;
    if (sequence <= highest) {
      if (highest - sequence >= this.capacity) return this.#count(Counter.STALE, LEDGER_STALE);
      if (this.#has(sequence)) return this.#count(Counter.DUPLICATED, LEDGER_DUPLICATED);
      this.#set(sequence);
      counters[Counter.RECEIVED]! += 1;
      return this.#count(Counter.REORDERED, LEDGER_REORDERED);
    }
    if (highest < 0) counters[Counter.FIRST] = sequence;
    this.#forget(highest + 1, sequence);
    this.#set(sequence);
    counters[Counter.HIGHEST] = sequence;
    return this.#count(Counter.RECEIVED, LEDGER_RECEIVED);
  }

  #has(sequence: number): boolean {
    const at = sequence % this.capacity;
    return (this.#bits[at >>> 5]! & (1 << (at & 31))) !== 0;
  }

  #set(sequence: number): void {
    const at = sequence % this.capacity;
    this.#bits[at >>> 5]! |= 1 << (at & 31);
    if (this.#log.enabled) this.#log.mark(this.#gpa + BITS_AT + 4 * (at >>> 5), 4);
  }

  /** The bits of sequences from `from` up to `to` were those of sequences one capacity before. */
  #forget(from: number, to: number): void {
    if (to - from >= this.capacity) {
      this.#bits.fill(0);
      if (this.#log.enabled) this.#log.mark(this.#gpa + BITS_AT, this.#bits.byteLength);
      return;
    }
    for (let sequence = from; sequence < to; sequence++) {
      const at = sequence % this.capacity;
      this.#bits[at >>> 5]! &= ~(1 << (at & 31));
      if (this.#log.enabled) this.#log.mark(this.#gpa + BITS_AT + 4 * (at >>> 5), 4);
    }
  }

  #arrival(micros: number): void {
    const counters = this.#counters;
    const last = counters[Counter.LAST_ARRIVAL]!;
    counters[Counter.LAST_ARRIVAL] = micros;
    const length = micros - last;
    // A clock that went back is another host's: the gap cannot be known.
    if (last < 0 || length <= counters[Counter.LEAST_GAP]!) return;
    const gaps = this.#gaps;
    let least = 0;
    for (let at = 1; at < GAPS; at++) if (gaps[2 * at + 1]! < gaps[2 * least + 1]!) least = at;
    gaps[2 * least] = last;
    gaps[2 * least + 1] = length;
    let shortest = Number.POSITIVE_INFINITY;
    for (let at = 0; at < GAPS; at++) shortest = Math.min(shortest, gaps[2 * at + 1]!);
    counters[Counter.LEAST_GAP] = shortest;
    if (this.#log.enabled) this.#log.mark(this.#gpa + GAPS_AT, 2 * 8 * GAPS);
  }
}
