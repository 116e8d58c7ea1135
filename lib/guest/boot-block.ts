/**
 * The page of guest memory from which a queue pair of a guest is found again: what it runs, with which parameters, where its parts lie, how
 * far it is. The first pair's says how many there are and where the others' blocks lie. Little-endian; the address is a multiple of 4,096.
 *
 *     offset  type      field
 *     0       u32       magic, 'VHGB'
 *     4       u32       version
 *     8       u32[14]   numbers, see `Word`
 *     64      u32[4]    negotiated features, lowest word first
 *     80      u8[6]     MAC address
 *     86      u8[6]     MAC address of the peer
 *     96      f64[24]   addresses, parameters and counters, see `Field`
 */
import { VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { bytesAt, f64At, type RingMemory, u32At, type WriteLog } from '../virtqueue/ring-memory';

const MAGIC = 0x42474856;
const VERSION = 2;

export const BOOT_BLOCK_BYTES = PAGE_SIZE;
/** How much of the page is in use. */
const USED_BYTES = 96 + 24 * 8;

/** Indexes of u32. */
export const Word = {
  PROGRAM: 2,
  HEADER_LENGTH: 3,
  RX_SIZE: 4,
  TX_SIZE: 5,
  RX_BUFFER_SIZE: 6,
  TX_BUFFER_SIZE: 7,
  FRAME_SIZE: 8,
  FLOW: 9,
  BATCH: 10,
  LEDGER_BYTES: 11,
  SCRATCH_BYTES: 12,
  /** 1: headers have descriptors of their own; 2: MRG_RXBUF; 4: UDP frames. */
  FLAGS: 13,
  /** In the first block: of the guest, and of these, how many may send. */
  PAIRS: 14,
  ACTIVE_PAIRS: 15,
} as const;

export const SEPARATE_HEADER = 1;
export const MERGED_BUFFERS = 2;
export const UDP_FRAMES = 4;

/** Indexes of f64, from offset 96. */
export const Field = {
  RX_STATE: 0,
  TX_STATE: 1,
  LEDGER: 2,
  /** Receive buffers, transmit buffers, scratch buffer of the pair. */
  BUFFERS: 3,
  CONTROL_END: 4,
  /** Frames a second of the flow; 0 sends nothing. */
  RATE: 5,
  /** Frames that may be made up for at once after a delay. */
  BURST: 6,
  /** Frames after which the guest sends no more; 0 for no end. */
  LIMIT: 7,
  /** Frames that may be sent now. */
  TOKENS: 8,
  /** When TOKENS was computed, CLOCK_MONOTONIC microseconds; -1 before. */
  REFILLED: 9,
  /** Frames made available on the pair, of whichever flow. */
  SENT: 10,
  /** Of these, those that the device has used. */
  SENT_DONE: 11,
  RECEIVED: 12,
  RECEIVED_BYTES: 13,
  /** Frames that were shorter than a header or longer than their buffers. */
  MALFORMED: 14,
  /** Frames an echo did not send back: corrupted, addressed to a group, too long. */
  NOT_ECHOED: 15,
  /** Next sequence of the pair's flow. */
  SEQUENCE: 16,
  /** Number of the pair on whose transmit queue the flow is sent. */
  LANE: 17,
  /** Bytes from one pair's block to the next one's. */
  STRIDE: 18,
  /** In the first block: of the control queue's driver, 0 without one, and its command buffer. */
  CONTROL_STATE: 19,
  CONTROL_AREA: 20,
} as const;

const FEATURES_WORD = 16;
export const MAC_AT = 80;
export const PEER_MAC_AT = 86;

export class BootBlock {
  readonly gpa: number;
  readonly words: Uint32Array;
  readonly fields: Float64Array;
  readonly bytes: Uint8Array;
  readonly #log: WriteLog;

  /** An empty block. */
  static format(memory: RingMemory, gpa: number, log: WriteLog): BootBlock {
    const block = new BootBlock(memory, gpa, log);
    block.bytes.fill(0);
    block.words[0] = MAGIC;
    block.words[1] = VERSION;
    block.mark();
    return block;
  }

  /** Throws VHOST_ERR_STATE when there is none at `gpa`. */
  static open(memory: RingMemory, gpa: number, log: WriteLog): BootBlock {
    const block = new BootBlock(memory, gpa, log);
    if (block.words[0] !== MAGIC || block.words[1] !== VERSION) {
      throw new VhostError('VHOST_ERR_STATE', `no guest was booted at GPA 0x${gpa.toString(16)}`);
    }
    return block;
  }

  private constructor(memory: RingMemory, gpa: number, log: WriteLog) {
    this.gpa = gpa;
    this.#log = log;
    this.bytes = bytesAt(memory, gpa, BOOT_BLOCK_BYTES);
    this.words = u32At(memory, gpa, BOOT_BLOCK_BYTES / 4);
    this.fields = f64At(memory, gpa + 96, 24);
  }

  get features(): bigint {
    let features = 0n;
    for (let word = 3; word >= 0; word--) features = (features << 32n) | BigInt(this.words[FEATURES_WORD + word]!);
    return features;
  }

  set features(features: bigint) {
    for (let word = 0; word < 4; word++) {
      this.words[FEATURES_WORD + word] = Number((features >> BigInt(32 * word)) & 0xffffffffn);
    }
  }

  /** Tells the log of a change to any part of the block. */
  mark(): void {
    if (this.#log.enabled) this.#log.mark(this.gpa, USED_BYTES);
  }
}
