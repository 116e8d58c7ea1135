/** The transmit queue of a pair: one buffer for each descriptor, so a frame is written where its descriptor will point. */
import { Field } from './boot-block';
import type { Machine } from './machine';

export class Transmitter {
  readonly #machine: Machine;
  /** Descriptors that one frame takes from the ring. */
  readonly #taken: number;

  constructor(machine: Machine, indirect: boolean) {
    this.#machine = machine;
    this.#taken = machine.separateHeader && !indirect ? 2 : 1;
  }

  /** Frames that can be sent now. */
  get room(): number {
    return Math.floor(this.#machine.tx.free / this.#taken);
  }

  /** The device has used everything, and what it used was taken back. */
  get empty(): boolean {
    return this.#machine.tx.inFlight === 0;
  }

  /** Longest frame. */
  get capacity(): number {
    return this.#machine.txBufferSize - this.#machine.headerLength;
  }

  /** Where in the machine's area the next frame is to be written. Only with room. */
  get next(): number {
    const { tx, txBuffers, txBufferSize, headerLength } = this.#machine;
    return txBuffers + tx.nextId * txBufferSize + headerLength;
  }

  /** Makes the frame written at `next` available. */
  send(length: number): void {
    const machine = this.#machine;
    const offset = this.next - machine.headerLength;
    machine.post(machine.tx, offset, length, false);
    machine.mark(offset, machine.headerLength + length);
    machine.block.fields[Field.SENT]! += 1;
  }

  /** Makes the frames that were prepared in the free buffers available, `length` bytes each. Answers how many. */
  fill(length: number): number {
    const machine = this.#machine;
    const { tx, txBuffers, txBufferSize } = machine;
    let count = 0;
    while (machine.post(tx, txBuffers + tx.nextId * txBufferSize, length, false)) count++;
    return count;
  }

  /** Frees what the device has sent. Answers how many frames. */
  reap(): number {
    const { tx, block } = this.#machine;
    const done = tx.pending();
    if (done === 0) return 0;
    tx.release(done);
    block.fields[Field.SENT_DONE]! += done;
    return done;
  }
}
