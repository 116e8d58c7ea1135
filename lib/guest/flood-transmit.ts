/** A flood of the transmit queue: none while its pair is not active. */
import { Field, Word } from './boot-block';
import { Flood } from './flood';
import type { Equipment, Program } from './program';

export class FloodTransmit implements Program {
  readonly #equipment: Equipment;
  readonly #flood: Flood;

  constructor(equipment: Equipment) {
    const { tx, block, batch } = equipment.machine;
    this.#equipment = equipment;
    this.#flood = new Flood(tx, block, Field.SENT_DONE, batch);
  }

  get #active(): boolean {
    return this.#equipment.machine.index < this.#equipment.lanes.active;
  }

  /** The frames that go round. Answers how many. */
  fill(): number {
    const { machine, transmitter } = this.#equipment;
    return this.#active ? transmitter.fill(machine.block.words[Word.FRAME_SIZE]!) : 0;
  }

  poll(nowMicros: number): number {
    const { machine, transmitter } = this.#equipment;
    if (!this.#active) return transmitter.reap();
    return this.#flood.poll(nowMicros) + (machine.tx.free > 0 ? this.fill() : 0);
  }

  dueIn(): number {
    return this.#active ? this.#flood.dueIn() : Number.POSITIVE_INFINITY;
  }

  readonly waitsForRoom = true;
}
