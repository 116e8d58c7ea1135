/** Downtime and blackout on one axis of time: what the guest and what the network saw of the same moment. */
import type { MigrationRecord } from '../migration/record';
import type { Plot } from './plot';
import { duration } from './units';

/** Colours of the style sheet that are told apart: beyond them they repeat, and the numbers go on. */
export const COLOURS = 8;
/** Parts that are drawn apart. */
const MAX_PARTS = 12;
/** Below it what is missing in the sum of the parts is rounding. Milliseconds. */
const ROUNDING_MS = 0.05;

export interface Part {
  number: number;
  name: string;
  ms: number;
}

const words = (name: string): string =>
  name.replace(/([a-z])([A-Z])/g, (_, a: string, b: string) => `${a} ${b.toLowerCase()}`);

/** The parts of the downtime in their order, and what none of them explains. */
export function downtimeParts(record: MigrationRecord): Part[] {
  const named = Object.entries(record.downtimeParts).filter(([, ms]) => Number.isFinite(ms) && ms >= 0);
  const shown = named.slice(0, MAX_PARTS).map(([name, ms]) => ({ name: words(name), ms }));
  const rest = record.downtimeMs - shown.reduce((sum, { ms }) => sum + ms, 0);
  if (rest > ROUNDING_MS) shown.push({ name: 'between the parts', ms: rest });
  return shown.map((part, at) => ({ number: at + 1, ...part }));
}

export const partColour = (number: number): number => ((number - 1) % COLOURS) + 1;

const ROWS = { stopped: 'Guest stopped', out: 'Guest → network', in: 'Network → guest' };

export function switchoverPlot(record: MigrationRecord): Plot {
  let end = 0;
  const bars = downtimeParts(record).map(({ number, name, ms }) => {
    const start = end;
    end += ms;
    return { row: ROWS.stopped, start, end, label: `${number}`, name, fill: `var(--c${partColour(number)})` };
  });
  const { guestToNetwork, networkToGuest } = record.blackoutMs;
  const blackouts = [
    { row: ROWS.out, ms: guestToNetwork },
    { row: ROWS.in, ms: networkToGuest },
  ];
  const seen = blackouts.filter((entry): entry is { row: string; ms: number } => Number.isFinite(entry.ms));
  for (const { row, ms } of seen) bars.push({ row, start: 0, end: ms, label: '', name: '', fill: 'var(--soft)' });
  const totals = [{ row: ROWS.stopped, ms: end }, ...seen].map(({ row, ms }) => ({
    row,
    end: ms,
    label: duration(ms),
  }));
  const longest = Math.max(...totals.map((total) => total.end), 0.001);
  const unseen = blackouts
    .filter(({ ms }) => !Number.isFinite(ms))
    .map(({ row }) => ({ row, end: 0, label: 'not measured' }));
  return {
    id: 'switchover',
    title: 'Downtime and blackout',
    description: [...totals, ...unseen].map(({ row, label }) => `${row}: ${label}`).join('; '),
    spec: () => ({
      height: 120,
      data: [
        { name: 'bars', values: bars },
        { name: 'totals', values: [...totals, ...unseen] },
      ],
      scales: [
        // Room behind the longest bar for its figure.
        { name: 'x', type: 'linear', domain: [0, longest * 1.18], range: 'width' },
        { name: 'y', type: 'band', domain: Object.values(ROWS), range: 'height', padding: 0.3 },
      ],
      axes: [
        { orient: 'bottom', scale: 'x', title: 'milliseconds', tickCount: 6, grid: true, domain: false },
        {
          orient: 'left',
          scale: 'y',
          grid: false,
          minExtent: 104,
          maxExtent: 104,
          encode: { labels: { update: { fill: { value: 'var(--text)' } } } },
        },
      ],
      marks: [
        {
          type: 'rect',
          from: { data: 'bars' },
          encode: {
            enter: {
              x: { scale: 'x', field: 'start' },
              x2: { scale: 'x', field: 'end' },
              y: { scale: 'y', field: 'row' },
              height: { scale: 'y', band: 1 },
              fill: { field: 'fill' },
              // Seen without colours too.
              stroke: { value: 'var(--page)' },
              strokeWidth: { value: 1 },
            },
          },
        },
        {
          type: 'text',
          from: { data: 'bars' },
          encode: {
            enter: {
              x: { signal: "(scale('x', datum.start) + scale('x', datum.end)) / 2" },
              y: { scale: 'y', field: 'row', band: 0.5 },
              text: { signal: "scale('x', datum.end) - scale('x', datum.start) > 16 ? datum.label : ''" },
              fill: { value: 'var(--on-colour)' },
              font: { value: 'inherit' },
              fontWeight: { value: 'bold' },
              align: { value: 'center' },
              baseline: { value: 'middle' },
            },
          },
        },
        {
          type: 'text',
          from: { data: 'totals' },
          encode: {
            enter: {
              x: { scale: 'x', field: 'end', offset: 6 },
              y: { scale: 'y', field: 'row', band: 0.5 },
              text: { field: 'label' },
              fill: { value: 'var(--text)' },
              font: { value: 'inherit' },
              fontSize: { value: 12 },
              baseline: { value: 'middle' },
            },
          },
        },
      ],
    }),
  };
}
