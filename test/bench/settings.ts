/** What scripts/bench.mjs hands to the process that measures, as one JSON argument, and what comes back in `resultFile`. */
export interface BenchSettings {
  readonly names: readonly string[];
  readonly pairs: number;
  /** Length of a window, after the warm-up. */
  readonly seconds: number;
  readonly warmUpSeconds: number;
  /** The compiled peers/vhost_flood.c; empty for benchmarks that run natively. */
  readonly vhostFlood: string;
  /** Migrations of a benchmark that counts them. */
  readonly migrations: number;
  readonly resultFile: string;
}

/**
 * One comparison: figures in the benchmark's unit, `ratio` the median of ours / peer pair by pair, `spread` its interquartile range. Where the
 * peer is a limit that must not be passed, `ratio` is limit / ours and the goal 1; where `less` is better, peer / ours.
 */
export interface BenchResult {
  readonly name: string;
  readonly ours: number;
  readonly peer: number;
  readonly peerName: string;
  readonly ratio: number;
  readonly spread: number;
  readonly goal: number;
  readonly met: boolean;
  readonly less?: true;
}
