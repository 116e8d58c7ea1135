/** A limit in bytes a second over everything that shares it: whoever has sent pays afterwards, and nobody begins while there is debt. */
import { setTimeout as sleep } from 'node:timers/promises';
import { invalidArgument } from '../errors';

/** Time, for tests to stand in. Milliseconds. */
export interface Clock {
  now(): number;
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

const REAL: Clock = {
  now: () => performance.now(),
  // An abort ends the sleep; who slept looks at the signal.
  sleep: (ms, signal) => sleep(ms, undefined, signal === undefined ? {} : { signal }).catch(() => undefined),
};

/** Unused rate is kept for this long, so that a pause does not become a burst. */
const BURST_MS = 20;
/** Longest sleep in one piece: a limit that was changed meanwhile takes effect after it. */
const NAP_MS = 50;

export class BandwidthLimit {
  readonly #clock: Clock;
  #limit = 0;
  /** Bytes that may be sent now; negative: bytes sent too early. */
  #credit = 0;
  #counted: number;

  /** `limit` 0: none. */
  constructor(limit = 0, clock: Clock = REAL) {
    this.#clock = clock;
    this.#counted = clock.now();
    this.limit = limit;
  }

  /** Bytes a second; 0 for no limit. May be changed while it is waited for. */
  get limit(): number {
    return this.#limit;
  }

  set limit(bytesPerSecond: number) {
    if (!(bytesPerSecond >= 0)) throw invalidArgument(`a bandwidth of ${bytesPerSecond} bytes a second`, '0 or more');
    this.#count();
    this.#limit = Number.isFinite(bytesPerSecond) ? bytesPerSecond : 0;
  }

  /** Bytes that are sent in `ms` at the limit; Infinity without one. */
  bytesIn(ms: number): number {
    return this.#limit === 0 ? Number.POSITIVE_INFINITY : (this.#limit * ms) / 1000;
  }

  #count(): void {
    const now = this.#clock.now();
    const earned = (this.#limit * (now - this.#counted)) / 1000;
    this.#credit = Math.min(this.#credit + earned, (this.#limit * BURST_MS) / 1000);
    this.#counted = now;
  }

  /** Until what was sent before is paid for. An abort ends it early, without an error. */
  async ready(signal?: AbortSignal): Promise<void> {
    while (this.#limit > 0 && signal?.aborted !== true) {
      this.#count();
      if (this.#credit >= 0) return;
      await this.#clock.sleep(Math.min(Math.ceil((-this.#credit / this.#limit) * 1000), NAP_MS), signal);
    }
  }

  spend(bytes: number): void {
    if (this.#limit > 0) this.#credit -= bytes;
  }
}
