import fc from 'fast-check';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { native } from '../../lib/native';

const PAGES = 300;
const page = fc.nat(PAGES - 1);
const pages = fc.uniqueArray(page, { maxLength: PAGES });
/** Dense and long-run sets too, which lists of single pages rarely make. */
const pageSet = fc.oneof(
  pages,
  fc
    .array(fc.tuple(page, fc.integer({ min: 1, max: 100 })), { maxLength: 5 })
    .map((runs) => [
      ...new Set(
        runs.flatMap(([first, count]) => Array.from({ length: Math.min(count, PAGES - first) }, (_, i) => first + i)),
      ),
    ]),
);

const ascending = (numbers: Iterable<number>): number[] => [...numbers].sort((a, b) => a - b);

function bitmapOf(set: readonly number[], size = PAGES): PageBitmap {
  const bitmap = new PageBitmap(size);
  for (const one of set) bitmap.set(one);
  return bitmap;
}

function listed(bitmap: PageBitmap, from = 0): number[] {
  const out = new Uint32Array(bitmap.pages + 1);
  return [...out.subarray(0, bitmap.indexes(from, out))];
}

describe('PageBitmap is a set of numbers', () => {
  test('whatever is done to it', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('set' as const), page }),
      fc.record({ kind: fc.constant('clear' as const), page }),
      fc.record({ kind: fc.constant('range' as const), page, count: fc.nat(PAGES) }),
      fc.record({ kind: fc.constant('or' as const), other: pageSet }),
      fc.record({ kind: fc.constant('reset' as const) }),
      fc.record({ kind: fc.constant('fill' as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const bitmap = new PageBitmap(PAGES);
        const model = new Set<number>();
        for (const step of steps) {
          if (step.kind === 'set') {
            bitmap.set(step.page);
            model.add(step.page);
          } else if (step.kind === 'clear') {
            bitmap.clear(step.page);
            model.delete(step.page);
          } else if (step.kind === 'range') {
            const count = Math.min(step.count, PAGES - step.page);
            bitmap.setRange(step.page, count);
            for (let i = 0; i < count; i++) model.add(step.page + i);
          } else if (step.kind === 'or') {
            const before = model.size;
            for (const one of step.other) model.add(one);
            expect(bitmap.or(bitmapOf(step.other))).toBe(model.size - before);
          } else if (step.kind === 'reset') {
            bitmap.reset();
            model.clear();
          } else {
            bitmap.fill();
            for (let i = 0; i < PAGES; i++) model.add(i);
          }
          expect(bitmap.count()).toBe(model.size);
        }
        expect(listed(bitmap)).toEqual(ascending(model));
        for (let i = -1; i <= PAGES; i++) expect(bitmap.has(i)).toBe(model.has(i));
      }),
    );
  });

  test('ranges are its pages in the fewest runs', () => {
    fc.assert(
      fc.property(pageSet, (set) => {
        const found: number[] = [];
        let end = -1;
        for (const range of bitmapOf(set).ranges()) {
          expect(range.page).toBeGreaterThan(end);
          expect(range.pages).toBeGreaterThan(0);
          end = range.page + range.pages;
          for (let i = 0; i < range.pages; i++) found.push(range.page + i);
        }
        expect(found).toEqual(ascending(set));
      }),
    );
  });

  test('indexes from any page, list by list, as the addon finds them', () => {
    fc.assert(
      fc.property(pageSet, fc.nat(PAGES + 10), fc.integer({ min: 1, max: 40 }), (set, from, room) => {
        const bitmap = bitmapOf(set);
        const expected = ascending(set).filter((one) => one >= from);
        const [mine, theirs] = [new Uint32Array(room), new Uint32Array(room)];
        const count = bitmap.indexes(from, mine);
        expect([...mine.subarray(0, count)]).toEqual(expected.slice(0, room));
        expect(native().bitmapIndexes(bitmap.words, from, theirs)).toBe(count);
        expect(theirs).toEqual(mine);
        expect(native().bitmapCount(bitmap.words)).toBe(bitmap.count());
      }),
    );
  });

  test('growing changes nothing', () => {
    fc.assert(
      fc.property(pageSet, fc.integer({ min: 0, max: 4 * PAGES }), (set, size) => {
        const bitmap = bitmapOf(set);
        bitmap.grow(size);
        expect(bitmap.pages).toBe(Math.max(size, PAGES));
        expect(listed(bitmap)).toEqual(ascending(set));
      }),
    );
  });
});
