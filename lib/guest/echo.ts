/** Sends every frame back to where it came from, sound and foreign ones alike; takes no more than the transmit queue has room for. */

import { ETH_HLEN } from '../constants/if-ether';
import { ETHER_SOURCE } from '../net/ethernet';
import { returnFrame } from '../net/test-frame';
import { LEDGER_CORRUPTED } from '../observe/frame-ledger';
import type { LedgerSet } from '../observe/ledger-set';
import { Field } from './boot-block';
import type { Lanes } from './lanes';
import type { Machine } from './machine';
import type { Equipment, Program } from './program';
import type { FrameConsumer, Receiver } from './receive';
import type { Transmitter } from './transmit';

export class Echo implements Program, FrameConsumer {
  readonly #machine: Machine;
  readonly #receiver: Receiver;
  readonly #transmitter: Transmitter;
  readonly #lanes: Lanes;
  readonly #ledgers: LedgerSet;
  /** Of the lane, while frames are taken. */
  #lane: Transmitter;
  #now = 0;

  constructor({ machine, receiver, transmitter, lanes, ledgers }: Equipment) {
    this.#machine = machine;
    this.#receiver = receiver;
    this.#transmitter = transmitter;
    this.#lanes = lanes;
    this.#ledgers = ledgers;
    this.#lane = transmitter;
  }

  poll(nowMicros: number): number {
    this.#now = nowMicros;
    const { index, batch } = this.#machine;
    const done = this.#transmitter.reap();
    this.#lane = this.#lanes.transmitter(index);
    return done + this.#receiver.drain(Math.min(batch, this.#lanes.room(index)), this);
  }

  dueIn(): number {
    return Number.POSITIVE_INFINITY;
  }

  get waitsForRoom(): boolean {
    return this.#lanes.room(this.#machine.index) === 0;
  }

  frame(offset: number, length: number): void {
    const { area, block, index } = this.#machine;
    const verdict = this.#ledgers.account(area, offset, length, this.#now, index);
    if (verdict === LEDGER_CORRUPTED || !this.#canReturn(offset, length)) {
      block.fields[Field.NOT_ECHOED]! += 1;
      return;
    }
    const { next } = this.#lane;
    area.u8.copyWithin(next, offset, offset + length);
    returnFrame(area, next, length);
    block.fields[Field.SEQUENCE]! += 1;
    this.#lane.send(length);
  }

  /** Short frames have no addresses, and a group address cannot send. */
  #canReturn(offset: number, length: number): boolean {
    if (length < ETH_HLEN || length > this.#lane.capacity) return false;
    const { u8 } = this.#machine.area;
    return ((u8[offset]! | u8[offset + ETHER_SOURCE]!) & 1) === 0;
  }
}
