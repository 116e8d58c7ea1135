/** The rounds: as bars, as a table, over time, and over guest memory. */

import type { Round } from '../migration/options';
import type { MigrationRecord } from '../migration/record';
import { HEAT_LEVELS, heatMaps } from './chart-heat';
import { ratePlot, ratePoints } from './chart-rates';
import { roundBars, roundsPlot } from './chart-rounds';
import { figure, legend, section, table } from './figure';
import { type Content, type Html, html } from './html';
import { drawPlot } from './plot';
import { bytes, bytesPerSecond, count, duration } from './units';

/** Rows of the table: the first of very many rounds, and the last. */
const FIRST_ROWS = 10;
const LAST_ROWS = 40;
/** Writers named in one cell. */
const MAX_WRITERS = 6;

const COLUMNS = [
  { title: 'Round', figures: true },
  { title: 'Began at', figures: true },
  { title: 'Took', figures: true },
  { title: 'Pages', figures: true },
  { title: 'Zero', figures: true },
  { title: 'Hot', figures: true },
  { title: 'Sent', figures: true },
  { title: 'Rate', figures: true },
  { title: 'Dirty after', figures: true },
  { title: 'Dirtied by' },
];

function writers(dirtyBy: Record<string, number>): string {
  const named = Object.entries(dirtyBy).filter(([, pages]) => pages > 0);
  const shown = named.slice(0, MAX_WRITERS).map(([name, pages]) => `${name} ${count(pages)}`);
  if (named.length > MAX_WRITERS) shown.push('…');
  return shown.length === 0 ? '–' : shown.join(', ');
}

function row(round: Round): Content[] {
  return [
    count(round.round),
    duration(round.startMs),
    duration(round.ms),
    count(round.pages),
    count(round.zeroPages),
    count(round.hotPages),
    bytes(round.bytes),
    round.ms > 0 ? bytesPerSecond((round.bytes / round.ms) * 1000) : '–',
    count(round.dirtyAfter),
    writers(round.dirtyBy),
  ];
}

function between(rounds: readonly Round[]): Content[] {
  const sum = (field: 'ms' | 'pages' | 'zeroPages' | 'hotPages' | 'bytes'): number =>
    rounds.reduce((total, round) => total + round[field], 0);
  return [
    html`${count(rounds.length)} rounds`,
    duration(rounds[0]!.startMs),
    duration(sum('ms')),
    count(sum('pages')),
    count(sum('zeroPages')),
    count(sum('hotPages')),
    bytes(sum('bytes')),
    bytesPerSecond((sum('bytes') / Math.max(sum('ms'), 0.001)) * 1000),
    count(rounds.at(-1)!.dirtyAfter),
    '…',
  ];
}

function roundsTable(rounds: readonly Round[]): Html {
  const shown =
    rounds.length <= FIRST_ROWS + LAST_ROWS + 1
      ? rounds.map(row)
      : [
          ...rounds.slice(0, FIRST_ROWS).map(row),
          between(rounds.slice(FIRST_ROWS, -LAST_ROWS)),
          ...rounds.slice(-LAST_ROWS).map(row),
        ];
  return table('Rounds', COLUMNS, shown, { stacked: true });
}

export async function roundsSection(record: MigrationRecord): Promise<Html> {
  const { rounds } = record;
  if (rounds.length === 0) return section('Rounds', html`<p class="none">No round was finished.</p>`);
  const { together } = roundBars(rounds);
  return section(
    'Rounds',
    figure('Pages per round', await drawPlot(roundsPlot(rounds)), {
      legend: legend([
        { swatch: 'soft', text: 'pages sent' },
        { swatch: 'c1', text: 'of them with data, the others are zero' },
        { swatch: 'c2 diamond', text: 'dirty again afterwards' },
      ]),
      note: `Logarithmic scale.${together > 1 ? ` One bar stands for ${together} rounds: the sum of their pages, and what was dirty after the last.` : ''}`,
    }),
    roundsTable(rounds),
  );
}

/** Null for a migration too short for two samples. */
export async function ratesSection(record: MigrationRecord): Promise<Html | null> {
  const { together, points } = ratePoints(record.samples, ({ bytesPerSecond: rate }) => rate);
  if (points.length < 2) return null;
  const note = together > 1 ? `Each point is the mean of ${together} samples.` : null;
  return section(
    'Over time',
    figure('Bandwidth, MB/s', await drawPlot(ratePlot(record, 'bandwidth')), { note }),
    figure('Dirty rate, pages/s', await drawPlot(ratePlot(record, 'dirty')), { note }),
  );
}

const percent = (part: number): string => `${part * 100} %`;

export function heatSection({ heat, guestMemory, rounds }: MigrationRecord): Html | null {
  const maps = heatMaps(heat, rounds.length);
  if (maps === null) return null;
  const levels = HEAT_LEVELS.map((most, at) => ({
    swatch: `h${at + 1}`,
    text: at === 0 ? `up to ${percent(most)} of a cell` : percent(most),
  }));
  const left = guestMemory.length - heat.length;
  return section(
    'Over guest memory',
    figure('Dirty pages by guest physical address', maps, {
      legend: legend(levels),
      note: html`One row a round from top to bottom, guest physical addresses from left to right. The stronger a cell, the more of its pages; of several rounds or stretches in one cell it shows the busiest.${left > 0 ? ` ${count(left)} smaller regions are not shown.` : null}`,
    }),
  );
}
