/**
 * The dirty log of a device over its whole life: one bitmap at a time, grown without losing a bit when guest memory grows. What the
 * smaller bitmap held when it was replaced is carried over to the next take.
 */
import { DirtyLog, type DirtySource } from '../memory/dirty-log';
import { PageBitmap } from '../memory/page-bitmap';

export class DeviceDirtyLog implements DirtySource {
  readonly name = 'vhost';
  #log: DirtyLog;
  #carried: PageBitmap | null = null;

  constructor(endGpa: number) {
    this.#log = DirtyLog.create(endGpa);
  }

  /** The bitmap that a backend writes to now. */
  get current(): DirtyLog {
    return this.#log;
  }

  takeInto(bitmap: PageBitmap): number {
    let taken = 0;
    if (this.#carried !== null) {
      const before = bitmap.count();
      bitmap.or(this.#carried);
      taken = bitmap.count() - before;
      this.#carried = null;
    }
    return taken + this.#log.takeInto(bitmap);
  }

  /**
   * Replaces the bitmap by one that covers `endGpa`. `use` tells the backend of the new one; the old one is read only after that, because
   * until then the kernel still writes to it, and closed last.
   */
  async grow(endGpa: number, use: (log: DirtyLog) => Promise<void>): Promise<void> {
    if (this.#log.covers(endGpa)) return;
    const larger = DirtyLog.create(endGpa);
    try {
      await use(larger);
    } catch (error) {
      larger.close();
      throw error;
    }
    const smaller = this.#log;
    this.#log = larger;
    const carried = new PageBitmap(larger.pages);
    if (this.#carried !== null) carried.or(this.#carried);
    smaller.takeInto(carried);
    this.#carried = carried;
    smaller.close();
  }

  close(): void {
    this.#log.close();
  }
}
