import * as fc from 'fast-check';
import { Bandwidth } from '../../../lib/migration/bandwidth';

const MB = 1e6;

test('nothing measured, nothing known', () => {
  const bandwidth = new Bandwidth();
  expect([bandwidth.mean, bandwidth.deviation, bandwidth.pessimistic(2)]).toEqual([0, 0, 0]);
});

test('a steady link is known more surely with every round', () => {
  const bandwidth = new Bandwidth();
  let before = 0;
  for (let round = 0; round < 8; round++) {
    expect(bandwidth.add(10 * MB, 100)).toBe(true);
    expect(bandwidth.mean).toBeCloseTo(100 * MB, 0);
    expect(bandwidth.pessimistic(2)).toBeGreaterThan(before);
    before = bandwidth.pessimistic(2);
  }
  expect(before).toBeGreaterThan(95 * MB);
  expect(before).toBeLessThanOrEqual(100 * MB);
});

test('an unsteady link counts for less than its average', () => {
  const bandwidth = new Bandwidth();
  for (const ms of [100, 300, 100, 300, 100, 300]) bandwidth.add(10 * MB, ms);
  expect(bandwidth.mean).toBeGreaterThan(33 * MB);
  expect(bandwidth.pessimistic(1)).toBeLessThan(bandwidth.mean - 20 * MB);
});

test('the newest rounds count most: a link that got slower is noticed', () => {
  const bandwidth = new Bandwidth();
  for (let round = 0; round < 5; round++) bandwidth.add(100 * MB, 100);
  for (let round = 0; round < 3; round++) bandwidth.add(100 * MB, 1000);
  expect(bandwidth.mean).toBeLessThan(250 * MB);
});

test('a round of few pages measures latency: it counts only while there is nothing better', () => {
  const bandwidth = new Bandwidth();
  expect(bandwidth.add(4096, 5)).toBe(false);
  expect(bandwidth.mean).toBeCloseTo(819_200);
  bandwidth.add(10 * MB, 100);
  expect(bandwidth.mean).toBeCloseTo(100 * MB, 0);
  expect(bandwidth.add(4096, 5)).toBe(false);
  expect(bandwidth.mean).toBeCloseTo(100 * MB, 0);
});

test('whatever is measured, the pessimistic figure is above 0 and not above the mean', () => {
  const sample = fc.record({
    bytes: fc.integer({ min: 1, max: 1e9 }),
    ms: fc.double({ min: 0.01, max: 1e5, noNaN: true }),
  });
  void fc.assert(
    fc.property(fc.array(sample, { minLength: 1, maxLength: 20 }), fc.integer({ min: 0, max: 5 }), (samples, k) => {
      const bandwidth = new Bandwidth();
      for (const { bytes, ms } of samples) bandwidth.add(bytes, ms);
      expect(bandwidth.pessimistic(k)).toBeGreaterThan(0);
      expect(bandwidth.pessimistic(k)).toBeLessThanOrEqual(bandwidth.mean);
    }),
  );
});
