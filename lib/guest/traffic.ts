/** Sends numbered frames at a rate and accounts for what comes in; without a rate it is a sink. */
import { stampFrame } from '../net/test-frame';
import { Field, Word } from './boot-block';
import type { Machine } from './machine';
import { Pace } from './pace';
import type { Program } from './program';
import type { FrameConsumer, Receiver } from './receive';
import type { Transmitter } from './transmit';

export class Traffic implements Program, FrameConsumer {
  readonly #machine: Machine;
  readonly #receiver: Receiver;
  readonly #transmitter: Transmitter;
  readonly #pace: Pace;
  readonly #frameSize: number;
  #now = 0;

  constructor(machine: Machine, receiver: Receiver, transmitter: Transmitter) {
    this.#machine = machine;
    this.#receiver = receiver;
    this.#transmitter = transmitter;
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
    return this.#transmitter.room === 0;
  }

  frame(offset: number, length: number): void {
    this.#machine.ledger.account(this.#machine.area, offset, length, this.#now);
  }

  #send(nowMicros: number, batch: number): number {
    const { area, block } = this.#machine;
    const transmitter = this.#transmitter;
    const due = Math.min(this.#pace.due(nowMicros, batch), transmitter.room);
    for (let sent = 0; sent < due; sent++) {
      stampFrame(area, transmitter.next, block.fields[Field.SENT]!, nowMicros);
      transmitter.send(this.#frameSize);
    }
    if (due > 0) this.#pace.spend(due);
    return due;
  }
}
