/** A flood of the transmit queue: none while its pair is not active. */
import type { DriverQueue } from '../virtqueue/driver-queue';
import { Field, Word } from './boot-block';
import { Flood } from './flood';
import type { Lanes } from './lanes';
import type { Equipment, Program } from './program';
import type { Transmitter } from './transmit';

export class FloodTransmit implements Program {
  readonly #pair: number;
  readonly #lanes: Lanes;
  readonly #queue: DriverQueue;
  readonly #transmitter: Transmitter;
  readonly #frameSize: number;
  readonly #flood: Flood;

  constructor({ machine, lanes, transmitter }: Equipment) {
    const { index, tx, block, batch } = machine;
    this.#pair = index;
    this.#lanes = lanes;
    this.#queue = tx;
    this.#transmitter = transmitter;
    this.#frameSize = block.words[Word.FRAME_SIZE]!;
    this.#flood = new Flood(tx, block, Field.SENT_DONE, batch);
  }

  get #active(): boolean {
    return this.#pair < this.#lanes.active;
  }

  /** The frames that go round. Answers how many. */
  fill(): number {
    return this.#active ? this.#transmitter.fill(this.#frameSize) : 0;
  }

  poll(nowMicros: number): number {
    if (!this.#active) return this.#transmitter.reap();
    return this.#flood.poll(nowMicros) + (this.#queue.free > 0 ? this.fill() : 0);
  }

  dueIn(): number {
    return this.#active ? this.#flood.dueIn() : Number.POSITIVE_INFINITY;
  }

  readonly waitsForRoom = true;
}
