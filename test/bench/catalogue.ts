import { packetRate } from './packet-rate';
import type { BenchResult, BenchSettings } from './settings';

export interface Benchmark {
  readonly name: string;
  readonly about: string;
  run(settings: BenchSettings): Promise<BenchResult[]>;
}

/** Every benchmark, in the order in which they run. */
export const BENCHMARKS: readonly Benchmark[] = [
  {
    name: 'tx-pps',
    about: 'frames a second that a guest sends, against a C program and dpdk-testpmd',
    run: (settings) => packetRate('tx', settings),
  },
  {
    name: 'rx-pps',
    about: 'frames a second that a guest receives, against a C program and dpdk-testpmd',
    run: (settings) => packetRate('rx', settings),
  },
];
