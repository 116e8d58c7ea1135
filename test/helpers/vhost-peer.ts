/** The station at the other end of the wire: a tap on the same bridge, read and written by the test. */
import type { Tap } from '../../lib/host/tap';
import { FRAME_LENGTH, FrameTally, frameNumber, writeFrame } from './vhost-frames';

const STRIDE = 2048;
const BATCH = 64;

export class LabPeer {
  readonly tap: Tap;
  /** Frames sent to the guest so far: the next one's number. */
  sent = 0;
  readonly tally = new FrameTally();
  readonly #out = new Uint8Array(STRIDE * BATCH);
  readonly #in = new Uint8Array(STRIDE * BATCH);
  readonly #outLengths = new Int32Array(BATCH).fill(FRAME_LENGTH);
  readonly #inLengths = new Int32Array(BATCH);

  constructor(tap: Tap) {
    this.tap = tap;
  }

  /** Sends `count` numbered frames to the guest. */
  send(count: number): void {
    let left = count;
    while (left > 0) {
      const batch = Math.min(left, BATCH);
      for (let i = 0; i < batch; i++) writeFrame(this.#out, i * STRIDE, 'guest', this.sent + i);
      const written = this.tap.writeFrames(this.#out, STRIDE, batch, this.#outLengths);
      this.sent += written;
      left -= written;
    }
  }

  /** Sends one frame of `length` bytes with the next number. */
  sendLong(length: number): void {
    const frame = new Uint8Array(length).fill(0xa5);
    writeFrame(frame, 0, 'guest', this.sent++);
    this.tap.writeFrames(frame, length, 1, Int32Array.of(length));
  }

  /** Takes what came from the guest: how many frames. */
  receive(): number {
    let total = 0;
    for (;;) {
      const count = this.tap.readFrames(this.#in, STRIDE, BATCH, this.#inLengths);
      for (let i = 0; i < count; i++) this.tally.note(frameNumber(this.#in, i * STRIDE));
      total += count;
      if (count < BATCH) return total;
    }
  }
}
