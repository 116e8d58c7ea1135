/** Measures, in a network namespace and mount namespace made for it: see scripts/bench.mjs, which starts it. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { BENCHMARKS } from './catalogue';
import { silenceIpv6 } from './netdev';
import { resultLine } from './report';
import type { BenchResult, BenchSettings } from './settings';

async function main(): Promise<void> {
  const settings = JSON.parse(process.argv[2] ?? '') as BenchSettings;
  // This namespace's interfaces instead of those of the namespace that /sys was mounted in.
  execFileSync('mount', ['-t', 'sysfs', 'sysfs', '/sys']);
  silenceIpv6();
  const results: BenchResult[] = [];
  for (const { name, run } of BENCHMARKS) {
    if (!settings.names.includes(name)) continue;
    const found = await run(settings);
    for (const result of found) process.stdout.write(`${resultLine(result)}\n`);
    results.push(...found);
    writeFileSync(settings.resultFile, `${JSON.stringify(results)}\n`);
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));
main().catch((error: unknown) => {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
});
