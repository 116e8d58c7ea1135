/** Pages of every round, and how many were dirty again behind it. */
import type { Round } from '../migration/options';
import type { Plot } from './plot';
import { count } from './units';

/** Bars: about as many as a small screen can tell apart. */
const MAX_BARS = 60;

interface Bar {
  /** Number of the first round. */
  label: string;
  pages: number;
  data: number;
  dirty: number;
}

/** Rounds as bars; of very many, several make one bar: the sum of their pages and what was dirty after the last. */
export function roundBars(rounds: readonly Round[]): { bars: Bar[]; together: number } {
  const together = Math.max(1, Math.ceil(rounds.length / MAX_BARS));
  const bars: Bar[] = [];
  for (let first = 0; first < rounds.length; first += together) {
    const group = rounds.slice(first, first + together);
    const last = group.at(-1)!;
    const pages = group.reduce((sum, round) => sum + round.pages, 0);
    const zero = group.reduce((sum, round) => sum + round.zeroPages, 0);
    bars.push({ label: `${group[0]!.round}`, pages, data: pages - zero, dirty: last.dirtyAfter });
  }
  return { bars, together };
}

export function roundsPlot(rounds: readonly Round[]): Plot {
  const { bars, together } = roundBars(rounds);
  const most = Math.max(...bars.flatMap(({ pages, dirty }) => [pages, dirty]), 9);
  const decades = Math.ceil(Math.log10(most + 1));
  const bar = (field: 'pages' | 'data', fill: string, inset: number) => ({
    type: 'rect' as const,
    from: { data: 'bars' },
    encode: {
      enter: {
        x: { scale: 'x', field: 'label', band: inset },
        width: { scale: 'x', band: 1 - 2 * inset },
        // A logarithmic scale has no place for 0.
        y: { signal: `scale('y', max(1, datum.${field}))` },
        y2: { scale: 'y', value: 1 },
        fill: { value: fill },
      },
    },
  });
  return {
    id: 'rounds',
    title: 'Pages per round',
    description: `${count(rounds.length)} rounds; the first sent ${count(rounds[0]?.pages)} pages, the last ${count(rounds.at(-1)?.pages)}. The table below has the figures.`,
    spec: () => ({
      height: 190,
      data: [{ name: 'bars', values: bars }],
      scales: [
        { name: 'x', type: 'band', domain: bars.map(({ label }) => label), range: 'width', padding: 0.2 },
        { name: 'y', type: 'log', base: 10, domain: [1, 10 ** decades], range: 'height' },
      ],
      axes: [
        { orient: 'bottom', scale: 'x', title: together > 1 ? 'first round of each bar' : 'round', ticks: false },
        {
          orient: 'left',
          scale: 'y',
          values: Array.from({ length: decades + 1 }, (_, power) => 10 ** power),
          format: ',d',
        },
      ],
      marks: [
        bar('pages', 'var(--soft)', 0),
        bar('data', 'var(--c1)', 0.12),
        {
          type: 'symbol',
          from: { data: 'bars' },
          encode: {
            enter: {
              x: { scale: 'x', field: 'label', band: 0.5 },
              y: { signal: "scale('y', max(1, datum.dirty))" },
              shape: { value: 'diamond' },
              size: { value: 60 },
              fill: { value: 'var(--c2)' },
              stroke: { value: 'var(--page)' },
              opacity: { signal: 'datum.dirty > 0 ? 1 : 0' },
            },
          },
        },
      ],
    }),
  };
}
