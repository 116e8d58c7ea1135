/** Sends every frame back to where it came from, sound and foreign ones alike; takes no more than the transmit queue has room for. */

import { ETH_HLEN } from '../constants/if-ether';
import { ETHER_SOURCE } from '../net/ethernet';
import { returnFrame } from '../net/test-frame';
import { LEDGER_CORRUPTED } from '../observe/frame-ledger';
import { Field } from './boot-block';
import type { Equipment, Program } from './program';
import type { FrameConsumer } from './receive';
import type { Transmitter } from './transmit';

export class Echo implements Program, FrameConsumer {
  readonly #equipment: Equipment;
  /** Of the lane, while frames are taken. */
  #lane: Transmitter;
  #now = 0;

  constructor(equipment: Equipment) {
    this.#equipment = equipment;
    this.#lane = equipment.transmitter;
  }

  poll(nowMicros: number): number {
    this.#now = nowMicros;
    const { machine, receiver, transmitter, lanes } = this.#equipment;
    const done = transmitter.reap();
    this.#lane = lanes.transmitter(machine.index);
    return done + receiver.drain(Math.min(machine.batch, lanes.room(machine.index)), this);
  }

  dueIn(): number {
    return Number.POSITIVE_INFINITY;
  }

  get waitsForRoom(): boolean {
    const { lanes, machine } = this.#equipment;
    return lanes.room(machine.index) === 0;
  }

  frame(offset: number, length: number): void {
    const { ledgers, machine } = this.#equipment;
    const { area, block, index } = machine;
    const verdict = ledgers.account(area, offset, length, this.#now, index);
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
    const { u8 } = this.#equipment.machine.area;
    return ((u8[offset]! | u8[offset + ETHER_SOURCE]!) & 1) === 0;
  }
}
