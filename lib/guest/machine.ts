/** The parts of a guest as they lie in guest memory: what programs work with. */

import { parseMac } from '../net/ethernet';
import { type FrameArea, frameArea, prepareFrame } from '../net/test-frame';
import { FrameLedger } from '../observe/frame-ledger';
import { bytesAt, highWord, lowWord, type RingMemory, type WriteLog } from '../virtqueue/ring-memory';
import { SplitDriver } from '../virtqueue/split-driver';
import { BootBlock, Field, MAC_AT, MERGED_BUFFERS, PEER_MAC_AT, SEPARATE_HEADER, Word } from './boot-block';
import type { GuestPlan } from './options';
import { GUEST_PROGRAMS } from './options';

export class Machine {
  readonly block: BootBlock;
  readonly log: WriteLog;
  readonly rx: SplitDriver;
  readonly tx: SplitDriver;
  readonly ledger: FrameLedger;
  /** All buffers: those of the receive queue by descriptor, of the transmit queue by descriptor, the scratch buffer. */
  readonly area: FrameArea;
  readonly areaGpa: number;
  readonly headerLength: number;
  readonly merged: boolean;
  readonly separateHeader: boolean;
  readonly rxBufferSize: number;
  readonly txBufferSize: number;
  /** Offsets in `area`. */
  readonly txBuffers: number;
  readonly scratch: number;
  readonly scratchBytes: number;
  readonly batch: number;

  /** Writes a new guest to guest memory. */
  static format(memory: RingMemory, plan: GuestPlan, log: WriteLog): Machine {
    const block = BootBlock.format(memory, plan.gpa, log);
    block.words[Word.PROGRAM] = GUEST_PROGRAMS.indexOf(plan.program);
    block.words[Word.HEADER_LENGTH] = plan.headerLength;
    block.words[Word.RX_SIZE] = plan.rxSize;
    block.words[Word.TX_SIZE] = plan.txSize;
    block.words[Word.RX_BUFFER_SIZE] = plan.rxBufferSize;
    block.words[Word.TX_BUFFER_SIZE] = plan.txBufferSize;
    block.words[Word.FRAME_SIZE] = plan.frameSize;
    block.words[Word.FLOW] = plan.flow;
    block.words[Word.BATCH] = plan.batch;
    block.words[Word.LEDGER_BYTES] = plan.ledgerBytes;
    block.words[Word.SCRATCH_BYTES] = plan.scratchBytes;
    block.words[Word.FLAGS] = (plan.separateHeader ? SEPARATE_HEADER : 0) | (plan.merged ? MERGED_BUFFERS : 0);
    block.features = plan.features;
    block.bytes.set(parseMac(plan.mac), MAC_AT);
    block.bytes.set(parseMac(plan.peerMac), PEER_MAC_AT);
    const { fields } = block;
    fields[Field.RX_STATE] = plan.rxState;
    fields[Field.TX_STATE] = plan.txState;
    fields[Field.LEDGER] = plan.ledger;
    fields[Field.BUFFERS] = plan.buffersGpa;
    fields[Field.CONTROL_END] = plan.controlEnd;
    fields[Field.RATE] = plan.rate;
    fields[Field.BURST] = plan.burst;
    fields[Field.LIMIT] = plan.frames;
    fields[Field.REFILLED] = -1;
    block.mark();
    SplitDriver.format(memory, plan.rxState, plan.rx, log);
    SplitDriver.format(memory, plan.txState, plan.tx, log);
    FrameLedger.create(
      { flow: plan.receiveFlow, capacity: plan.ledgerCapacity },
      bytesAt(memory, plan.ledger, plan.ledgerBytes),
      { log, gpa: plan.ledger },
    );
    const machine = new Machine(memory, block, log);
    machine.#prepareTransmitBuffers();
    return machine;
  }

  /** Finds a guest in guest memory. Throws VHOST_ERR_STATE or VHOST_ERR_RING when a part of it is not there. */
  static open(memory: RingMemory, gpa: number, log: WriteLog): Machine {
    return new Machine(memory, BootBlock.open(memory, gpa, log), log);
  }

  private constructor(memory: RingMemory, block: BootBlock, log: WriteLog) {
    const { words, fields } = block;
    this.block = block;
    this.log = log;
    this.rx = SplitDriver.attach(memory, fields[Field.RX_STATE]!, log);
    this.tx = SplitDriver.attach(memory, fields[Field.TX_STATE]!, log);
    const ledgerGpa = fields[Field.LEDGER]!;
    this.ledger = FrameLedger.open(bytesAt(memory, ledgerGpa, words[Word.LEDGER_BYTES]!), { log, gpa: ledgerGpa });
    this.headerLength = words[Word.HEADER_LENGTH]!;
    this.rxBufferSize = words[Word.RX_BUFFER_SIZE]!;
    this.txBufferSize = words[Word.TX_BUFFER_SIZE]!;
    this.merged = (words[Word.FLAGS]! & MERGED_BUFFERS) !== 0;
    this.separateHeader = (words[Word.FLAGS]! & SEPARATE_HEADER) !== 0;
    this.batch = words[Word.BATCH]!;
    this.txBuffers = words[Word.RX_SIZE]! * this.rxBufferSize;
    this.scratch = this.txBuffers + words[Word.TX_SIZE]! * this.txBufferSize;
    this.scratchBytes = words[Word.SCRATCH_BYTES]!;
    this.areaGpa = fields[Field.BUFFERS]!;
    this.area = frameArea(bytesAt(memory, this.areaGpa, this.scratch + this.scratchBytes));
  }

  /** Makes the buffer at `offset` of `area` available: a header and `length` bytes. Answers false when the queue is full. */
  post(queue: SplitDriver, offset: number, length: number, writable: boolean): boolean {
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

  /** Headers of all zeros: no offload. Of the frames, everything that does not change from one to the next. */
  #prepareTransmitBuffers(): void {
    const { words, bytes } = this.block;
    const length = words[Word.FRAME_SIZE]!;
    for (let id = 0; id < this.tx.size; id++) {
      const offset = this.txBuffers + id * this.txBufferSize;
      this.area.u8.fill(0, offset, offset + this.headerLength);
      prepareFrame(this.area, offset + this.headerLength, length, words[Word.FLOW]!, bytes, PEER_MAC_AT, MAC_AT);
      this.mark(offset, this.headerLength + length);
    }
  }
}
