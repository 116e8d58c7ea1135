import { statSync } from 'node:fs';
import { dataRanges, isZeroPage } from '../../../lib/memory/data-ranges';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { native } from '../../../lib/native';
import { GIB, PAGE } from './support';

let memory: GuestMemory;

beforeEach(() => {
  memory = GuestMemory.create([
    { gpa: 0, size: 64 * PAGE },
    { gpa: 64 * PAGE, size: 2 * GIB },
    { gpa: 5 * GIB, size: 16 * PAGE },
  ]);
});

afterEach(() => memory.close());

/** Bytes of memory that hold anything. */
const allocated = (): number =>
  memory.regions.reduce((sum, { fd }) => sum + statSync(`/proc/self/fd/${native().fdNumber(fd)}`).blocks * 512, 0);

test('nothing was written: there is nothing', () => {
  expect(dataRanges(memory)).toEqual([]);
});

test('finds what was written, in every region, and allocates nothing', () => {
  const high = (5 * GIB) / PAGE;
  memory.write(63 * PAGE, new Uint8Array(2 * PAGE).fill(1));
  memory.write(3 * PAGE + 17, Uint8Array.of(1));
  memory.write(4 * PAGE, Uint8Array.of(0));
  memory.write(5 * GIB + 16 * PAGE - 1, Uint8Array.of(1));
  const before = allocated();
  expect(before).toBe(5 * PAGE);
  expect(dataRanges(memory)).toEqual([
    { page: 3, pages: 2 },
    { page: 63, pages: 1 },
    { page: 64, pages: 1 },
    { page: high + 15, pages: 1 },
  ]);
  expect(allocated()).toBe(before);
});

test('reading a copy of a hole leaves it a hole, and a view does not', () => {
  expect(isZeroPage(memory.read(10 * PAGE, PAGE))).toBe(true);
  expect(isZeroPage(memory.read(63 * PAGE, 2 * PAGE))).toBe(true);
  expect(allocated()).toBe(0);
  expect(isZeroPage(memory.view(10 * PAGE, PAGE))).toBe(true);
  expect(allocated()).toBe(PAGE);
});

test('one byte makes a page not zero', () => {
  for (const at of [0, 1, 2047, PAGE - 1]) {
    const page = new Uint8Array(PAGE);
    expect(isZeroPage(page)).toBe(true);
    page[at] = 1;
    expect(isZeroPage(page)).toBe(false);
  }
});
