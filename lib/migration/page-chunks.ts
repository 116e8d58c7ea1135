/** Cuts the pages of a round into chunks that a connection takes one at a time; pages that will be dirty again at once come last. */
import { PAGE_SIZE } from '../memory/address';
import type { GuestMemory } from '../memory/guest-memory';
import { PageBitmap } from '../memory/page-bitmap';
import { native } from '../native';

interface Run {
  page: number;
  pages: number;
}

export class PageChunks {
  readonly #runs: Iterator<Run>;
  /** What is left of the run that the last chunk ended in. */
  #rest: Run = { page: 0, pages: 0 };

  /** `bitmap` is read as it goes, and must not change; pages outside of memory's regions are left out. */
  constructor(memory: GuestMemory, bitmap: PageBitmap, hot?: PageBitmap) {
    const regions = memory.regions.map(({ gpa, end }) => ({ first: gpa / PAGE_SIZE, end: end / PAGE_SIZE }));
    // Of a local hand-over the last round is empty however large the guest is.
    const empty = native().bitmapCount(bitmap.words) === 0;
    this.#runs = runsOf(regions, empty ? [] : hot === undefined ? [bitmap] : divide(bitmap, hot));
  }

  /** The next pages, at most `most`, as [first page, pages, first page, pages...]; null when there are none left. */
  next(most: number): Uint32Array | null {
    const pairs: number[] = [];
    for (let left = most; left > 0; ) {
      if (this.#rest.pages === 0) {
        const { done, value } = this.#runs.next();
        if (done === true) break;
        this.#rest = value as Run;
      }
      const { page } = this.#rest;
      const pages = Math.min(left, this.#rest.pages);
      pairs.push(page, pages);
      this.#rest = { page: page + pages, pages: this.#rest.pages - pages };
      left -= pages;
    }
    return pairs.length === 0 ? null : Uint32Array.from(pairs);
  }
}

function* runsOf(regions: readonly { first: number; end: number }[], bitmaps: readonly PageBitmap[]): Generator<Run> {
  for (const bitmap of bitmaps) {
    let at = 0;
    for (const range of bitmap.ranges()) {
      const end = range.page + range.pages;
      while (at < regions.length && regions[at]!.end <= range.page) at++;
      for (let index = at; index < regions.length && regions[index]!.first < end; index++) {
        const page = Math.max(range.page, regions[index]!.first);
        yield { page, pages: Math.min(end, regions[index]!.end) - page };
      }
    }
  }
}

/** The pages that are not hot, and those that are. */
function divide(bitmap: PageBitmap, hot: PageBitmap): [cold: PageBitmap, hot: PageBitmap] {
  const [cold, warm] = [new PageBitmap(bitmap.pages), new PageBitmap(bitmap.pages)];
  cold.u32.set(bitmap.u32);
  // By the few hot pages: a walk over all words would be part of the downtime, and grow with the guest.
  for (const { page: first, pages } of hot.ranges()) {
    for (let page = first; page < first + pages; page++) {
      if (!bitmap.has(page)) continue;
      warm.set(page);
      cold.clear(page);
    }
  }
  return [cold, warm];
}
