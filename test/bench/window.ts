/** What is known of a contender after it was measured once. */
export interface Window {
  /** Frames a second, by the kernel's counters of its tap. */
  readonly rate: number;
  /** Share of one processor that the vhost worker ran, 0 to 1. */
  readonly worker: number;
  /** Share of one processor that the driver's own threads, so all but the worker, ran. */
  readonly driver: number;
  /** Share of the driver's looks at the used ring that found nothing, NaN where it does not tell. */
  readonly idle: number;
  readonly kicksPerSecond: number;
}
