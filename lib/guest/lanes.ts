/**
 * On which pair's transmit queue each flow is sent. Flow k has pair k, or pair k modulo the number of active pairs while pair k is not active.
 *
 * A flow moves when nothing of it is on its way: a device may take a frame from the new queue before an older one from the old. So a pair
 * that a flow wants to leave makes nothing available until the device has used everything that it has, for the flows that stay as well.
 * Where every flow is, is in guest memory. A flood has no flow that could move: it stands still on a pair that is not active.
 */
import { Field, Word } from './boot-block';
import type { Machine } from './machine';
import type { Transmitter } from './transmit';

export class Lanes {
  readonly #machines: readonly Machine[];
  readonly #transmitters: readonly Transmitter[];
  /** By pair: flows that wait to leave it. */
  readonly #leaving: Uint8Array;
  #moving = 0;
  readonly #flows: boolean;
  #active: number;

  /** `flows`: the program has flows that move. */
  constructor(machines: readonly Machine[], transmitters: readonly Transmitter[], flows: boolean) {
    this.#machines = machines;
    this.#transmitters = transmitters;
    this.#flows = flows;
    this.#leaving = new Uint8Array(machines.length);
    this.#active = machines[0]!.block.words[Word.ACTIVE_PAIRS]!;
    this.#count();
  }

  get active(): number {
    return this.#active;
  }

  set active(pairs: number) {
    const { block } = this.#machines[0]!;
    block.words[Word.ACTIVE_PAIRS] = pairs;
    block.mark();
    this.#active = pairs;
    this.#count();
    this.settle();
  }

  /** Every flow is where it belongs, and nothing is on its way on a pair that is not active. */
  get settled(): boolean {
    return this.#moving === 0 && this.#transmitters.every(({ empty }, pair) => pair < this.#active || empty);
  }

  /** Number of the pair on which the flow is sent. */
  of(flow: number): number {
    return this.#machines[flow]!.block.fields[Field.LANE]!;
  }

  /** Frames that the flow can send now. */
  room(flow: number): number {
    const lane = this.of(flow);
    return this.#leaving[lane]! > 0 ? 0 : this.#transmitters[lane]!.room;
  }

  transmitter(flow: number): Transmitter {
    return this.#transmitters[this.of(flow)]!;
  }

  /** Moves the flows that have waited long enough. After used frames were taken back. */
  settle(): void {
    if (this.#moving === 0) return;
    for (let flow = 0; flow < this.#machines.length; flow++) {
      const lane = this.of(flow);
      const wanted = this.#wanted(flow);
      if (lane === wanted || !this.#transmitters[lane]!.empty) continue;
      const { block } = this.#machines[flow]!;
      block.fields[Field.LANE] = wanted;
      block.mark();
    }
    this.#count();
  }

  #wanted(flow: number): number {
    return this.#flows ? flow % this.#active : flow;
  }

  #count(): void {
    this.#leaving.fill(0);
    this.#moving = 0;
    for (let flow = 0; flow < this.#machines.length; flow++) {
      if (this.of(flow) === this.#wanted(flow)) continue;
      this.#leaving[this.of(flow)]! += 1;
      this.#moving++;
    }
  }
}
