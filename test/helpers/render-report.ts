/**
 * Records in, as a JSON list on standard input; pages out, as another. A process of its own: vega is an ES module, which jest's own module
 * loader cannot import.
 */
import { spawnSync } from 'node:child_process';
import { text } from 'node:stream/consumers';
import type { MigrationRecord } from '../../lib/migration/record';
import { renderReport } from '../../lib/report/report';

export function renderReports(records: readonly MigrationRecord[]): string[] {
  const { status, stdout, stderr } = spawnSync(process.execPath, [__filename], {
    input: JSON.stringify(records),
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
  });
  if (status !== 0) throw new Error(`rendering: ${stderr}`);
  return JSON.parse(stdout) as string[];
}

async function main(): Promise<void> {
  const records = JSON.parse(await text(process.stdin)) as MigrationRecord[];
  const pages: string[] = [];
  for (const record of records) pages.push(await renderReport(record));
  process.stdout.write(JSON.stringify(pages));
}

if (require.main === module) void main();
