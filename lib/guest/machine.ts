/** The parts of one queue pair of a guest as they lie in guest memory: what programs work with. */
import { MAX_QUEUE_PAIRS } from '../device/device-properties';
import { VhostError } from '../errors';
import { parseMac } from '../net/ethernet';
import { fromGuest } from '../net/test-flows';
import { type FrameArea, type FrameShape, frameArea, prepareFrame } from '../net/test-frame';
import { FrameLedger } from '../observe/frame-ledger';
import type { NamedRange } from '../observe/page-audit';
import type { DriverQueue } from '../virtqueue/driver-queue';
import { bytesAt, highWord, lowWord, type RingMemory, type WriteLog } from '../virtqueue/ring-memory';
import {
  BOOT_BLOCK_BYTES,
  BootBlock,
  Field,
  MAC_AT,
  MERGED_BUFFERS,
  PEER_MAC_AT,
  SEPARATE_HEADER,
  UDP_FRAMES,
  Word,
} from './boot-block';
import { GUEST_PROGRAMS } from './options';
import { type GuestPlan, pairBufferBytes } from './plan';
import { attachQueue, formatQueue } from './rings';

/** The buffers of all pairs as one stretch, so that any pair can copy from any. */
interface Buffers {
  area: FrameArea;
  gpa: number;
}

export class Machine {
  /** Number of the pair, from 0. */
  readonly index: number;
  readonly block: BootBlock;
  readonly log: WriteLog;
  readonly rx: DriverQueue;
  readonly tx: DriverQueue;
  readonly ledger: FrameLedger;
  /** All buffers of the guest; of a pair those of the receive queue by descriptor, of the transmit queue by descriptor, the scratch buffer. */
  readonly area: FrameArea;
  readonly areaGpa: number;
  readonly headerLength: number;
  readonly merged: boolean;
  readonly separateHeader: boolean;
  readonly rxBufferSize: number;
  readonly txBufferSize: number;
  /** Offsets in `area`. */
  readonly rxBuffers: number;
  readonly txBuffers: number;
  readonly scratch: number;
  readonly scratchBytes: number;
  readonly batch: number;
  /** Of the pair's flow. */
  readonly flow: number;
  readonly shape: FrameShape;

  /** Writes a new guest to guest memory. One machine a pair. */
  static format(memory: RingMemory, plan: GuestPlan, log: WriteLog): Machine[] {
    for (let index = 0; index < plan.pairs; index++) formatPair(memory, plan, index, log);
    const machines = Machine.open(memory, plan.gpa, log);
    for (const machine of machines) machine.#prepareTransmitBuffers();
    return machines;
  }

  /** Finds a guest in guest memory. Throws VHOST_ERR_STATE or VHOST_ERR_RING when a part of it is not there. */
  static open(memory: RingMemory, gpa: number, log: WriteLog): Machine[] {
    const first = BootBlock.open(memory, gpa, log);
    const { words, fields } = first;
    const pairs = words[Word.PAIRS]!;
    const active = words[Word.ACTIVE_PAIRS]!;
    if (pairs < 1 || pairs > MAX_QUEUE_PAIRS || active < 1 || active > pairs) {
      throw new VhostError('VHOST_ERR_STATE', `a guest with ${active} of ${pairs} queue pairs`);
    }
    const bytes = pairs * bufferBytes(first);
    const buffers = { area: frameArea(bytesAt(memory, fields[Field.BUFFERS]!, bytes)), gpa: fields[Field.BUFFERS]! };
    return Array.from({ length: pairs }, (_, index) => {
      const block = index === 0 ? first : BootBlock.open(memory, gpa + index * fields[Field.STRIDE]!, log);
      return new Machine(memory, block, index, pairs, buffers, log);
    });
  }

  private constructor(
    memory: RingMemory,
    block: BootBlock,
    index: number,
    pairs: number,
    buffers: Buffers,
    log: WriteLog,
  ) {
    const { words, fields } = block;
    const lane = fields[Field.LANE]!;
    const at = fields[Field.BUFFERS]! - buffers.gpa;
    if (!Number.isInteger(lane) || lane < 0 || lane >= pairs || at !== index * bufferBytes(block)) {
      throw new VhostError('VHOST_ERR_STATE', `queue pair ${index} of the guest has no sound boot block`);
    }
    this.index = index;
    this.block = block;
    this.log = log;
    this.rx = attachQueue(memory, fields[Field.RX_STATE]!, log);
    this.tx = attachQueue(memory, fields[Field.TX_STATE]!, log);
    const ledgerGpa = fields[Field.LEDGER]!;
    this.ledger = FrameLedger.open(bytesAt(memory, ledgerGpa, words[Word.LEDGER_BYTES]!), { log, gpa: ledgerGpa });
    this.headerLength = words[Word.HEADER_LENGTH]!;
    this.rxBufferSize = words[Word.RX_BUFFER_SIZE]!;
    this.txBufferSize = words[Word.TX_BUFFER_SIZE]!;
    this.merged = (words[Word.FLAGS]! & MERGED_BUFFERS) !== 0;
    this.separateHeader = (words[Word.FLAGS]! & SEPARATE_HEADER) !== 0;
    this.batch = words[Word.BATCH]!;
    this.flow = words[Word.FLOW]!;
    this.shape = fromGuest((words[Word.FLAGS]! & UDP_FRAMES) === 0 ? 'raw' : 'udp', index);
    this.rxBuffers = at;
    this.txBuffers = at + words[Word.RX_SIZE]! * this.rxBufferSize;
    this.scratch = this.txBuffers + words[Word.TX_SIZE]! * this.txBufferSize;
    this.scratchBytes = words[Word.SCRATCH_BYTES]!;
    this.areaGpa = buffers.gpa;
    this.area = buffers.area;
  }

  /** Makes the buffer at `offset` of `area` available: a header and `length` bytes. Answers false when the queue is full. */
  post(queue: DriverQueue, offset: number, length: number, writable: boolean): boolean {
    const at = this.areaGpa + offset;
    if (!this.separateHeader) {
      return queue.post(lowWord(at), highWord(at), this.headerLength + length, writable) >= 0;
    }
    if (queue.chainBegin(2) < 0) return false;
    const behind = at + this.headerLength;
    queue.chainAdd(lowWord(at), highWord(at), this.headerLength, writable);
    queue.chainAdd(lowWord(behind), highWord(behind), length, writable);
    queue.chainEnd();
    return true;
  }

  mark(offset: number, length: number): void {
    if (this.log.enabled) this.log.mark(this.areaGpa + offset, length);
  }

  /** Writes at `offset` of `area` what all frames of the pair's flow share. */
  prepare(offset: number): void {
    const { words, bytes } = this.block;
    const length = words[Word.FRAME_SIZE]!;
    prepareFrame(this.area, offset, length, this.flow, bytes, PEER_MAC_AT, MAC_AT, this.shape);
  }

  /** What lies where in guest memory. */
  ranges(prefix: string): NamedRange[] {
    const { block, rx, tx, ledger, areaGpa, rxBuffers, txBuffers, scratch, scratchBytes } = this;
    const { fields, words } = block;
    const at = (name: string, gpa: number, length: number): NamedRange => ({ name: prefix + name, gpa, length });
    return [
      at('boot block', block.gpa, BOOT_BLOCK_BYTES),
      ...rx.ranges(`${prefix}receive`),
      ...tx.ranges(`${prefix}transmit`),
      at(`ledger of flow ${ledger.flow}`, fields[Field.LEDGER]!, words[Word.LEDGER_BYTES]!),
      at('receive buffers', areaGpa + rxBuffers, txBuffers - rxBuffers),
      at('transmit buffers', areaGpa + txBuffers, scratch - txBuffers),
      at('scratch buffer', areaGpa + scratch, scratchBytes),
    ];
  }

  /** Headers of all zeros: no offload. Of the frames, everything that does not change from one to the next. */
  #prepareTransmitBuffers(): void {
    const length = this.block.words[Word.FRAME_SIZE]!;
    for (let id = 0; id < this.tx.size; id++) {
      const offset = this.txBuffers + id * this.txBufferSize;
      this.area.u8.fill(0, offset, offset + this.headerLength);
      this.prepare(offset + this.headerLength);
      this.mark(offset, this.headerLength + length);
    }
  }
}

function bufferBytes({ words }: BootBlock): number {
  const rxBytes = words[Word.RX_SIZE]! * words[Word.RX_BUFFER_SIZE]!;
  const txBytes = words[Word.TX_SIZE]! * words[Word.TX_BUFFER_SIZE]!;
  return pairBufferBytes(rxBytes, txBytes, words[Word.SCRATCH_BYTES]!);
}

function formatPair(memory: RingMemory, plan: GuestPlan, index: number, log: WriteLog): void {
  const pair = plan.pairPlans[index]!;
  const block = BootBlock.format(memory, pair.gpa, log);
  const { words, fields } = block;
  words[Word.PROGRAM] = GUEST_PROGRAMS.indexOf(plan.program);
  words[Word.HEADER_LENGTH] = plan.headerLength;
  words[Word.RX_SIZE] = plan.rxSize;
  words[Word.TX_SIZE] = plan.txSize;
  words[Word.RX_BUFFER_SIZE] = plan.rxBufferSize;
  words[Word.TX_BUFFER_SIZE] = plan.txBufferSize;
  words[Word.FRAME_SIZE] = plan.frameSize;
  words[Word.FLOW] = pair.flow;
  words[Word.BATCH] = plan.batch;
  words[Word.LEDGER_BYTES] = plan.ledgerBytes;
  words[Word.SCRATCH_BYTES] = plan.scratchBytes;
  words[Word.FLAGS] =
    (plan.separateHeader ? SEPARATE_HEADER : 0) |
    (plan.merged ? MERGED_BUFFERS : 0) |
    (plan.shape === 'udp' ? UDP_FRAMES : 0);
  words[Word.PAIRS] = plan.pairs;
  words[Word.ACTIVE_PAIRS] = plan.activePairs;
  block.features = plan.features;
  block.bytes.set(parseMac(plan.mac), MAC_AT);
  block.bytes.set(parseMac(plan.peerMac), PEER_MAC_AT);
  fields[Field.RX_STATE] = pair.rx.state;
  fields[Field.TX_STATE] = pair.tx.state;
  fields[Field.LEDGER] = pair.ledger;
  fields[Field.BUFFERS] = pair.buffers;
  fields[Field.CONTROL_END] = plan.controlEnd;
  fields[Field.STRIDE] = plan.stride;
  fields[Field.RATE] = plan.rate / plan.pairs;
  fields[Field.BURST] = plan.burst;
  fields[Field.LIMIT] = plan.frames;
  fields[Field.REFILLED] = -1;
  fields[Field.LANE] = plan.program.startsWith('flood') ? index : index % plan.activePairs;
  block.mark();
  formatQueue(memory, pair.rx, log);
  formatQueue(memory, pair.tx, log);
  FrameLedger.create(
    { flow: pair.receiveFlow, capacity: plan.ledgerCapacity },
    bytesAt(memory, pair.ledger, plan.ledgerBytes),
    { log, gpa: pair.ledger },
  );
}
