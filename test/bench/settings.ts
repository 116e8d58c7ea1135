/** What scripts/bench.mjs hands to the process that measures, as one JSON argument, and what comes back in `resultFile`. */
export interface BenchSettings {
  readonly names: readonly string[];
  readonly pairs: number;
  /** Length of a window, after the warm-up. */
  readonly seconds: number;
  readonly warmUpSeconds: number;
  /** The compiled peers/vhost_flood.c. */
  readonly vhostFlood: string;
  readonly resultFile: string;
}

/** One comparison: rates in the benchmark's unit, `ratio` the median of ours / peer pair by pair, `spread` its interquartile range. */
export interface BenchResult {
  readonly name: string;
  readonly ours: number;
  readonly peer: number;
  readonly peerName: string;
  readonly ratio: number;
  readonly spread: number;
  readonly goal: number;
  readonly met: boolean;
}
