/** What a tap could not take while a hand-over went on. */

import { NetDeviceCounters } from '../../host/net-device-counters';
import type { Tap } from '../../host/tap';

export class TapCounters {
  readonly #counters: NetDeviceCounters | null;
  readonly #before: number | null;

  private constructor(counters: NetDeviceCounters | null) {
    this.#counters = counters;
    this.#before = counters?.read()?.tx.dropped ?? null;
  }

  /** Counts from now on. Where the kernel's counters cannot be read it answers null ever after. */
  static async begin(tap: Tap): Promise<TapCounters> {
    return new TapCounters(await NetDeviceCounters.open(tap.name, tap.netns).catch(() => null));
  }

  /** Frames that found the queue full since `begin`; null where the kernel does not tell. */
  dropped(): number | null {
    const now = this.#counters?.read()?.tx.dropped ?? null;
    return now === null || this.#before === null ? null : now - this.#before;
  }

  close(): void {
    this.#counters?.close();
  }
}
