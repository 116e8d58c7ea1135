import { downtime } from './downtime';
import { downtimeQemu } from './downtime-qemu';
import { downtimeVhost } from './downtime-vhost';
import { memory } from './memory';
import { packetRate } from './packet-rate';
import { pages } from './pages';
import type { BenchResult, BenchSettings } from './settings';

export interface Benchmark {
  readonly name: string;
  readonly about: string;
  /** `vhost`: where /dev/vhost-net is, so in the test VM when it is not here. `native`: on the machine itself in any case. */
  readonly where: 'native' | 'vhost';
  run(settings: BenchSettings): Promise<BenchResult[]>;
}

/** Every benchmark, in the order in which they run. */
export const BENCHMARKS: readonly Benchmark[] = [
  {
    name: 'pages',
    about: '2 GiB of memory between two processes, against C processes and QEMU',
    where: 'native',
    run: pages,
  },
  {
    name: 'memory',
    about: "what either process of a migration needs beyond the guest's memory",
    where: 'native',
    run: memory,
  },
  {
    name: 'downtime',
    about: 'migrations back and forth at 10,000 frames a second each way: downtime, and frames that went wrong',
    where: 'native',
    run: downtime,
  },
  {
    name: 'tx-pps',
    about: 'frames a second that a guest sends, against a C program and dpdk-testpmd',
    where: 'vhost',
    run: (settings) => packetRate('tx', settings),
  },
  {
    name: 'rx-pps',
    about: 'frames a second that a guest receives, against a C program and dpdk-testpmd',
    where: 'vhost',
    run: (settings) => packetRate('rx', settings),
  },
  {
    name: 'downtime-vhost',
    about: 'migrations on vhost-net at 10,000 and at 500 frames a second each way',
    where: 'vhost',
    run: downtimeVhost,
  },
  {
    name: 'downtime-qemu',
    about: "migrations of a vhost-net guest against QEMU's of one",
    where: 'vhost',
    run: downtimeQemu,
  },
];
