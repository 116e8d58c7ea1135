/** The join of two taps against a network that is known: where it could be known, every frame is given once and in order. */
import * as fc from 'fast-check';
import { join } from '../../lib/migration/handover/join';

interface Taps {
  before: bigint[];
  after: bigint[];
  kept: bigint[];
  truth: bigint[];
}

/** Where in the stream things happen, as shares of what is left; and how many frames the destination's tap may be behind. */
const moments = fc.record({
  open: fc.nat({ max: 1000 }),
  cut: fc.nat({ max: 1000 }),
  end: fc.nat({ max: 1000 }),
  further: fc.nat({ max: 8 }),
});

/** The source records all up to `end`; the destination's tap was opened before the cut and read a little longer. */
function taps(stream: readonly bigint[], at: { open: number; cut: number; end: number; further: number }): Taps {
  const cut = Math.floor((stream.length * at.cut) / 1000);
  const open = Math.floor((cut * at.open) / 1000);
  const end = cut + Math.floor(((stream.length - cut) * at.end) / 1000);
  const last = Math.min(stream.length, end + at.further);
  return {
    before: stream.slice(0, cut),
    after: stream.slice(cut, end),
    kept: stream.slice(open, last),
    truth: stream.slice(0, last),
  };
}

function delivered({ before, after, kept }: Taps): bigint[] {
  const { isMatched } = join(before, after, kept);
  return [...before, ...kept.filter((_, index) => !isMatched(index))];
}

const unique = fc.nat({ max: 300 }).map((length) => Array.from({ length }, (_, index) => BigInt(index)));
/** A few contents that repeat among others that do not. */
const mixed = (repeating: number, share: number): fc.Arbitrary<bigint[]> =>
  fc
    .array(fc.tuple(fc.nat({ max: 99 }), fc.nat({ max: repeating - 1 })), { maxLength: 120 })
    .map((list) => list.map(([dice, which], index) => (dice < share ? BigInt(-1 - which) : BigInt(index))));

test('frames that do not repeat: exact, and never in doubt', () => {
  void fc.assert(
    fc.property(unique, moments, (stream, at) => {
      const seen = taps(stream, at);
      expect(delivered(seen)).toEqual(seen.truth);
      expect(join(seen.before, seen.after, seen.kept)).toMatchObject({ ambiguous: false, disagrees: false });
    }),
    { numRuns: 500 },
  );
});

/** Every number that fits, by trying them all. */
function fittingOf({ before, after, kept }: Taps): number[] {
  const fitting: number[] = [];
  for (let length = 0; length <= Math.min(before.length, kept.length); length++) {
    const overlap = kept.slice(0, length).every((hash, index) => hash === before[before.length - length + index]);
    const agrees = kept.slice(length).every((hash, index) => after[index] === undefined || after[index] === hash);
    if (overlap && agrees) fitting.push(length);
  }
  return fitting;
}

const occurrences = (list: readonly bigint[], hash: bigint): number => list.filter((other) => other === hash).length;

test.each([
  [1, 100],
  [2, 100],
  [1, 40],
  [3, 70],
])('%d contents that repeat, in %d of 100 frames: exact, or told', (repeating, share) => {
  let wrong = 0;
  let exact = 0;
  void fc.assert(
    fc.property(mixed(repeating, share), moments, (stream, at) => {
      const seen = taps(stream, at);
      const found = join(seen.before, seen.after, seen.kept);
      expect(found.disagrees).toBe(false);
      const fitting = fittingOf(seen);
      expect(fitting).toContain(found.matched);
      // The true one is always among those that were weighed.
      expect(fitting).toContain(seen.before.length + seen.kept.length - seen.truth.length);
      const deduced = [...seen.before, ...seen.kept.slice(found.matched)];
      const repeats = (hash: bigint): boolean => occurrences(deduced, hash) > 1 || occurrences(seen.after, hash) > 1;
      const possible = fitting.some(
        (other) =>
          other !== found.matched &&
          seen.kept.slice(Math.min(other, found.matched), Math.max(other, found.matched)).every(repeats),
      );
      if (possible) expect(found.ambiguous).toBe(true);
      if (fitting.length === 1) {
        expect(delivered(seen)).toEqual(seen.truth);
      }
      if (delivered(seen).length === seen.truth.length) exact++;
      else wrong++;
    }),
    { numRuns: 400 },
  );
  // Both happen: the check is of something.
  expect(exact).toBeGreaterThan(50);
  if (share === 100) expect(wrong).toBeGreaterThan(0);
});

test('a frame of the destination is missing or out of order: told, and no frame is given twice or not at all', () => {
  let told = 0;
  void fc.assert(
    fc.property(unique, moments, fc.nat(), fc.boolean(), (stream, at, where, drop) => {
      const seen = taps(stream, at);
      const { before, after, kept } = seen;
      if (kept.length < 2) return;
      const place = where % (kept.length - 1);
      if (drop) kept.splice(place, 1);
      else [kept[place], kept[place + 1]] = [kept[place + 1]!, kept[place]!];
      const { ambiguous, disagrees, isMatched } = join(before, after, kept);
      if (ambiguous || disagrees) told++;
      const result = [...before, ...kept.filter((_, index) => !isMatched(index))];
      const union = new Set([...before, ...kept]);
      if (result.length !== union.size) expect(ambiguous || disagrees).toBe(true);
      expect(new Set(result)).toEqual(union);
    }),
    { numRuns: 500 },
  );
  expect(told).toBeGreaterThan(50);
});
