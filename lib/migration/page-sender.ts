/** Sends the pages of a round over all page connections at once, or over the control channel when there are none. */

import { abortedError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import type { GuestMemory } from '../memory/guest-memory';
import type { PageBitmap } from '../memory/page-bitmap';
import { BandwidthLimit, type Clock } from './bandwidth-limit';
import type { PageCarrier, PagesMoved } from './page-carrier';
import { PageChunks } from './page-chunks';
import { PageStore } from './page-store';

export interface PageSenderOptions {
  signal?: AbortSignal | undefined;
  /** Bytes a second over all connections together; 0, the default, for no limit. */
  maxBandwidth?: number | undefined;
  clock?: Clock;
}

export interface RoundOptions {
  /** Pages to send last: those that are dirty again at once, as rings are, would only be sent too early. */
  hot?: PageBitmap;
  /** Hears of what was sent of the round so far. */
  onProgress?: ((moved: PagesMoved) => void) | undefined;
}

/** A limited sender looks at its limit so often. Milliseconds of sending. */
const SLICE_MS = 50;
const SMALLEST_CHUNK = 16;

export class PageSender {
  readonly #memory: GuestMemory;
  readonly #carriers: readonly PageCarrier[];
  readonly #signal: AbortSignal | undefined;
  readonly #bandwidth: BandwidthLimit;

  /** `carriers`: page connections, or the ControlPages of the control channel alone. */
  constructor(memory: GuestMemory, carriers: readonly PageCarrier[], options: PageSenderOptions = {}) {
    this.#memory = memory;
    this.#carriers = carriers;
    this.#signal = options.signal;
    this.#bandwidth = new BandwidthLimit(options.maxBandwidth, options.clock);
  }

  /** May be changed in the middle of a round. */
  get maxBandwidth(): number {
    return this.#bandwidth.limit;
  }

  set maxBandwidth(bytesPerSecond: number) {
    this.#bandwidth.limit = bytesPerSecond;
  }

  /**
   * Sends every page whose bit is set and that a memory region has now, and clears nothing: the caller owns the bitmap. A page that was
   * never touched is allocated by being looked at: begin with those of dataRanges. When one connection fails, all stop and it throws.
   */
  async send(bitmap: PageBitmap, round: number, { hot, onProgress }: RoundOptions = {}): Promise<PagesMoved> {
    const store = PageStore.of(this.#memory);
    const chunks = new PageChunks(this.#memory, bitmap, hot);
    const stop = { now: false };
    const all: PagesMoved = { pages: 0, zeroPages: 0, bytes: 0 };
    const count = (sent: PagesMoved): void => {
      add(all, sent);
      onProgress?.(all);
    };
    try {
      const shares = await Promise.allSettled(
        this.#carriers.map((carrier) =>
          this.#share(carrier, store, chunks, round, stop, count).catch((error: unknown) => {
            stop.now = true;
            throw error;
          }),
        ),
      );
      const failed = shares.find((share) => share.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
      return all;
    } finally {
      store.close();
    }
  }

  /** One connection's part: whoever is free takes the next chunk. */
  async #share(
    carrier: PageCarrier,
    store: PageStore,
    chunks: PageChunks,
    round: number,
    stop: { now: boolean },
    count: (sent: PagesMoved) => void,
  ): Promise<PagesMoved> {
    const moved: PagesMoved = { pages: 0, zeroPages: 0, bytes: 0 };
    while (!stop.now) {
      await this.#bandwidth.ready(this.#signal);
      if (this.#signal?.aborted === true) throw abortedError('sending pages', this.#signal.reason);
      const runs = chunks.next(this.#chunk(carrier));
      if (runs === null) break;
      const sent = await carrier.send(store, runs, round);
      this.#bandwidth.spend(sent.bytes);
      add(moved, sent);
      count(sent);
    }
    if (!stop.now) await carrier.end(store, round, moved.pages);
    return moved;
  }

  #chunk(carrier: PageCarrier): number {
    const slice = Math.floor(this.#bandwidth.bytesIn(SLICE_MS) / PAGE_SIZE / this.#carriers.length);
    return Math.min(carrier.chunk, Math.max(SMALLEST_CHUNK, slice));
  }
}

function add(sum: PagesMoved, { pages, zeroPages, bytes }: PagesMoved): void {
  sum.pages += pages;
  sum.zeroPages += zeroPages;
  sum.bytes += bytes;
}
