/**
 * An independent witness of what devices write: the kernel's own PAGEMAP_SCAN (Linux 6.7+) on the mapping that only devices were told of.
 * It knows nothing of the dirty log, so the log can be held against it.
 */
import { check, closedError, invalidArgument } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { GuestMemory, type GuestRegion, type MemoryChange } from '../memory/guest-memory';
import { PageBitmap } from '../memory/page-bitmap';
import { type FdHandle, native } from '../native';

export class WriteWitness {
  readonly #memory: GuestMemory;
  readonly #stopListening: () => void;
  /** The userfaultfd of each region: it is watched as long as that is open. */
  readonly #watched = new Map<GuestRegion, FdHandle>();
  /** Taken from the kernel and not handed over, because a later region failed. */
  readonly #pending = new PageBitmap(0);
  #closed = false;

  private constructor(memory: GuestMemory) {
    this.#memory = memory;
    try {
      for (const region of memory.regions) this.#watch(region);
    } catch (error) {
      this.#closeAll();
      throw error;
    }
    this.#stopListening = memory.onChange(async (change) => this.#memoryChanged(change));
  }

  /** Whether this kernel can. */
  static available(): boolean {
    const memory = GuestMemory.create([{ gpa: 0, size: PAGE_SIZE }], { deviceMapping: 'separate' });
    try {
      const started = native().writeWitnessStart(memory.regions[0]!.mapping);
      if (typeof started === 'number') return false;
      native().fdClose(started);
      return true;
    } finally {
      memory.close();
    }
  }

  /**
   * Watches from now on, regions added later included. The memory must have been made with a separate device mapping. Fails with the
   * errno of userfaultfd or PAGEMAP_SCAN where `available()` is false.
   */
  static start(memory: GuestMemory): WriteWitness {
    if (!memory.separateDeviceMapping) {
      throw invalidArgument(
        'the witness needs a mapping that only devices write to',
        "use { deviceMapping: 'separate' }",
      );
    }
    return new WriteWitness(memory);
  }

  #watch(region: GuestRegion): void {
    this.#watched.set(region, check<FdHandle>(native().writeWitnessStart(region.mapping), 'userfaultfd'));
  }

  /** A region is watched before this process may use it, so no write to it is missed. */
  #memoryChanged({ kind, region }: MemoryChange): void {
    const userfault = this.#watched.get(region);
    if (kind === 'add' && userfault === undefined) this.#watch(region);
    if (kind === 'remove' && userfault !== undefined) {
      this.#watched.delete(region);
      native().fdClose(userfault);
    }
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Moves the pages that devices wrote since the last call into `bitmap`. Answers how many were not there before. */
  async takeInto(bitmap: PageBitmap): Promise<number> {
    if (this.#closed) throw closedError('WriteWitness');
    const taken = new PageBitmap(this.#memory.end / PAGE_SIZE);
    try {
      for (const region of [...this.#watched.keys()]) {
        const result = await native().writeWitnessTake(region.mapping, taken.words, region.gpa / PAGE_SIZE);
        // A region that went in the meantime has nothing left to witness.
        if (result >= 0 || this.#watched.has(region)) check(result, 'PAGEMAP_SCAN');
      }
    } finally {
      this.#pending.or(taken);
    }
    const fresh = bitmap.or(this.#pending);
    this.#pending.reset();
    return fresh;
  }

  #closeAll(): void {
    for (const userfault of this.#watched.values()) native().fdClose(userfault);
    this.#watched.clear();
  }

  /** Ends the watching. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopListening();
    this.#closeAll();
  }
}
