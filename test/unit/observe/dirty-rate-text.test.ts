import { predict } from '../../../lib/migration/what-if';
import type { DirtyRate } from '../../../lib/observe/dirty-rate';
import { dirtyRateJson, dirtyRateText } from '../../../lib/observe/dirty-rate-text';

const RATE: DirtyRate = {
  seconds: 2,
  intervalMs: 1000,
  samples: [600, 400],
  pagesPerSecond: 500,
  bytesPerSecond: 500 * 4096,
  distinctPages: 700,
  alwaysDirtyPages: 12,
  memoryPages: 8192,
  byWriter: { vhost: 900, guest: 100 },
  byQueue: [
    { queue: 0, kind: 'receive', usedRing: 20, driverRing: 10, buffers: 880 },
    { queue: 1, kind: 'transmit', usedRing: 20, driverRing: 10, buffers: 0 },
  ],
  other: 60,
  shared: 20,
  cut: false,
  hottest: [
    { gpa: 0x102000, times: 2, owner: { queue: 0, kind: 'receive', part: 'usedRing' } },
    { gpa: 0x100000, times: 1, owner: null },
  ],
};

test('text for the terminal', () => {
  expect(dirtyRateText(RATE).split('\n')).toEqual([
    '500 pages a second (2.0 MB/s) over 2.0 s, looked at every 1,000 ms',
    '700 pages of 8,192 got dirty at all, 12 of them all the time',
    '',
    'writer  pages/s  share',
    'vhost       450   90 %',
    'guest        50   10 %',
    '',
    'queue       used ring/s  driver ring/s  buffers/s  share',
    '0 receive            10              5        440   91 %',
    '1 transmit           10              5          0    3 %',
    'other                                          30    6 %',
    '2 % in pages of several owners, counted for the first',
    '',
    'page      times  what',
    '0x102000      2  queue 0 receive, used ring',
    '0x100000      1  other',
  ]);
});

test('predictions follow, with the reason where it does not converge', () => {
  const dirty = { pagesPerSecond: 500, workingSetPages: 700 };
  const question = { memoryPages: 8192, dirty, costs: { stop: 1, state: 1, start: 1, roundTrips: 1 } };
  const good = predict({ ...question, bandwidth: 125e6 });
  const bad = predict({ ...question, bandwidth: 1e6, strategy: 'cancel' });
  const lines = dirtyRateText(RATE, [good, bad]).split('\n');
  const at = lines.findIndex((line) => line.startsWith('rule'));
  expect(lines[at]).toMatch(/^rule +bandwidth +rounds +total +downtime +sent +converges$/);
  expect(lines[at + 1]).toMatch(/^ours +125\.0 MB\/s +1 .* yes$/);
  expect(lines[at + 2]).toMatch(/^ours +1\.0 MB\/s .* no$/);
  expect(lines.at(-1)).toBe(`ours: ${bad.reason}`);
});

test('JSON has all of it', () => {
  expect(JSON.parse(dirtyRateJson(RATE))).toEqual({ ...RATE, predictions: [] });
});
