import { comparison } from './report';
import { interquartileRange, median, quantile } from './statistics';
import { udpFrame } from './udp-frame';
import type { Window } from './window';

const windows = (...rates: number[]): Window[] =>
  rates.map((rate) => ({ rate, worker: 1, driver: 1, idle: 0, kicksPerSecond: 0 }));

describe('statistics', () => {
  test('median of an odd and of an even number of values, in any order', () => {
    expect(median([5, 1, 3])).toBe(3);
    expect(median([4, 1, 3, 2])).toBe(2.5);
  });

  test('quartiles lie between their neighbours', () => {
    expect(quantile([10, 20, 30, 40], 0.25)).toBe(17.5);
    expect(interquartileRange([1, 2, 3, 4, 5, 6, 7])).toBe(3);
    expect(interquartileRange([9])).toBe(0);
  });

  test('no values have no median', () => {
    expect(() => median([])).toThrow(RangeError);
  });
});

describe('comparison', () => {
  test('takes the ratios pair by pair: a machine that halves its speed for everyone changes none of them', () => {
    const taken = new Map([
      ['ours', windows(96, 48, 96)],
      ['peer', windows(100, 50, 100)],
    ]);
    expect(comparison('x', 'ours', 'peer', taken, 0.95)).toEqual({
      name: 'x',
      ours: 96,
      peer: 100,
      peerName: 'peer',
      ratio: 0.96,
      spread: 0,
      goal: 0.95,
      met: true,
    });
  });

  test('a goal can be missed, also by less than is printed', () => {
    const taken = new Map([
      ['ours', windows(94_999)],
      ['peer', windows(100_000)],
    ]);
    expect(comparison('x', 'ours', 'peer', taken, 0.95).met).toBe(false);
  });
});

test('the frame has a sound IPv4 header and the lengths of its size', () => {
  const frame = Buffer.from(udpFrame(64));
  let sum = 0;
  for (let at = 14; at < 34; at += 2) sum += frame.readUInt16BE(at);
  expect((sum & 0xffff) + (sum >>> 16)).toBe(0xffff);
  expect([frame.length, frame.readUInt16BE(16), frame.readUInt16BE(38)]).toEqual([64, 50, 30]);
});
