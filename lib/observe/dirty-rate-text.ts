/** A dirty rate for the terminal and as JSON. */
import type { DirtyRate, HotPage, QueueDirtyRate } from './dirty-rate';
import { bytesText, grouped, msText, pagesText, rateText, shareText } from './figures';

/** What a prediction of lib/migration/what-if.ts says, as far as it is shown. */
export interface PredictedMigration {
  rule: string;
  bandwidth: number;
  rounds: number;
  totalMs: number;
  downtimeMs: number;
  bytes: number;
  converged: boolean;
  reason: string;
}

type Row = readonly string[];

/** Several lines, the last without an end of line. */
export function dirtyRateText(rate: DirtyRate, predictions: readonly PredictedMigration[] = []): string {
  const total = rate.samples.reduce((sum, pages) => sum + pages, 0);
  const perSecond = (pages: number): string => grouped(pages / rate.seconds);
  const share = (pages: number): string => shareText(pages, total);
  const parts = ({ usedRing, driverRing, buffers }: QueueDirtyRate): number => usedRing + driverRing + buffers;
  const lines = [
    `${grouped(rate.pagesPerSecond)} pages a second (${rateText(rate.bytesPerSecond)}) over ${rate.seconds.toFixed(1)} s, looked at every ${msText(rate.intervalMs)}`,
    `${pagesText(rate.distinctPages)} of ${grouped(rate.memoryPages)} got dirty at all, ${grouped(rate.alwaysDirtyPages)} of them all the time`,
    '',
    ...table([
      ['writer', 'pages/s', 'share'],
      ...Object.entries(rate.byWriter).map(([name, pages]) => [name, perSecond(pages), share(pages)]),
    ]),
    '',
    ...table([
      ['queue', 'used ring/s', 'driver ring/s', 'buffers/s', 'share'],
      ...rate.byQueue.map((queue) => [
        `${queue.queue} ${queue.kind}`,
        perSecond(queue.usedRing),
        perSecond(queue.driverRing),
        perSecond(queue.buffers),
        share(parts(queue)),
      ]),
      ['other', '', '', perSecond(rate.other), share(rate.other)],
    ]),
  ];
  if (rate.shared > 0) lines.push(`${share(rate.shared)} in pages of several owners, counted for the first`);
  if (rate.cut) lines.push('there were more buffers than are read: some may count as other');
  if (rate.hottest.length > 0) lines.push('', ...table([['page', 'times', 'what'], ...rate.hottest.map(hotRow)]));
  if (predictions.length > 0) lines.push('', ...predictionLines(predictions));
  return lines.join('\n');
}

function predictionLines(predictions: readonly PredictedMigration[]): string[] {
  const rows = predictions.map((one) => [
    one.rule,
    rateText(one.bandwidth),
    grouped(one.rounds),
    `${(one.totalMs / 1000).toFixed(2)} s`,
    msText(one.downtimeMs),
    bytesText(one.bytes),
    one.converged ? 'yes' : 'no',
  ]);
  return [
    ...table([['rule', 'bandwidth', 'rounds', 'total', 'downtime', 'sent', 'converges'], ...rows]),
    ...predictions.filter(({ converged }) => !converged).map(({ rule, reason }) => `${rule}: ${reason}`),
  ];
}

const hotRow = ({ gpa, times, owner }: HotPage): Row => [
  `0x${gpa.toString(16)}`,
  grouped(times),
  owner === null ? 'other' : `queue ${owner.queue} ${owner.kind}, ${PARTS[owner.part]}`,
];

const PARTS = { usedRing: 'used ring', driverRing: 'driver ring', buffers: 'buffers' } as const;

/** Columns as wide as they must be: the first and last of words to the left, figures to the right. */
function table(rows: readonly Row[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const last = widths.length - 1;
  const figures = (column: number): boolean => column > 0 && !(column === last && rows[0]![column] === 'what');
  return rows.map((row) =>
    row
      .map((cell, column) => (figures(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
      .join('  ')
      .trimEnd(),
  );
}

/** The same as one JSON object, for machines. */
export function dirtyRateJson(rate: DirtyRate, predictions: readonly PredictedMigration[] = []): string {
  return JSON.stringify({ ...rate, predictions }, null, 2);
}
