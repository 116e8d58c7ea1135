/**
 * A set of pages: one bit a page, least significant first, in the layout of the kernel's dirty log on little-endian hosts. Kept as u32
 * words for TypeScript and seen as u64 words by the addon.
 */
import { invalidArgument } from '../errors';

const BITS = 32;
/** Page numbers fit 32 bits (shifts, index lists, the wire): guest addresses below 16 TiB. */
const MAX_PAGES = 2 ** 32;

export class PageBitmap {
  #pages: number;
  #words: BigUint64Array;
  #u32: Uint32Array;

  constructor(pages: number) {
    checkPages(pages);
    this.#pages = pages;
    this.#words = new BigUint64Array(Math.ceil(pages / 64));
    this.#u32 = new Uint32Array(this.#words.buffer);
  }

  get pages(): number {
    return this.#pages;
  }

  /** The same bits, 64 pages a word. Of no use after `grow` or `or`, which may replace it; likewise `u32`. */
  get words(): BigUint64Array {
    return this.#words;
  }

  get u32(): Uint32Array {
    return this.#u32;
  }

  #check(page: number): void {
    if (!(page >= 0 && page < this.#pages)) throw invalidArgument(`page ${page} of ${this.#pages}`);
  }

  set(page: number): void {
    this.#check(page);
    this.#u32[page >>> 5]! |= 1 << (page & 31);
  }

  /** Sets pages [page, page + count). */
  setRange(page: number, count: number): void {
    const end = page + count;
    if (!(page >= 0 && count >= 0 && end <= this.#pages)) {
      throw invalidArgument(`pages ${page} to ${end} of ${this.#pages}`);
    }
    if (count === 0) return;
    const u32 = this.#u32;
    const first = page >>> 5;
    const last = (end - 1) >>> 5;
    const head = ~0 << (page & 31);
    const tail = ~0 >>> (31 - ((end - 1) & 31));
    if (first === last) {
      u32[first]! |= head & tail;
      return;
    }
    u32[first]! |= head;
    u32.fill(0xffffffff, first + 1, last);
    u32[last]! |= tail;
  }

  /** False for pages that the bitmap has no bit for. */
  has(page: number): boolean {
    return page >= 0 && page < this.#pages && (this.#u32[page >>> 5]! & (1 << (page & 31))) !== 0;
  }

  clear(page: number): void {
    this.#check(page);
    this.#u32[page >>> 5]! &= ~(1 << (page & 31));
  }

  reset(): void {
    this.#u32.fill(0);
  }

  /** Sets every page, and no bit behind the last one. */
  fill(): void {
    this.setRange(0, this.#pages);
  }

  count(): number {
    let bits = 0;
    for (const word of this.#u32) if (word !== 0) bits += ones(word);
    return bits;
  }

  /** Adds the pages of `other`, growing when it has more. Answers how many were not there before. */
  or(other: PageBitmap): number {
    this.grow(other.pages);
    const into = this.#u32;
    const from = other.u32;
    let fresh = 0;
    for (let at = 0; at < from.length; at++) {
      const word = from[at]!;
      if (word === 0) continue;
      const before = into[at]!;
      fresh += ones(word & ~before);
      into[at] = before | word;
    }
    return fresh;
  }

  /** Makes room for `pages`; never shrinks. */
  grow(pages: number): void {
    if (pages <= this.#pages) return;
    checkPages(pages);
    const length = Math.ceil(pages / 64);
    this.#pages = pages;
    if (length === this.#words.length) return;
    const words = new BigUint64Array(length);
    words.set(this.#words);
    this.#words = words;
    this.#u32 = new Uint32Array(words.buffer);
  }

  /** The set pages from page `from` on, ascending, into `out` until it is full: answers how many. */
  indexes(from: number, out: Uint32Array): number {
    if (!(from >= 0)) throw invalidArgument(`page ${from} of ${this.#pages}`);
    if (from >= this.#pages) return 0;
    const first = from >>> 5;
    let count = 0;
    for (let at = first; at < this.#u32.length && count < out.length; at++) {
      let word = this.#u32[at]!;
      if (at === first) word &= ~0 << (from & 31);
      while (word !== 0 && count < out.length) {
        out[count++] = at * BITS + lowest(word);
        word &= word - 1;
      }
    }
    return count;
  }

  /** Runs of set pages, ascending, as long as they can be. */
  *ranges(): Generator<{ page: number; pages: number }> {
    let start = -1;
    let end = -1;
    for (let at = 0; at < this.#u32.length; at++) {
      let word = this.#u32[at]!;
      let base = at * BITS;
      while (word !== 0) {
        const zeros = lowest(word);
        const run = lowest(~(word >>> zeros));
        const page = base + zeros;
        if (page !== end) {
          if (start >= 0) yield { page: start, pages: end - start };
          start = page;
        }
        end = page + run;
        base = end;
        const used = zeros + run;
        word = used >= BITS ? 0 : word >>> used;
      }
    }
    if (start >= 0) yield { page: start, pages: end - start };
  }
}

function checkPages(pages: number): void {
  if (!Number.isSafeInteger(pages) || pages < 0 || pages > MAX_PAGES) {
    throw invalidArgument(`a bitmap of ${pages} pages`, `0 to ${MAX_PAGES}`);
  }
}

/** Index of the lowest set bit; 32 for none. */
function lowest(word: number): number {
  const bit = word & -word;
  return bit === 0 ? BITS : 31 - Math.clz32(bit);
}

function ones(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
