/**
 * Keeps a tap empty that nobody serves yet: a bridge sends it broadcasts and frames for addresses it does not know, and what lies in its
 * queue when a device starts would be delivered late, after newer frames.
 */

import { check } from '../errors';
import type { Tap } from '../host/tap';
import { native, type PollHandle } from '../native';

const READABLE = 1;
const BATCH = 64;
const STRIDE = 2048;
/** A flood must not keep a device from starting: about a whole queue of the default length, a hundred times. */
const MOST = 100_000;

export class TapDiscard {
  readonly #tap: Tap;
  readonly #arena = new Uint8Array(BATCH * STRIDE);
  readonly #lengths = new Int32Array(BATCH);
  #poll: PollHandle | null;
  /** Frames thrown away. */
  frames = 0;

  constructor(tap: Tap) {
    this.#tap = tap;
    const poll = check<PollHandle>(
      native().pollStart(tap.handle, READABLE, () => this.#drain()),
      'epoll_ctl',
    );
    native().pollRef(poll, false);
    this.#poll = poll;
    this.#drain();
  }

  #drain(): void {
    for (let read = 0; read < MOST; ) {
      const count = native().framesRead(this.#tap.handle, this.#arena, STRIDE, BATCH, this.#lengths);
      if (count <= 0) return;
      this.frames += count;
      read += count;
    }
  }

  /** Empties the queue once more and ends. Idempotent. */
  stop(): void {
    if (this.#poll === null) return;
    native().pollStop(this.#poll);
    this.#poll = null;
    this.#drain();
  }
}
