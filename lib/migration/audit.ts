/**
 * The page audit over the wire. The destination hashes every page as it arrives, which is what its guest begins with; the source hashes
 * its memory after the guest has gone, which still is what the guest left. A page that nobody logged differs. Neither costs downtime.
 *
 * AUDIT frame: one u64 little-endian hash for every page of every region, in the order of SETUP.
 */
import { ProtocolError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import type { GuestMemory } from '../memory/guest-memory';
import type { PageBitmap } from '../memory/page-bitmap';
import { native } from '../native';
import { comparePages } from '../observe/page-audit';
import type { Frame } from './channel';
import { FRAME_HEADER_SIZE } from './frame';
import type { AuditResult } from './messages';

/** Hashes of the pages a destination received; pages that never came hash as zero pages. */
export class ReceivedHashes {
  readonly #memory: GuestMemory;
  readonly hashes: BigUint64Array;
  readonly #firstPage: number[] = [];

  constructor(memory: GuestMemory) {
    this.#memory = memory;
    this.hashes = new BigUint64Array(memory.pages);
    const zero = new BigUint64Array(1);
    native().pageHashesOf(new Uint8Array(PAGE_SIZE), zero, 0);
    this.hashes.fill(zero[0]!);
    let first = 0;
    for (const region of memory.regions) {
      this.#firstPage.push(first);
      first += region.size / PAGE_SIZE;
    }
  }

  /** Hashes pages as they now lie in guest memory; `written` says which of them can hold anything but zeros. */
  update(page: number, pages: number, written: PageBitmap): void {
    const index = this.#memory.regions.findIndex(
      (region) => page * PAGE_SIZE >= region.gpa && page * PAGE_SIZE < region.end,
    );
    const region = this.#memory.regions[index]!;
    const first = this.#firstPage[index]! + (page - region.gpa / PAGE_SIZE);
    for (let at = 0; at < pages; at++) {
      if (!written.has(page + at)) continue;
      native().pageHashesOf(this.#memory.view((page + at) * PAGE_SIZE, PAGE_SIZE), this.hashes, first + at);
    }
  }

  encode(): Uint8Array {
    return new Uint8Array(this.hashes.buffer);
  }
}

/** Compares the source's hashes with those of an AUDIT frame. */
export function compareHashes(memory: GuestMemory, mine: BigUint64Array, frame: Frame): AuditResult {
  if (frame.payload.byteLength !== mine.byteLength) {
    throw new ProtocolError(
      `AUDIT of ${frame.payload.byteLength} bytes`,
      frame.offset + FRAME_HEADER_SIZE,
      `${mine.byteLength}: 8 for each of ${mine.length} pages`,
    );
  }
  const theirs = new BigUint64Array(mine.length);
  new Uint8Array(theirs.buffer).set(frame.payload);
  return comparePages(memory, mine, theirs);
}
