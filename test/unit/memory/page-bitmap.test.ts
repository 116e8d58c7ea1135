import { PageBitmap } from '../../../lib/memory/page-bitmap';
import { native } from '../../../lib/native';
import { coded } from './support';

const bitmapOf = (pages: number, ...set: number[]): PageBitmap => {
  const bitmap = new PageBitmap(pages);
  for (const page of set) bitmap.set(page);
  return bitmap;
};

const listed = (bitmap: PageBitmap, from = 0, room = 1000): number[] => {
  const out = new Uint32Array(room);
  return [...out.subarray(0, bitmap.indexes(from, out))];
};

describe('PageBitmap', () => {
  test('set, has, clear and count', () => {
    const bitmap = bitmapOf(100, 0, 31, 32, 63, 64, 99);
    expect(bitmap.count()).toBe(6);
    expect([0, 1, 31, 32, 33, 63, 64, 98, 99].filter((page) => bitmap.has(page))).toEqual([0, 31, 32, 63, 64, 99]);
    bitmap.clear(31);
    bitmap.clear(31);
    expect(listed(bitmap)).toEqual([0, 32, 63, 64, 99]);
    bitmap.reset();
    expect(bitmap.count()).toBe(0);
  });

  test('pages it has no bit for are refused, and are not in it', () => {
    const bitmap = bitmapOf(33);
    for (const page of [-1, 33, 64, Number.NaN]) {
      expect(() => bitmap.set(page)).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT', 'page', 'of 33'));
      expect(() => bitmap.clear(page)).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT'));
      expect(bitmap.has(page)).toBe(false);
    }
    for (const [page, count] of [
      [0, 34],
      [-1, 2],
      [33, 1],
      [0, -1],
      [Number.NaN, 1],
    ] as const) {
      expect(() => bitmap.setRange(page, count)).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT', 'of 33'));
    }
    expect(() => bitmap.indexes(-1, new Uint32Array(1))).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT'));
    expect(bitmap.count()).toBe(0);
  });

  test.each([-1, 1.5, Number.NaN, 2 ** 32 + 1, Number.POSITIVE_INFINITY])('%p pages are refused', (pages) => {
    expect(() => new PageBitmap(pages)).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT', `${pages} pages`, `${2 ** 32}`));
  });

  test('both word sizes are the same bits, least significant first', () => {
    const bitmap = bitmapOf(128, 1, 33, 127);
    expect([...bitmap.words]).toEqual([(1n << 33n) | 2n, 1n << 63n]);
    expect([...bitmap.u32]).toEqual([2, 2, 0, 0x80000000]);
    bitmap.words[1] = 1n;
    expect(listed(bitmap)).toEqual([1, 33, 64]);
    bitmap.u32[3] = 1;
    expect(bitmap.words[1]).toBe((1n << 32n) | 1n);
  });

  test.each([0, 1, 31, 32, 33, 63, 64, 65, 200])('fill sets %i pages and no bit behind them', (pages) => {
    const bitmap = new PageBitmap(pages);
    bitmap.fill();
    expect(bitmap.count()).toBe(pages);
    bitmap.grow(pages + 64);
    expect(listed(bitmap)).toEqual(Array.from({ length: pages }, (_, page) => page));
  });

  test('or grows and counts what is new', () => {
    const bitmap = bitmapOf(10, 1, 2);
    expect(bitmap.or(bitmapOf(200, 2, 3, 150))).toBe(2);
    expect(bitmap.pages).toBe(200);
    expect(listed(bitmap)).toEqual([1, 2, 3, 150]);
    expect(bitmap.or(bitmapOf(5, 4))).toBe(1);
    expect(bitmap.pages).toBe(200);
    expect(bitmap.or(bitmap)).toBe(0);
  });

  test('grow keeps the bits and never shrinks', () => {
    const bitmap = bitmapOf(64, 63);
    bitmap.grow(65);
    bitmap.set(64);
    bitmap.grow(3);
    expect(bitmap.pages).toBe(65);
    expect(listed(bitmap)).toEqual([63, 64]);
    expect(bitmap.words.buffer).toBe(bitmap.u32.buffer);
  });

  test('indexes go on where the list was full', () => {
    const bitmap = bitmapOf(300, 0, 5, 31, 32, 64, 255, 299);
    const out = new Uint32Array(3);
    const seen: number[] = [];
    let from = 0;
    for (let turn = 0; turn < 10; turn++) {
      const count = bitmap.indexes(from, out);
      if (count === 0) break;
      seen.push(...out.subarray(0, count));
      from = out[count - 1]! + 1;
    }
    expect(seen).toEqual([0, 5, 31, 32, 64, 255, 299]);
    expect(bitmap.indexes(0, new Uint32Array(0))).toBe(0);
    expect(listed(bitmap, 300)).toEqual([]);
    expect(listed(bitmap, 2 ** 40)).toEqual([]);
  });

  test('ranges cross words and stop at the end', () => {
    const bitmap = bitmapOf(96, 0);
    bitmap.setRange(30, 40);
    bitmap.setRange(95, 1);
    expect([...bitmap.ranges()]).toEqual([
      { page: 0, pages: 1 },
      { page: 30, pages: 40 },
      { page: 95, pages: 1 },
    ]);
    bitmap.fill();
    expect([...bitmap.ranges()]).toEqual([{ page: 0, pages: 96 }]);
    expect([...new PageBitmap(0).ranges()]).toEqual([]);
  });

  test('the highest page number there can be', () => {
    const bitmap = new PageBitmap(2 ** 32);
    const last = 2 ** 32 - 1;
    bitmap.set(last);
    bitmap.set(2 ** 31);
    expect(bitmap.has(last)).toBe(true);
    expect(bitmap.u32[bitmap.u32.length - 1]).toBe(0x80000000);
    expect(listed(bitmap, 2 ** 32 - 64)).toEqual([last]);
    bitmap.setRange(last - 1, 2);
    expect(bitmap.u32[bitmap.u32.length - 1]).toBe(0xc0000000);
  });

  test('the addon counts and lists alike', () => {
    const bitmap = bitmapOf(1000, 0, 31, 32, 63, 64, 500, 999);
    const out = new Uint32Array(16);
    expect(native().bitmapCount(bitmap.words)).toBe(bitmap.count());
    expect(native().bitmapIndexes(bitmap.words, 32, out)).toBe(5);
    expect([...out.subarray(0, 5)]).toEqual(listed(bitmap, 32));
  });
});
