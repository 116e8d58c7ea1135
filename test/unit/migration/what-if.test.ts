import * as fc from 'fast-check';
import { PAGE_SIZE } from '../../../lib/memory/address';
import {
  type MigrationRule,
  type Prediction,
  predict,
  predictMeasured,
  type WhatIf,
} from '../../../lib/migration/what-if';

const RULES: MigrationRule[] = ['ours', 'qemu', 'cloud-hypervisor'];
const COSTS = { stop: 5, state: 5, start: 10, roundTrips: 2 };

const memoryPages = fc.integer({ min: 1, max: 1_000_000 });
const bandwidth = fc.integer({ min: 1_000_000, max: 10_000_000_000 });
const rate = fc.integer({ min: 0, max: 200_000 });
const rule = fc.constantFrom(...RULES);

describe.each(RULES)('%s', (rule) => {
  test('a guest that writes nothing takes one round', () => {
    void fc.assert(
      fc.property(memoryPages, bandwidth, (memoryPages, bandwidth) => {
        const found = predict({ rule, memoryPages, bandwidth, costs: COSTS, dirty: { pagesPerSecond: 0 } });
        expect(found).toMatchObject({ rounds: 1, converged: true, bytes: memoryPages * PAGE_SIZE });
      }),
    );
  });

  test('all of memory is sent at least', () => {
    void fc.assert(
      fc.property(memoryPages, bandwidth, rate, (memoryPages, bandwidth, pagesPerSecond) => {
        const found = predict({ rule, memoryPages, bandwidth, maxMs: 60_000, dirty: { pagesPerSecond } });
        if (found.converged) expect(found.bytes).toBeGreaterThanOrEqual(memoryPages * PAGE_SIZE);
        expect(found.totalMs * bandwidth).toBeGreaterThanOrEqual(found.bytes * 999);
      }),
      { numRuns: 60 },
    );
  });

  test('a faster link never makes it worse', () => {
    void fc.assert(
      fc.property(memoryPages, bandwidth, rate, (memoryPages, bandwidth, pagesPerSecond) => {
        const question: WhatIf = {
          rule,
          memoryPages,
          bandwidth,
          maxMs: 60_000,
          strategy: 'cancel',
          dirty: { pagesPerSecond },
        };
        const slow = predict(question);
        const fast = predict({ ...question, bandwidth: 2 * bandwidth });
        if (!slow.converged) return;
        expect(fast.converged).toBe(true);
        expect(fast.totalMs).toBeLessThanOrEqual(slow.totalMs);
        expect(fast.bytes).toBeLessThanOrEqual(slow.bytes);
        expect(fast.rounds).toBeLessThanOrEqual(slow.rounds);
      }),
      { numRuns: 60 },
    );
  });
});

test('the same question has the same answer', () => {
  void fc.assert(
    fc.property(
      rule,
      memoryPages,
      bandwidth,
      fc.array(rate, { minLength: 1, maxLength: 20 }),
      (rule, memoryPages, bandwidth, samples) => {
        const question: WhatIf = { rule, memoryPages, bandwidth, maxMs: 10_000, dirty: { samples } };
        expect(predict(question)).toEqual(predict(question));
      },
    ),
    { numRuns: 40 },
  );
});

const GUEST = { memoryPages: 262_144, dirty: { pagesPerSecond: 20_000, workingSetPages: 60_000 } };
const link = (mbit: number): number => (mbit * 1e6) / 8;
const by = (rule: MigrationRule, more: Partial<WhatIf> = {}): Prediction =>
  predict({ ...GUEST, rule, bandwidth: link(10_000), costs: COSTS, ...more });

test('a constant rate and a trace of it are one and the same', () => {
  const dirty = { samples: Array<number>(7).fill(2000), workingSetPages: 60_000 };
  for (const rule of RULES) {
    const [one, other] = [by(rule), by(rule, { dirty })];
    expect(other.rounds).toBe(one.rounds);
    expect(other.totalMs).toBeCloseTo(one.totalMs, 0);
  }
});

test('ours holds the downtime limit with all its costs; the others promise it for the pages alone', () => {
  const costs = { ...COSTS, start: 150 };
  for (const mbit of [900, 1000, 2000, 5000, 10_000]) {
    const ours = by('ours', { bandwidth: link(mbit), costs, strategy: 'cancel' });
    if (ours.converged) expect(ours.downtimeMs).toBeLessThanOrEqual(300);
  }
  const missed = [500, 1000, 2000, 3000].map((mbit) => by('qemu', { bandwidth: link(mbit), costs }));
  expect(missed.some(({ converged, downtimeMs }) => converged && downtimeMs > 300)).toBe(true);
});

test('a guest faster than the link: ours says so after a few rounds, the others go on and on', () => {
  const bandwidth = link(200);
  const ours = by('ours', { bandwidth, strategy: 'cancel' });
  expect(ours.converged).toBe(false);
  expect(ours.rounds).toBeLessThan(10);
  expect(ours.reason).toMatch(/^guest memory gets dirty at .* the link carries 25\.0 MB\/s: [\d,]+ pages stay dirty/);
  expect(by('qemu', { bandwidth })).toMatchObject({ converged: false, rounds: 1000 });
  const hour = by('cloud-hypervisor', { bandwidth });
  expect(hour.converged).toBe(false);
  expect(hour.totalMs).toBeGreaterThanOrEqual(3_600_000);
});

test('throttling makes it converge', () => {
  const question = { bandwidth: link(500), strategy: 'throttle', maxRounds: 100 } as const;
  expect(by('ours', { ...question, strategy: 'cancel' }).converged).toBe(false);
  expect(by('ours', question)).toMatchObject({ converged: true });
});

test('hot pages are dirty after any round, however short', () => {
  const dirty = { pagesPerSecond: 100, hotPages: 40, workingSetPages: 1000, intervalMs: 100 };
  const found = by('ours', { dirty });
  expect(found.bytes).toBeGreaterThanOrEqual((GUEST.memoryPages + 40) * PAGE_SIZE);
});

test('a measurement is all that is asked for', () => {
  const measured = {
    intervalMs: 100,
    samples: [300, 310, 290],
    distinctPages: 900,
    alwaysDirtyPages: 20,
    memoryPages: 8192,
  };
  const found = predictMeasured(measured, { bandwidth: link(1000), rule: 'ours' });
  expect(found).toMatchObject({ converged: true, rounds: 1 });
  expect(found.bytes).toBeGreaterThan(8192 * PAGE_SIZE);
});

test('questions without sense are refused', () => {
  const wrong: Partial<WhatIf>[] = [
    { bandwidth: 0 },
    { memoryPages: -1 },
    { dirty: { pagesPerSecond: Number.NaN } },
    { dirty: { intervalMs: 0 } },
    { rule: 'luck' as MigrationRule },
  ];
  for (const change of wrong)
    expect(() => by('ours', change)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }));
});
