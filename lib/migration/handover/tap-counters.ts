/** What a tap could not take while a hand-over went on. */

import { NetDeviceCounters } from '../../host/net-device-counters';
import type { Tap } from '../../host/tap';

/** A queue is full a little before it holds what it is said to: slots are given back several at a time (include/linux/ptr_ring.h). */
const NEARLY = 0.9;

export class TapCounters {
  readonly #tap: Tap;
  readonly #counters: NetDeviceCounters | null;
  readonly #holds: number;
  #before: number | null = null;

  private constructor(tap: Tap, counters: NetDeviceCounters | null, holds: number) {
    this.#tap = tap;
    this.#counters = counters;
    this.#holds = holds;
    this.restart();
  }

  /** Counts from now on. Where the kernel's counters cannot be read it answers null ever after. */
  static async begin(tap: Tap): Promise<TapCounters> {
    const holds = await tap.txQueueLen();
    return new TapCounters(tap, await NetDeviceCounters.open(tap.name, tap.netns).catch(() => null), holds);
  }

  /** What was dropped so far does not count. */
  restart(): void {
    this.#before = this.#read();
  }

  #read(): number | null {
    return this.#counters?.read()?.tx.dropped ?? null;
  }

  /**
   * Frames that found a queue full since `begin`; null where the kernel does not tell. What a receive filter refuses is in the same counter:
   * with a filter they are none while no queue, of which never more than `most` frames were read in one go, can have been full.
   */
  dropped(most: number): number | null {
    const now = this.#read();
    if (now === null || this.#before === null) return null;
    return this.#tap.attachedFilter !== null && most < NEARLY * this.#holds ? 0 : now - this.#before;
  }

  close(): void {
    this.#counters?.close();
  }
}
