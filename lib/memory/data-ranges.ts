/** Which pages of guest memory hold anything: holes of the memfds are found without touching, and so without allocating, them. */
import { check } from '../errors';
import { native } from '../native';
import { PAGE_SIZE } from './address';
import type { GuestMemory, GuestRegion } from './guest-memory';

/** A run of pages: page is GPA / 4096. */
export interface DataRange {
  page: number;
  pages: number;
}

/** Runs of pages, ascending, that were ever written; all others are holes, which read as zero. */
export function dataRanges(memory: GuestMemory): DataRange[] {
  return memory.regions.flatMap(dataRangesOf);
}

export function dataRangesOf(region: GuestRegion): DataRange[] {
  const found: DataRange[] = [];
  const ranges = check<number[]>(native().memfdDataRanges(region.fd, 0, region.size), 'lseek');
  for (let at = 0; at < ranges.length; at += 2) {
    const first = Math.floor((region.gpa + ranges[at]!) / PAGE_SIZE);
    const end = Math.ceil((region.gpa + ranges[at]! + ranges[at + 1]!) / PAGE_SIZE);
    found.push({ page: first, pages: end - first });
  }
  return found;
}

/** Whether all of it is zero. Looking at a view of a hole allocates the hole: ask of a copy, or of pages in dataRanges. */
export function isZeroPage(page: Uint8Array): boolean {
  return native().rangeIsZero(page) === 1;
}
