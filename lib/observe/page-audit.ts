/** The page audit: a hash of every page of guest memory, and where two memories differ. */
import { check, closedError, invalidArgument, VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import type { GuestMemory } from '../memory/guest-memory';
import { native } from '../native';

const BYTES_PER_PAGE = 8;
/** Differing pages that a comparison names. */
export const MOST_NAMED = 1000;

/**
 * One 64-bit hash a page, region after region; holes count as zero pages and are not allocated. Not cryptographic. What is written
 * meanwhile may be in it or not.
 */
export async function hashPages(memory: GuestMemory): Promise<BigUint64Array> {
  const { regions } = memory;
  const hashes = new BigUint64Array(memory.pages);
  let first = 0;
  for (const region of regions) {
    const part = hashes.subarray(first, first + region.size / PAGE_SIZE);
    const result = await native().pageHashes(region.fd, 0, region.size, part);
    if (result < 0 && memory.closed) throw closedError('GuestMemory');
    check(result, 'pread');
    first += part.length;
  }
  return hashes;
}

/** Hashes as bytes: u64 little-endian each, as every host here has them. A view, not a copy. */
export function encodeHashes({ buffer, byteOffset, byteLength }: BigUint64Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** The reverse, for memory of `pages` pages. Throws VHOST_ERR_PROTOCOL for any other number. */
export function decodeHashes(bytes: Uint8Array, pages: number): BigUint64Array {
  if (bytes.byteLength !== pages * BYTES_PER_PAGE) {
    throw new VhostError(
      'VHOST_ERR_PROTOCOL',
      `page hashes of ${bytes.byteLength} bytes, ${pages * BYTES_PER_PAGE} for ${pages} pages`,
    );
  }
  const hashes = new BigUint64Array(pages);
  new Uint8Array(hashes.buffer).set(bytes);
  return hashes;
}

export interface PageComparison {
  total: number;
  differing: number;
  /** GPAs of the first 1000 of them. */
  pages: number[];
}

/** Compares hashes of two memories with the layout of `memory`. */
export function comparePages(memory: GuestMemory, one: BigUint64Array, other: BigUint64Array): PageComparison {
  const total = memory.pages;
  for (const { length } of [one, other]) {
    if (length !== total) throw invalidArgument(`hashes of ${length} pages for memory of ${total}`);
  }
  const pages: number[] = [];
  let differing = 0;
  let first = 0;
  for (const region of memory.regions) {
    const end = first + region.size / PAGE_SIZE;
    const found = differingPages(
      one.subarray(first, end),
      encodeHashes(other.subarray(first, end)),
      region.gpa,
      MOST_NAMED - pages.length,
    );
    differing += found.differing;
    pages.push(...found.pages);
    first = end;
  }
  return { total, differing, pages };
}

/** Compares hashes of consecutive pages, the first of which is at `gpa`; names at most so many. `theirs` begins on a word of 32 bits. */
export function differingPages(
  mine: BigUint64Array,
  theirs: Uint8Array,
  gpa: number,
  most: number,
): { differing: number; pages: number[] } {
  // As halves: a BigInt for each page would cost more than the comparison.
  const left = new Uint32Array(mine.buffer, mine.byteOffset, mine.length * 2);
  const right = new Uint32Array(theirs.buffer, theirs.byteOffset, mine.length * 2);
  const pages: number[] = [];
  let differing = 0;
  for (let half = 0; half < left.length; half += 2) {
    if (left[half] === right[half] && left[half + 1] === right[half + 1]) continue;
    differing++;
    if (pages.length < most) pages.push(gpa + (half / 2) * PAGE_SIZE);
  }
  return { differing, pages };
}

/** A stretch of guest memory and what lies there. Bytes. */
export interface NamedRange {
  name: string;
  gpa: number;
  length: number;
}

/** What lies in the page at GPA `page`: the names of the ranges that touch it. */
export function explainPage(page: number, ranges: readonly NamedRange[]): string {
  const names = ranges
    .filter(({ gpa, length }) => length > 0 && gpa < page + PAGE_SIZE && gpa + length > page)
    .map(({ name }) => name);
  return `page 0x${page.toString(16)}: ${names.length === 0 ? 'nothing known' : names.join(', ')}`;
}
