/** How this process, as a device, marks the pages it writes: in the same bitmap, and the same way, as the kernel's worker does. */
import { check, closedError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import type { DirtyLog } from '../memory/dirty-log';
import { native } from '../native';
import type { WriteLog } from '../virtqueue/ring-memory';

export class DeviceWriteLog implements WriteLog {
  enabled = false;
  #log: DirtyLog | null = null;
  #words: Int32Array = new Int32Array(0);

  /** Where marks go from now on; null for nowhere. */
  use(log: DirtyLog | null): void {
    if (log?.closed === true) throw closedError('DirtyLog');
    this.#log = log;
    this.enabled = log !== null;
    this.#words =
      log === null
        ? new Int32Array(0)
        : new Int32Array(check<ArrayBuffer>(native().mappingBuffer(log.mapping), 'mmap'));
  }

  get log(): DirtyLog | null {
    return this.#log;
  }

  mark(gpa: number, length: number): void {
    const last = Math.floor((gpa + length - 1) / PAGE_SIZE);
    // Atomic: whoever takes the log exchanges words with 0 meanwhile, perhaps from another thread.
    for (let page = Math.floor(gpa / PAGE_SIZE); page <= last; page++)
      Atomics.or(this.#words, page >>> 5, 1 << (page & 31));
  }
}
