/** When to stop the guest: as soon as what is dirty fits the downtime limit at the bandwidth measured, or after so many rounds. */
import { PAGE_SIZE } from '../memory/address';

/** Weight of the newest round in the bandwidth estimate: recent rounds say most about the next. */
const NEWEST_WEIGHT = 0.6;

export interface RoundFigures {
  bytes: number;
  ms: number;
}

export class Convergence {
  readonly #downtimeLimitMs: number;
  readonly #maxRounds: number;
  #rounds = 0;
  #bytesPerMs = 0;

  constructor(downtimeLimitMs: number, maxRounds: number) {
    this.#downtimeLimitMs = downtimeLimitMs;
    this.#maxRounds = maxRounds;
  }

  /** Bytes a millisecond, 0 before the first round. */
  get bandwidth(): number {
    return this.#bytesPerMs;
  }

  /** Time the remaining pages would take. Milliseconds. */
  estimate(dirtyPages: number): number {
    return this.#bytesPerMs === 0 ? Number.POSITIVE_INFINITY : (dirtyPages * PAGE_SIZE) / this.#bytesPerMs;
  }

  /** Counts one round and says whether to stop the guest now. */
  done(round: RoundFigures, dirtyPages: number): boolean {
    this.#rounds++;
    // A round of a few pages measures latency, not bandwidth: it must not spoil the estimate.
    if (round.bytes >= 64 * PAGE_SIZE || this.#bytesPerMs === 0) {
      const measured = round.bytes / Math.max(round.ms, 0.001);
      this.#bytesPerMs =
        this.#bytesPerMs === 0 ? measured : NEWEST_WEIGHT * measured + (1 - NEWEST_WEIGHT) * this.#bytesPerMs;
    }
    return this.#rounds >= this.#maxRounds || this.estimate(dirtyPages) <= this.#downtimeLimitMs;
  }
}
