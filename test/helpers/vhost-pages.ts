import type { PageBitmap } from '../../lib/memory/page-bitmap';

/** Numbers of the set pages, ascending. */
export function pagesOf(bitmap: PageBitmap): number[] {
  const pages: number[] = [];
  for (let page = 0; page < bitmap.pages; page++) if (bitmap.has(page)) pages.push(page);
  return pages;
}

/** Pages that are set in `a` and not in `b`. */
export function missing(a: PageBitmap, b: PageBitmap): number[] {
  return pagesOf(a).filter((page) => page >= b.pages || !b.has(page));
}
