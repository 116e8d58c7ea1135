import { readFileSync } from 'node:fs';
import { DirtyLog, type DirtySource, DirtyUnion, GuestWriteLog } from '../../../lib/memory/dirty-log';
import { PageBitmap } from '../../../lib/memory/page-bitmap';
import { native } from '../../../lib/native';
import { coded, GIB, mappingsBecome, PAGE } from './support';

const PAGES_PER_LOG_PAGE = PAGE * 8;

/** Sets bits as the kernel does: by page number, in the log's own memory. */
function kernelSets(log: DirtyLog, ...pages: number[]): void {
  const words = new Uint8Array(native().mappingBuffer(log.mapping) as ArrayBuffer);
  for (const page of pages) words[page >>> 3]! |= 1 << (page & 7);
}

const listed = (bitmap: PageBitmap): number[] =>
  [...bitmap.ranges()].flatMap(({ page, pages }) => Array.from({ length: pages }, (_, i) => page + i));

describe('DirtyLog', () => {
  test.each([
    [1, PAGE],
    [PAGE, PAGE],
    [PAGES_PER_LOG_PAGE * PAGE, PAGE],
    [PAGES_PER_LOG_PAGE * PAGE + 1, 2 * PAGE],
    [4 * GIB, 128 * 1024],
    [5 * GIB + PAGE, 160 * 1024 + PAGE],
    [1024 * GIB, 32 * 1024 ** 2],
  ])('for guest memory up to %i it has %i bytes', (end, bytes) => {
    const log = DirtyLog.create(end);
    expect(log.bytes).toBe(bytes);
    expect(log.pages).toBe(bytes * 8);
    expect(log.covers(end)).toBe(true);
    expect(log.covers(bytes * 8 * PAGE)).toBe(true);
    expect(log.covers(bytes * 8 * PAGE + 1)).toBe(false);
    expect(log.hva % PAGE).toBe(0);
    log.close();
  });

  test.each([0, -1, 1.5, Number.NaN, 2 ** 44 + 1, Number.POSITIVE_INFINITY])('up to %p is refused', (end) => {
    expect(() => DirtyLog.create(end)).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT', `GPA ${end}`, `${2 ** 44}`));
  });

  test('bits are moved once, and what is new is counted', () => {
    const log = DirtyLog.create(1000 * PAGE);
    const bitmap = new PageBitmap(1000);
    bitmap.set(7);
    kernelSets(log, 7, 8, 999);
    expect(log.takeInto(bitmap)).toBe(2);
    expect(listed(bitmap)).toEqual([7, 8, 999]);
    expect(log.takeInto(bitmap)).toBe(0);
    bitmap.reset();
    expect(log.takeInto(bitmap)).toBe(0);
    kernelSets(log, 8);
    expect(log.takeInto(bitmap)).toBe(1);
    expect(listed(bitmap)).toEqual([8]);
    log.close();
  });

  test('a bitmap that is too short grows instead of leaving bits behind', () => {
    const log = DirtyLog.create(20_000 * PAGE);
    const bitmap = new PageBitmap(10);
    kernelSets(log, 3, 19_999);
    expect(log.takeInto(bitmap)).toBe(2);
    expect(listed(bitmap)).toEqual([3, 19_999]);
    log.close();
  });

  test('lies between guard pages', () => {
    const log = DirtyLog.create(GIB);
    const maps = inMaps(log.hva, log.bytes);
    expect(maps).toEqual(['---p', 'rw-p', 'rw-p', '---p']);
    log.close();
  });

  test('closes once, and says so', async () => {
    const before = native().mappingsLive();
    const log = DirtyLog.create(GIB);
    expect(native().mappingsLive()).toBe(before + 1);
    log.close();
    log.close();
    expect(log.closed).toBe(true);
    expect(() => log.takeInto(new PageBitmap(1))).toThrow(coded('VHOST_ERR_CLOSED', 'DirtyLog'));
    await mappingsBecome(before);
  });
});

/** What may be done with the bytes before, at the beginning, at the end, and behind. */
function inMaps(start: number, length: number): string[] {
  const lines = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .map((line) => /^(\w+)-(\w+) (....)/.exec(line))
    .filter((match) => match !== null);
  return [start - 1, start, start + length - 1, start + length].map(
    (at) =>
      lines.find(([, from, to]) => Number.parseInt(from!, 16) <= at && at < Number.parseInt(to!, 16))?.[3] ?? 'none',
  );
}

describe('GuestWriteLog', () => {
  const marked = (pages: number, ...writes: [gpa: number, length: number][]): number[] => {
    const log = new GuestWriteLog(pages);
    log.enabled = true;
    for (const [gpa, length] of writes) log.mark(gpa, length);
    const bitmap = new PageBitmap(pages);
    const fresh = log.takeInto(bitmap);
    expect(fresh).toBe(bitmap.count());
    return listed(bitmap);
  };

  test('marks every page that a write touches', () => {
    expect(marked(100, [0, 1])).toEqual([0]);
    expect(marked(100, [PAGE - 1, 1])).toEqual([0]);
    expect(marked(100, [PAGE - 1, 2])).toEqual([0, 1]);
    expect(marked(100, [PAGE, PAGE])).toEqual([1]);
    expect(marked(100, [PAGE + 1, PAGE])).toEqual([1, 2]);
    expect(marked(100, [99 * PAGE, PAGE])).toEqual([99]);
    expect(marked(100, [50, 0])).toEqual([]);
    expect(marked(400, [PAGE, 300 * PAGE])).toEqual(Array.from({ length: 300 }, (_, i) => i + 1));
  });

  test('above 4 GiB', () => {
    const page = (5 * GIB) / PAGE;
    expect(marked(page + 10, [5 * GIB + 4095, 2])).toEqual([page, page + 1]);
  });

  test('refuses what lies outside and then marks nothing of it', () => {
    const log = new GuestWriteLog(10);
    log.enabled = true;
    for (const [gpa, length] of [
      [-1, 1],
      [-1, 2],
      [10 * PAGE, 1],
      [9 * PAGE, PAGE + 1],
      [0, 2 ** 50],
      [0, -1],
      [Number.NaN, 1],
      [0, Number.NaN],
    ] as const) {
      expect(() => log.mark(gpa, length)).toThrow(coded('VHOST_ERR_INVALID_ARGUMENT', `${length} bytes`, '10 pages'));
    }
    expect(log.takeInto(new PageBitmap(10))).toBe(0);
    log.grow(11);
    log.mark(10 * PAGE, 1);
    expect(log.takeInto(new PageBitmap(10))).toBe(1);
  });

  test('does nothing while disabled, begins empty, and keeps what it has for the last take', () => {
    const log = new GuestWriteLog(10);
    const bitmap = new PageBitmap(10);
    expect(log.enabled).toBe(false);
    log.mark(0, 1);
    log.mark(2 ** 40, 1);
    log.enabled = true;
    expect(log.takeInto(bitmap)).toBe(0);
    log.mark(PAGE, 1);
    log.enabled = true;
    log.enabled = false;
    log.mark(2 * PAGE, 1);
    expect(log.takeInto(bitmap)).toBe(1);
    expect(listed(bitmap)).toEqual([1]);
    log.enabled = true;
    log.mark(3 * PAGE, 1);
    log.enabled = false;
    log.enabled = true;
    expect(log.takeInto(bitmap)).toBe(0);
  });

  test('is taken once', () => {
    const log = new GuestWriteLog(10);
    log.enabled = true;
    log.mark(0, 1);
    const bitmap = new PageBitmap(10);
    expect(log.takeInto(bitmap)).toBe(1);
    bitmap.reset();
    expect(log.takeInto(bitmap)).toBe(0);
  });
});

describe('DirtyUnion', () => {
  const source = (name: string, ...pages: number[]): DirtySource => ({
    name,
    takeInto: (bitmap) => {
      const own = new PageBitmap(100);
      for (const page of pages.splice(0)) own.set(page);
      return bitmap.or(own);
    },
  });

  test('takes every source and tells who was first', () => {
    const union = new DirtyUnion([source('vhost', 1, 2), source('guest', 2, 3), source('vhost', 50)]);
    const bitmap = new PageBitmap(100);
    bitmap.set(1);
    expect([...union.takeInto(bitmap)]).toEqual([
      ['vhost', 2],
      ['guest', 1],
    ]);
    expect(listed(bitmap)).toEqual([1, 2, 3, 50]);
    expect([...union.takeInto(bitmap).values()]).toEqual([0, 0]);
  });

  test('sources come and go', () => {
    const [first, second] = [source('a', 1), source('b', 2)];
    const union = new DirtyUnion([first]);
    union.add(second);
    union.add(second);
    union.remove(first);
    union.remove(first);
    const bitmap = new PageBitmap(100);
    expect([...union.takeInto(bitmap)]).toEqual([['b', 1]]);
    expect(listed(bitmap)).toEqual([2]);
  });

  test('what was taken before a source failed is not lost', () => {
    const union = new DirtyUnion([
      source('good', 5),
      {
        name: 'bad',
        takeInto: () => {
          throw new Error('planted');
        },
      },
    ]);
    const bitmap = new PageBitmap(100);
    expect(() => union.takeInto(bitmap)).toThrow('planted');
    expect(listed(bitmap)).toEqual([5]);
  });
});
