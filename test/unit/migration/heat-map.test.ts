/** Counters of dirty pages by region, bucket and round. */
import { PageBitmap } from '../../../lib/memory/page-bitmap';
import { HEAT_BUCKETS, HEAT_REGIONS, HEAT_ROWS, HeatMap } from '../../../lib/migration/heat-map';

const PAGE = 4096;

function bitmapOf(pages: number, ...set: number[]): PageBitmap {
  const bitmap = new PageBitmap(pages);
  for (const page of set) bitmap.set(page);
  return bitmap;
}

test('a bucket a page where there is room', () => {
  const heat = new HeatMap([{ gpa: 2 * PAGE, size: 4 * PAGE }]);
  heat.count(bitmapOf(16, 0, 1, 2, 5, 6), 0);
  heat.count(bitmapOf(16), 1);
  heat.count(bitmapOf(16, 3, 4), 2);
  expect(heat.regions).toEqual([
    {
      gpa: 2 * PAGE,
      total: 4,
      pages: 1,
      rounds: 1,
      counts: [
        [1, 0, 0, 1],
        [0, 0, 0, 0],
        [0, 1, 1, 0],
      ],
    },
  ]);
});

test('every page is counted once, in its region and bucket', () => {
  const regions = [
    { gpa: 100_000 * PAGE, size: 30_001 * PAGE },
    { gpa: 0, size: 99_999 * PAGE },
  ];
  const heat = new HeatMap(regions);
  const bitmap = new PageBitmap(200_000);
  bitmap.fill();
  heat.count(bitmap, 0);
  expect(heat.regions.map(({ gpa, total }) => [gpa, total])).toEqual([
    [0, 99_999],
    [100_000 * PAGE, 30_001],
  ]);
  for (const { total, pages, counts } of heat.regions) {
    const row = counts[0]!;
    expect(row.length).toBeLessThanOrEqual(HEAT_BUCKETS);
    expect(row.reduce((sum, count) => sum + count, 0)).toBe(total);
    expect(row.slice(0, -1).every((count) => count === pages)).toBe(true);
  }
});

test('a bitmap shorter than guest memory is no error', () => {
  const heat = new HeatMap([{ gpa: 0, size: 64 * PAGE }]);
  heat.count(bitmapOf(8, 7), 0);
  expect(heat.regions[0]!.counts[0]).toEqual([...Array(7).fill(0), 1, ...Array(56).fill(0)]);
});

test('very many rounds share rows, which keep the largest count', () => {
  const heat = new HeatMap([{ gpa: 0, size: 4 * PAGE }]);
  const quiet = bitmapOf(4, 0);
  const loud = bitmapOf(4, 0, 3);
  for (let round = 0; round < 1000; round++) heat.count(round === 517 ? loud : quiet, round);
  const [region] = heat.regions;
  expect(region!.rounds).toBe(4);
  expect(region!.counts).toHaveLength(250);
  expect(region!.counts.length).toBeLessThanOrEqual(HEAT_ROWS);
  expect(region!.counts.map((row) => row[3]).indexOf(1)).toBe(Math.floor(517 / 4));
  expect(region!.counts.every((row) => row[0] === 1)).toBe(true);
});

test('of very many regions the largest are counted', () => {
  const regions = Array.from({ length: 50 }, (_, at) => ({ gpa: at * 1024 * PAGE, size: (at + 1) * PAGE }));
  const heat = new HeatMap(regions);
  expect(heat.regions.map(({ total }) => total)).toEqual([43, 44, 45, 46, 47, 48, 49, 50]);
  expect(heat.regions).toHaveLength(HEAT_REGIONS);
});
