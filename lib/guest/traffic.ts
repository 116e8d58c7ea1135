/** Sends the numbered frames of its pair's flow at a rate and accounts for what comes in on its pair; without a rate it is a sink. */
import { frameFlow, stampFrame } from '../net/test-frame';
import type { LedgerSet } from '../observe/ledger-set';
import { Field, Word } from './boot-block';
import type { Lanes } from './lanes';
import type { Machine } from './machine';
import { Pace } from './pace';
import type { Equipment, Program } from './program';
import type { FrameConsumer, Receiver } from './receive';
import type { Transmitter } from './transmit';

export class Traffic implements Program, FrameConsumer {
  readonly #machine: Machine;
  readonly #receiver: Receiver;
  readonly #transmitter: Transmitter;
  readonly #lanes: Lanes;
  readonly #ledgers: LedgerSet;
  readonly #pace: Pace;
  readonly #frameSize: number;
  #now = 0;

  constructor({ machine, receiver, transmitter, lanes, ledgers }: Equipment) {
    this.#machine = machine;
    this.#receiver = receiver;
    this.#transmitter = transmitter;
    this.#lanes = lanes;
    this.#ledgers = ledgers;
    this.#pace = new Pace(machine.block);
    this.#frameSize = machine.block.words[Word.FRAME_SIZE]!;
  }

  poll(nowMicros: number): number {
    this.#now = nowMicros;
    const { batch } = this.#machine;
    const done = this.#transmitter.reap();
    return done + this.#receiver.drain(batch, this) + this.#send(nowMicros, batch);
  }

  dueIn(nowMicros: number): number {
    return this.waitsForRoom ? Number.POSITIVE_INFINITY : this.#pace.dueIn(nowMicros);
  }

  get waitsForRoom(): boolean {
    return this.#lanes.room(this.#machine.index) === 0;
  }

  frame(offset: number, length: number): void {
    const { area, index } = this.#machine;
    this.#ledgers.account(area, offset, length, this.#now, index);
  }

  #send(nowMicros: number, batch: number): number {
    const owed = this.#pace.due(nowMicros, batch);
    if (owed === 0) return 0;
    const machine = this.#machine;
    const { area, block, index, flow } = machine;
    const due = Math.min(owed, this.#lanes.room(index));
    const transmitter = this.#lanes.transmitter(index);
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
