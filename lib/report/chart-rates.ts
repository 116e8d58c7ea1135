/** What was sent and what was dirtied, over time. */
import type { MigrationRecord, RateSample } from '../migration/record';
import type { Plot } from './plot';
import { bytesPerSecond, pagesPerSecond } from './units';

const MAX_POINTS = 300;

interface Point {
  at: number;
  value: number;
}

/** Samples as points; of very many, each point is the mean of several. `at` in seconds. */
export function ratePoints(
  samples: readonly RateSample[],
  of: (sample: RateSample) => number,
): { points: Point[]; together: number } {
  const usable = samples.filter((sample) => Number.isFinite(sample.atMs) && Number.isFinite(of(sample)));
  const together = Math.max(1, Math.ceil(usable.length / MAX_POINTS));
  const points: Point[] = [];
  for (let first = 0; first < usable.length; first += together) {
    const group = usable.slice(first, first + together);
    const mean = (value: (sample: RateSample) => number): number =>
      group.reduce((sum, sample) => sum + value(sample), 0) / group.length;
    points.push({ at: mean(({ atMs }) => atMs) / 1000, value: mean(of) });
  }
  return { points, together };
}

interface Rate {
  id: string;
  title: string;
  colour: string;
  of: (sample: RateSample) => number;
  text: (value: number) => string;
  /** One of the plot's unit. */
  scale: number;
}

const RATES: Record<'bandwidth' | 'dirty', Rate> = {
  bandwidth: {
    id: 'bandwidth',
    title: 'Bandwidth',
    colour: 'var(--c1)',
    of: ({ bytesPerSecond: rate }) => rate,
    text: bytesPerSecond,
    scale: 1e6,
  },
  dirty: {
    id: 'dirty-rate',
    title: 'Dirty rate',
    colour: 'var(--c2)',
    of: ({ dirtyPagesPerSecond: rate }) => rate,
    text: pagesPerSecond,
    scale: 1,
  },
};

export function ratePlot(record: MigrationRecord, which: keyof typeof RATES): Plot {
  const { id, title, colour, of, text, scale } = RATES[which];
  const points = ratePoints(record.samples, of).points.map(({ at, value }) => ({ at, value: value / scale }));
  const stopped = record.phases.find(({ phase }) => phase === 'switchover');
  const stops = stopped === undefined ? [] : [{ at: stopped.atMs / 1000 }];
  const end = Math.max(record.totalMs / 1000, ...points.map(({ at }) => at), 0.001);
  const most = Math.max(...points.map(({ value }) => value), 0);
  const mean = points.reduce((sum, { value }) => sum + value, 0) / Math.max(1, points.length);
  const x = { scale: 'x', field: 'at' };
  const y = { scale: 'y', field: 'value' };
  return {
    id,
    title,
    description: `${title} over time: ${text(mean * scale)} on average, at most ${text(most * scale)}.`,
    spec: () => ({
      height: 120,
      data: [
        { name: 'points', values: points },
        { name: 'stops', values: stops },
      ],
      scales: [
        { name: 'x', type: 'linear', domain: [0, end], range: 'width' },
        { name: 'y', type: 'linear', domain: [0, most === 0 ? 1 : most * 1.08], range: 'height', nice: 4 },
      ],
      axes: [
        { orient: 'bottom', scale: 'x', title: 'seconds since the beginning', tickCount: 8 },
        {
          orient: 'left',
          scale: 'y',
          tickCount: 4,
          format: most < 10 ? ',~r' : ',d',
        },
      ],
      marks: [
        {
          type: 'area',
          from: { data: 'points' },
          encode: {
            enter: { x, y, y2: { scale: 'y', value: 0 }, fill: { value: colour }, fillOpacity: { value: 0.16 } },
          },
        },
        {
          type: 'line',
          from: { data: 'points' },
          encode: {
            enter: { x, y, stroke: { value: colour }, strokeWidth: { value: 1.8 }, strokeJoin: { value: 'round' } },
          },
        },
        {
          type: 'rule',
          from: { data: 'stops' },
          encode: {
            enter: {
              x,
              y: { value: 0 },
              y2: { signal: 'height' },
              stroke: { value: 'var(--muted)' },
              strokeDash: { value: [4, 3] },
            },
          },
        },
        {
          type: 'text',
          from: { data: 'stops' },
          encode: {
            enter: {
              x: { ...x, offset: -5 },
              y: { value: 1 },
              text: { value: 'guest stopped' },
              align: { signal: "scale('x', datum.at) > 90 ? 'right' : 'left'" },
              dx: { signal: "scale('x', datum.at) > 90 ? 0 : 10" },
              baseline: { value: 'top' },
              font: { value: 'inherit' },
              fontSize: { value: 11 },
              fill: { value: 'var(--muted)' },
            },
          },
        },
      ],
    }),
  };
}
