/** Adds up what looks at a dirty log found: by writer, by queue, and page by page. */
import { PAGE_SIZE } from '../memory/address';
import type { PageBitmap } from '../memory/page-bitmap';
import type { DirtyRate, HotPage, QueueDirtyRate } from './dirty-rate';
import type { PageOwner, PageOwners } from './page-owners';

const HOTTEST = 16;
/** Share of all looks from which on a page is always dirty. */
const ALWAYS = 0.9;

export class DirtyTally {
  readonly #owners: PageOwners;
  readonly #samples: number[] = [];
  readonly #byWriter = new Map<string, number>();
  readonly #byQueue = new Map<number, QueueDirtyRate>();
  /** Looks that found a page, by page. */
  readonly #times = new Map<number, number>();
  readonly #pages = new Uint32Array(1024);
  #other = 0;
  #shared = 0;

  constructor(owners: PageOwners) {
    this.#owners = owners;
  }

  /** One look: what was found, and how much of it by whom. */
  add(found: PageBitmap, byWriter: ReadonlyMap<string, number>): void {
    for (const [name, pages] of byWriter) this.#byWriter.set(name, (this.#byWriter.get(name) ?? 0) + pages);
    let total = 0;
    for (let from = 0; ; ) {
      const count = found.indexes(from, this.#pages);
      for (let at = 0; at < count; at++) this.#count(this.#pages[at]!);
      total += count;
      if (count < this.#pages.length) break;
      from = this.#pages[count - 1]! + 1;
    }
    this.#samples.push(total);
  }

  #count(page: number): void {
    this.#times.set(page, (this.#times.get(page) ?? 0) + 1);
    const owner = this.#owners.ownerOf(page);
    if (owner === null) this.#other++;
    else this.#queue(owner)[owner.part]++;
    if (this.#owners.isShared(page)) this.#shared++;
  }

  #queue({ queue, kind }: PageOwner): QueueDirtyRate {
    const known = this.#byQueue.get(queue) ?? { queue, kind, usedRing: 0, driverRing: 0, buffers: 0 };
    this.#byQueue.set(queue, known);
    return known;
  }

  result(measured: { seconds: number; intervalMs: number; memoryPages: number }): DirtyRate {
    const looks = this.#samples.length;
    const pagesPerSecond = this.#samples.reduce((sum, pages) => sum + pages, 0) / measured.seconds;
    return {
      ...measured,
      samples: [...this.#samples],
      pagesPerSecond,
      bytesPerSecond: pagesPerSecond * PAGE_SIZE,
      distinctPages: this.#times.size,
      alwaysDirtyPages: [...this.#times.values()].filter((times) => times >= looks * ALWAYS).length,
      byWriter: Object.fromEntries(this.#byWriter),
      byQueue: [...this.#byQueue.values()].sort((one, other) => one.queue - other.queue),
      other: this.#other,
      shared: this.#shared,
      cut: this.#owners.cut,
      hottest: this.#hottest(),
    };
  }

  #hottest(): HotPage[] {
    return [...this.#times]
      .sort(([onePage, one], [otherPage, other]) => other - one || onePage - otherPage)
      .slice(0, HOTTEST)
      .map(([page, times]) => ({ gpa: page * PAGE_SIZE, times, owner: this.#owners.ownerOf(page) }));
  }
}
