/** Sends the numbered frames of its pair's flow at a rate and accounts for what comes in on its pair; without a rate it is a sink. */
import { frameFlow, stampFrame } from '../net/test-frame';
import { Field, Word } from './boot-block';
import { Pace } from './pace';
import type { Equipment, Program } from './program';
import type { FrameConsumer } from './receive';

export class Traffic implements Program, FrameConsumer {
  readonly #equipment: Equipment;
  readonly #pace: Pace;
  readonly #frameSize: number;
  #now = 0;

  constructor(equipment: Equipment) {
    this.#equipment = equipment;
    this.#pace = new Pace(equipment.machine.block);
    this.#frameSize = equipment.machine.block.words[Word.FRAME_SIZE]!;
  }

  poll(nowMicros: number): number {
    this.#now = nowMicros;
    const { machine, receiver, transmitter } = this.#equipment;
    const done = transmitter.reap();
    return done + receiver.drain(machine.batch, this) + this.#send(nowMicros, machine.batch);
  }

  dueIn(nowMicros: number): number {
    return this.waitsForRoom ? Number.POSITIVE_INFINITY : this.#pace.dueIn(nowMicros);
  }

  get waitsForRoom(): boolean {
    const { lanes, machine } = this.#equipment;
    return lanes.room(machine.index) === 0;
  }

  frame(offset: number, length: number): void {
    const { ledgers, machine } = this.#equipment;
    ledgers.account(machine.area, offset, length, this.#now, machine.index);
  }

  #send(nowMicros: number, batch: number): number {
    const { machine, lanes } = this.#equipment;
    const { area, block, index, flow } = machine;
    const due = Math.min(this.#pace.due(nowMicros, batch), lanes.room(index));
    const transmitter = lanes.transmitter(index);
    for (let sent = 0; sent < due; sent++) {
      const { next } = transmitter;
      // Another flow was sent from this buffer last.
      if (frameFlow(area, next) !== flow) machine.prepare(next);
      stampFrame(area, next, block.fields[Field.SEQUENCE]!, nowMicros);
      block.fields[Field.SEQUENCE]! += 1;
      transmitter.send(this.#frameSize);
    }
    if (due > 0) this.#pace.spend(due);
    return due;
  }
}
