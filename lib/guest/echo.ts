/** Sends every frame back to where it came from, sound and foreign ones alike; takes no more than the transmit queue has room for. */

import { ETH_HLEN } from '../constants/if-ether';
import { ETHER_SOURCE, swapAddresses } from '../net/ethernet';
import { isTestFrame, sealFrame } from '../net/test-frame';
import { LEDGER_CORRUPTED } from '../observe/frame-ledger';
import { Field } from './boot-block';
import type { Machine } from './machine';
import type { Program } from './program';
import type { FrameConsumer, Receiver } from './receive';
import type { Transmitter } from './transmit';

export class Echo implements Program, FrameConsumer {
  readonly #machine: Machine;
  readonly #receiver: Receiver;
  readonly #transmitter: Transmitter;
  #now = 0;

  constructor(machine: Machine, receiver: Receiver, transmitter: Transmitter) {
    this.#machine = machine;
    this.#receiver = receiver;
    this.#transmitter = transmitter;
  }

  poll(nowMicros: number): number {
    this.#now = nowMicros;
    const done = this.#transmitter.reap();
    return done + this.#receiver.drain(Math.min(this.#machine.batch, this.#transmitter.room), this);
  }

  dueIn(): number {
    return Number.POSITIVE_INFINITY;
  }

  get waitsForRoom(): boolean {
    return this.#transmitter.room === 0;
  }

  frame(offset: number, length: number): void {
    const { area, ledger, block } = this.#machine;
    const verdict = ledger.account(area, offset, length, this.#now);
    if (verdict === LEDGER_CORRUPTED || !this.#canReturn(offset, length)) {
      block.fields[Field.NOT_ECHOED]! += 1;
      return;
    }
    const next = this.#transmitter.next;
    area.u8.copyWithin(next, offset, offset + length);
    swapAddresses(area.u8, next);
    if (isTestFrame(area, next, length)) sealFrame(area, next, length);
    this.#transmitter.send(length);
  }

  /** Short frames have no addresses, and a group address cannot send. */
  #canReturn(offset: number, length: number): boolean {
    if (length < ETH_HLEN || length > this.#transmitter.capacity) return false;
    return ((this.#machine.area.u8[offset]! | this.#machine.area.u8[offset + ETHER_SOURCE]!) & 1) === 0;
  }
}
