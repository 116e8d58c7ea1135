/** The receive queue of a guest: takes frames, whole or merged from several buffers, and gives the buffers back to the device. */
import { VhostError } from '../errors';
import { HDR_NUM_BUFFERS } from '../net/header';
import { Field } from './boot-block';
import type { Machine } from './machine';

/** Who is given the frames: `length` bytes at `offset` of the machine's area, theirs until the call returns. */
export interface FrameConsumer {
  frame(offset: number, length: number): void;
}

export class Receiver {
  readonly #machine: Machine;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** Makes every free buffer available. Answers how many. */
  fill(): number {
    const { rx, rxBuffers, rxBufferSize, headerLength } = this.#machine;
    let count = 0;
    while (this.#machine.post(rx, rxBuffers + rx.nextId * rxBufferSize, rxBufferSize - headerLength, true)) count++;
    return count;
  }

  /** Hands up to `most` frames to the consumer, then makes their buffers available again. Answers how many buffers that were. */
  drain(most: number, consumer: FrameConsumer): number {
    const { rx, area, merged, rxBuffers, rxBufferSize, headerLength, block } = this.#machine;
    const pending = rx.pending();
    let taken = 0;
    for (let frames = 0; taken < pending && frames < most; frames++) {
      const offset = rxBuffers + rx.usedId(taken) * rxBufferSize;
      const buffers = merged ? area.view.getUint16(offset + HDR_NUM_BUFFERS, true) : 1;
      if (buffers > 1) {
        this.#merge(taken, buffers, pending, consumer);
        taken += buffers;
        continue;
      }
      const length = rx.usedLength(taken);
      taken++;
      if (length < headerLength || length > rxBufferSize) {
        block.fields[Field.MALFORMED]! += 1;
        continue;
      }
      this.#hand(offset + headerLength, length - headerLength, consumer);
    }
    if (taken > 0) rx.repost(taken);
    return taken;
  }

  /** All buffers of a frame are used at once (virtio 1.4 section 5.1.6.4): fewer than it claims is the device's fault. */
  #merge(first: number, buffers: number, pending: number, consumer: FrameConsumer): void {
    const machine = this.#machine;
    const { rx, area, rxBuffers, rxBufferSize, headerLength, scratch, scratchBytes, block } = machine;
    if (first + buffers > pending) {
      throw new VhostError('VHOST_ERR_RING', `a frame of ${buffers} merged buffers, ${pending - first} of them used`);
    }
    let total = 0;
    let sound = true;
    for (let index = 0; index < buffers; index++) {
      const offset = rxBuffers + rx.usedId(first + index) * rxBufferSize;
      const length = rx.usedLength(first + index);
      const skip = index === 0 ? headerLength : 0;
      const end = total + length - skip;
      if (length < skip || length > rxBufferSize || end > scratchBytes) {
        sound = false;
        break;
      }
      area.u8.copyWithin(scratch + total, offset + skip, offset + length);
      total = end;
    }
    machine.mark(scratch, total);
    if (sound) this.#hand(scratch, total, consumer);
    else block.fields[Field.MALFORMED]! += 1;
  }

  #hand(offset: number, length: number, consumer: FrameConsumer): void {
    const { fields } = this.#machine.block;
    fields[Field.RECEIVED]! += 1;
    fields[Field.RECEIVED_BYTES]! += length;
    consumer.frame(offset, length);
  }
}
