/**
 * The driver's side of the control virtqueue (virtio 1.4 section 5.1.6.5): one command at a time from a buffer in guest memory. That one is
 * under way is the queue's own knowledge, so guest memory alone carries this on.
 *
 *     offset  type   field
 *     0       u8     ack; the bytes behind it are the device's too when a framing says so
 *     8       u8[]   class, command, data
 */
import { VIRTIO_NET_CTRL_HDR_SIZE } from '../constants/virtio-net-ctrl';
import { invalidArgument, VhostError } from '../errors';
import { type ControlCommand, encodeControlCommand } from '../net/control-command';
import type { DriverQueue } from '../virtqueue/driver-queue';
import { bytesAt, highWord, lowWord, NO_WRITE_LOG, type RingMemory, type WriteLog } from '../virtqueue/ring-memory';

const ACK_AT = 0;
const COMMAND_AT = 8;
/** In the ack byte until the device writes it. */
const NO_ACK = 0xff;

/** Bytes of each descriptor, in order: any cut of class, command and data, then of what the device may write, ack first. */
export interface ControlFraming {
  readonly readable: readonly number[];
  /** Up to 8 bytes. Default the ack alone. */
  readonly writable?: readonly number[];
}

export interface ControlArea {
  readonly gpa: number;
  /** 8 and the longest command. */
  readonly bytes: number;
}

export class ControlDriver {
  readonly #queue: DriverQueue;
  readonly #area: Uint8Array;
  readonly #gpa: number;
  readonly #log: WriteLog;

  /** `area` lies in one region of guest memory. */
  constructor(queue: DriverQueue, memory: RingMemory, area: ControlArea, log: WriteLog = NO_WRITE_LOG) {
    this.#queue = queue;
    this.#area = bytesAt(memory, area.gpa, area.bytes);
    this.#gpa = area.gpa;
    this.#log = log;
  }

  /** A command was sent and its ack not taken. */
  get busy(): boolean {
    return this.#queue.inFlight > 0;
  }

  /**
   * Sends a command, framed as Linux does unless told otherwise: header, data, ack. Answers whether the device must be kicked. Throws
   * VHOST_ERR_STATE while another is under way, VHOST_ERR_INVALID_ARGUMENT for one longer than the area or not as long as its framing.
   */
  send(command: ControlCommand, framing?: ControlFraming): boolean {
    if (this.busy) throw new VhostError('VHOST_ERR_STATE', 'a control command is under way: poll for its ack first');
    const bytes = encodeControlCommand(command);
    if (COMMAND_AT + bytes.length > this.#area.length) {
      throw invalidArgument(`a control command of ${bytes.length} bytes`, `at most ${this.#area.length - COMMAND_AT}`);
    }
    const { readable, writable = [1] } = framing ?? linuxFraming(bytes.length);
    if (sum(readable) !== bytes.length || !(sum(writable) >= 1 && sum(writable) <= COMMAND_AT)) {
      throw invalidArgument(
        `descriptors of ${sum(readable)} and ${sum(writable)} bytes`,
        `${bytes.length}, and 1 to ${COMMAND_AT}`,
      );
    }
    const queue = this.#queue;
    if (queue.chainBegin(readable.length + writable.length) < 0) {
      throw new VhostError('VHOST_ERR_STATE', 'the control queue has fewer descriptors than the command wants');
    }
    this.#area.fill(NO_ACK, ACK_AT, COMMAND_AT);
    this.#area.set(bytes, COMMAND_AT);
    if (this.#log.enabled) this.#log.mark(this.#gpa, COMMAND_AT + bytes.length);
    this.#add(COMMAND_AT, readable, false);
    this.#add(ACK_AT, writable, true);
    queue.chainEnd();
    return queue.publish();
  }

  /** The ack of the command under way: VIRTIO_NET_OK or VIRTIO_NET_ERR, 255 when the device wrote none. Null while there is none. */
  poll(): number | null {
    if (this.#queue.pending() === 0) return null;
    const ack = this.#area[ACK_AT]!;
    this.#queue.release(1);
    return ack;
  }

  #add(at: number, lengths: readonly number[], writable: boolean): void {
    let gpa = this.#gpa + at;
    for (const length of lengths) {
      this.#queue.chainAdd(lowWord(gpa), highWord(gpa), length, writable);
      gpa += length;
    }
  }
}

function linuxFraming(bytes: number): ControlFraming {
  const data = bytes - VIRTIO_NET_CTRL_HDR_SIZE;
  return { readable: data === 0 ? [VIRTIO_NET_CTRL_HDR_SIZE] : [VIRTIO_NET_CTRL_HDR_SIZE, data] };
}

/** NaN, which equals and exceeds nothing, when there is a length that no descriptor has. */
const sum = (lengths: readonly number[]): number =>
  lengths.reduce((total, length) => (Number.isInteger(length) && length >= 1 ? total + length : Number.NaN), 0);
