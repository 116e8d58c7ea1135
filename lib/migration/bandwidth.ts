/**
 * How fast pages reach the destination: an average in which the newest rounds count most, with its spread, since the last pages may meet
 * the link at a bad moment. Bytes a second.
 */
import { PAGE_SIZE } from '../memory/address';

/** Weight of the newest sample: recent rounds say most about the next. */
const NEWEST_WEIGHT = 0.5;
/** One sample says nothing of its spread: so much of the mean is taken for it. */
const FIRST_DEVIATION = 1 / 8;
/** A sample of fewer bytes measures latency, not bandwidth. */
const LEAST_BYTES = 64 * PAGE_SIZE;
/** However wide the spread, this part of the mean is there. */
const LEAST_SHARE = 1 / 4;
const LEAST_MS = 0.001;

export class Bandwidth {
  #mean = 0;
  #variance = 0;
  #samples = 0;

  /** Answers whether it counted. A small one does until there is a better: it says the least that the link carries. */
  add(bytes: number, ms: number): boolean {
    const sample = (bytes * 1000) / Math.max(ms, LEAST_MS);
    if (bytes < LEAST_BYTES) {
      if (this.#samples === 0) this.#mean = Math.max(this.#mean, sample);
      return false;
    }
    if (this.#samples++ === 0) {
      this.#mean = sample;
      this.#variance = (sample * FIRST_DEVIATION) ** 2;
      return true;
    }
    const difference = sample - this.#mean;
    const step = NEWEST_WEIGHT * difference;
    this.#mean += step;
    this.#variance = (1 - NEWEST_WEIGHT) * (this.#variance + difference * step);
    return true;
  }

  /** 0 before anything was measured. */
  get mean(): number {
    return this.#mean;
  }

  /** One standard deviation. */
  get deviation(): number {
    return Math.sqrt(this.#variance);
  }

  /** What the link carries even when it is `deviations` standard deviations slower than on average. */
  pessimistic(deviations: number): number {
    return Math.max(this.#mean - deviations * this.deviation, this.#mean * LEAST_SHARE);
  }
}
