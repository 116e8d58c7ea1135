/** Where in guest memory pages were dirty, round by round, in a bounded number of counters. */
import { PAGE_SIZE } from '../memory/address';
import type { PageBitmap } from '../memory/page-bitmap';
import type { HeatRegion } from './record';

/** Buckets of one region: about as many columns as paper can show. */
export const HEAT_BUCKETS = 512;
/** Rows of one region: beyond them two neighbours become one. */
export const HEAT_ROWS = 256;
/** Regions that are counted: the largest ones. */
export const HEAT_REGIONS = 8;

const RUN = 8192;

export class HeatMap {
  readonly regions: HeatRegion[];
  readonly #indexes = new Uint32Array(RUN);

  /** `regions`: guest memory, bytes. */
  constructor(regions: readonly { gpa: number; size: number }[]) {
    this.regions = [...regions]
      .sort((one, other) => other.size - one.size)
      .slice(0, HEAT_REGIONS)
      .sort((one, other) => one.gpa - other.gpa)
      .map(({ gpa, size }) => {
        const total = size / PAGE_SIZE;
        return { gpa, total, pages: Math.max(1, Math.ceil(total / HEAT_BUCKETS)), rounds: 1, counts: [] };
      });
  }

  /** Counts the pages of one round, once. Costs about 10 ms for a million pages: not while the guest stands still. */
  count(bitmap: PageBitmap, round: number): void {
    for (const region of this.regions) {
      while (Math.floor(round / region.rounds) >= HEAT_ROWS) halve(region);
      this.#add(region, bitmap, Math.floor(round / region.rounds));
    }
  }

  #add(region: HeatRegion, bitmap: PageBitmap, row: number): void {
    const buckets = Math.ceil(region.total / region.pages);
    while (region.counts.length <= row) region.counts.push(new Array(buckets).fill(0));
    const counts = new Uint32Array(buckets);
    const indexes = this.#indexes;
    const first = region.gpa / PAGE_SIZE;
    const end = first + region.total;
    let from = first;
    while (from < end) {
      const found = bitmap.indexes(from, indexes);
      for (let at = 0; at < found; at++) {
        const page = indexes[at]!;
        if (page >= end) break;
        counts[Math.floor((page - first) / region.pages)]!++;
      }
      from = found < indexes.length ? end : indexes[found - 1]! + 1;
    }
    region.counts[row] = larger(region.counts[row]!, counts);
  }
}

function larger(one: ArrayLike<number>, other: ArrayLike<number>): number[] {
  return Array.from(one, (count, at) => Math.max(count, other[at]!));
}

/** Half as many rows, of twice as many rounds. */
function halve(region: HeatRegion): void {
  const rows: number[][] = [];
  for (let row = 0; row < region.counts.length; row += 2) {
    const next = region.counts[row + 1];
    rows.push(next === undefined ? region.counts[row]! : larger(region.counts[row]!, next));
  }
  region.counts = rows;
  region.rounds *= 2;
}
