/** Guest memory as the page part of a migration sees it: the addon reads and writes it by page number. */
import { check, closedError } from '../errors';
import type { GuestMemory } from '../memory/guest-memory';
import { native, type PageStoreHandle } from '../native';
import { decompressPayload } from './page-compression';
import { pagesViolation } from './page-frame';
import { PAGES_MAX_PAYLOAD } from './page-layout';

const EBADF = 9;

export interface PageCounts {
  pages: number;
  zeroPages: number;
}

export interface PackedPages extends PageCounts {
  /** Plain; a buffer of its own, since a stream keeps it until it was written. */
  payload: Buffer;
  /** Where its data begins. */
  head: number;
}

export class PageStore {
  #handle: PageStoreHandle;
  #pages: number;
  #target: Uint8Array | undefined;

  private constructor(handle: PageStoreHandle, pages: number) {
    this.#handle = handle;
    this.#pages = pages;
  }

  get handle(): PageStoreHandle {
    return this.#handle;
  }

  /** The regions that memory has now; a region that goes meanwhile stays mapped until this is closed. */
  static of(memory: GuestMemory): PageStore {
    return new PageStore(open(memory), memory.pages);
  }

  /** Memory has other regions now; what has arrived in those that stay is remembered. While no call runs. */
  relayout(memory: GuestMemory): void {
    const before = this.#handle;
    const handle = open(memory);
    check(native().pageStoreKeep(handle, before), 'pageStoreKeep');
    this.#handle = handle;
    this.#pages = memory.pages;
    native().pageStoreClose(before);
  }

  /** At most 256 pages as one payload. Pages outside of the store are left out. */
  pack(runs: Uint32Array, round: number): PackedPages {
    this.#target ??= new Uint8Array(PAGES_MAX_PAYLOAD);
    const packed = check<number[]>(native().pagesPack(this.#handle, runs, round, this.#target), 'pagesPack');
    const [begin, head, data, pages, zeroPages] = packed as [number, number, number, number, number];
    const payload = Buffer.allocUnsafeSlow(head + data);
    payload.set(this.#target.subarray(begin, begin + head + data));
    return { payload, head, pages, zeroPages };
  }

  /** Puts a payload into memory. Throws ProtocolError, with nothing written, for one that is wrong; `base` is where it began. */
  async unpack(payload: Buffer, round: number, base: number): Promise<PageCounts> {
    const decoded = await decompressPayload(payload, base);
    const result = native().pagesUnpack(this.#handle, payload, decoded, round);
    const [code, offset, found, wanted] = check<number[]>(result, 'pwrite') as [number, number, number, number];
    if (code !== 0) throw pagesViolation(code, offset, found, wanted, base);
    return { pages: offset, zeroPages: found };
  }

  /** Of all regions. */
  get pages(): number {
    return this.#pages;
  }

  /**
   * Hashes of what was unpacked in `count` pages from the `first` on, region after region, as hashPages gives them; that of a zero page for a
   * page that never came.
   */
  hashes(first = 0, count = this.#pages - first): BigUint64Array {
    const hashes = new BigUint64Array(count);
    const result = native().pageStoreHashes(this.#handle, first, hashes);
    if (result === -EBADF) throw closedError('PageStore');
    check(result, 'pageStoreHashes');
    return hashes;
  }

  /** Idempotent. */
  close(): void {
    native().pageStoreClose(this.#handle);
  }
}

function open({ regions }: GuestMemory): PageStoreHandle {
  const handle = native().pageStoreCreate(
    regions.flatMap(({ gpa, size }) => [gpa, size]),
    regions.map(({ mapping }) => mapping),
    regions.map(({ fd }) => fd),
  );
  return check<PageStoreHandle>(handle, 'pageStoreCreate');
}
