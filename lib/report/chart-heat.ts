/** Where pages were dirty: one cell a bucket of guest memory and round, darker for a larger share of the bucket's pages. */

import { PAGE_SIZE } from '../memory/address';
import type { HeatRegion } from '../migration/record';
import { Html, html } from './html';
import { address, count } from './units';

/** Upper ends of the levels, as shares of a bucket. */
export const HEAT_LEVELS = [0.01, 0.1, 0.25, 0.5, 1];

/** Cells of all maps together: what keeps the file small when every one of them is its own level. */
const MAX_CELLS = 49_152;
const MAX_REGIONS = 8;
const MAX_COLUMNS = 512;
const MAX_ROWS = 96;

interface Grid {
  columns: number;
  /** Shares by row, 0 to 1. */
  rows: Float64Array[];
  /** Rounds of a row. */
  rounds: number;
}

/** Cells of a region, neighbours put together until they fit; the largest share of a cell is what it shows. */
export function heatGrid(region: HeatRegion, maps: number): Grid {
  const buckets = Math.max(0, ...region.counts.map((row) => row.length));
  const budget = MAX_CELLS / maps;
  const wide = Math.max(1, Math.ceil(buckets / Math.min(MAX_COLUMNS, maps > 2 ? MAX_COLUMNS / 2 : MAX_COLUMNS)));
  const columns = Math.ceil(buckets / wide);
  const high = Math.max(
    1,
    Math.ceil(region.counts.length / Math.min(MAX_ROWS, Math.max(1, Math.floor(budget / Math.max(1, columns))))),
  );
  const rows: Float64Array[] = [];
  region.counts.forEach((counts, row) => {
    const at = Math.floor(row / high);
    if (at === rows.length) rows.push(new Float64Array(columns));
    const shares = rows[at]!;
    counts.forEach((pages, bucket) => {
      const room = Math.min(region.pages, region.total - bucket * region.pages);
      const part = room > 0 && Number.isFinite(pages) ? Math.min(1, Math.max(0, pages / room)) : 0;
      const column = Math.floor(bucket / wide);
      if (part > shares[column]!) shares[column] = part;
    });
  });
  return { columns, rows, rounds: high * Math.max(1, region.rounds) };
}

const levelOf = (part: number): number => (part <= 0 ? 0 : HEAT_LEVELS.findIndex((most) => part <= most) + 1);

/** One path a level: strokes as high as a row, in units of cells. */
function paths({ rows }: Grid): Html[] {
  const strokes: string[] = HEAT_LEVELS.map(() => '');
  rows.forEach((shares, row) => {
    let from = 0;
    for (let column = 1; column <= shares.length; column++) {
      const level = levelOf(shares[from]!);
      if (column < shares.length && levelOf(shares[column]!) === level) continue;
      if (level > 0) strokes[level - 1] += `M${from} ${row}h${column - from}`;
      from = column;
    }
  });
  return strokes.flatMap((path, at) => (path === '' ? [] : [new Html(`<path class="h${at + 1}" d="${path}"/>`)]));
}

function heatMap(region: HeatRegion, index: number, maps: number, rounds: number): Html {
  const grid = heatGrid(region, maps);
  const high = Math.min(280, Math.max(48, grid.rows.length * 14));
  const end = region.gpa + region.total * PAGE_SIZE;
  const last = Math.min(rounds, grid.rows.length * grid.rounds) - 1;
  const id = `heat-${index}`;
  const touched = grid.rows.reduce((sum, row) => sum + row.filter((part) => part > 0).length, 0);
  return html`<div class="heat"><div class="heat-rounds"><span>round 0</span>${last > 0 ? html`<span>${count(last)}</span>` : null}</div>
<svg viewBox="0 0 ${grid.columns} ${grid.rows.length}" preserveAspectRatio="none" height="${high}" role="img" aria-labelledby="${id}-title ${id}-desc">
<title id="${id}-title">Dirty pages from GPA ${address(region.gpa)} to ${address(end)}</title>
<desc id="${id}-desc">${grid.rows.length} rows of ${grid.rounds} rounds, ${grid.columns} columns; ${touched} cells have pages that were sent.</desc>
<g transform="translate(0 0.5)">${paths(grid)}</g></svg>
<div class="heat-gpa"><span>${address(region.gpa)}</span><span class="wide">${address(region.gpa + Math.floor(region.total / 2) * PAGE_SIZE)}</span><span>${address(end)}</span></div></div>`;
}

/** The maps of all regions that have rounds; null when none has. `rounds`: how many there were. */
export function heatMaps(regions: readonly HeatRegion[], rounds: number): Html | null {
  const shown = regions.filter(({ counts, total }) => counts.length > 0 && total > 0).slice(0, MAX_REGIONS);
  return shown.length === 0
    ? null
    : html`${shown.map((region, index) => heatMap(region, index, shown.length, rounds))}`;
}
