/** downtime-vhost: migrations back and forth between two processes on vhost-net, at two rates each way, the first of which has a limit. */
import { none, run } from './downtime';
import { limited } from './report';
import type { BenchResult, BenchSettings } from './settings';
import { interquartileRange, quantile } from './statistics';

const RATE = 10_000;
/** What a machine that is itself emulated keeps up with. */
const SLOW_RATE = 500;
const MEMORY = 64 * 2 ** 20;
const MOST = 30;
const WARM_UP = 5;
const P99_LIMIT_MS = 60;

export async function downtimeVhost({ migrations }: BenchSettings): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const [name, rate] of [
    ['downtime-vhost', RATE],
    ['downtime-vhost-slow', SLOW_RATE],
  ] as const) {
    const options = { path: 'vhost-kernel', rate, memory: MEMORY, seconds: 200 } as const;
    const [moves, wrong] = await run(name, options, Math.min(MOST, migrations), { warmUp: WARM_UP });
    const times = moves.map(({ result }) => result.downtimeMs);
    results.push(
      limited(`${name}-p99-ms`, quantile(times, 0.99), P99_LIMIT_MS, interquartileRange(times)),
      none(`${name}-frames`, wrong),
    );
  }
  return results;
}
