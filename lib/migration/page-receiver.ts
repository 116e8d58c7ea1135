/** Takes the pages of all connections into guest memory, and knows when a round has come in whole. */
import { ProtocolError, VhostError } from '../errors';
import type { GuestMemory } from '../memory/guest-memory';
import type { PageHashes } from './audit';
import type { Frame } from './channel';
import { FRAME_HEADER_SIZE } from './frame';
import type { RoundEndMessage } from './messages';
import type { PageSource, PagesMoved } from './page-carrier';
import { PageStore } from './page-store';

export class PageReceiver {
  readonly #store: PageStore;
  readonly #sources: readonly PageSource[];
  readonly #timeoutMs: number;
  #fail: (error: unknown) => void = () => undefined;
  /** Rejects with what ended a page connection; never resolves. To be waited for beside the control channel. */
  readonly failure: Promise<never>;
  #ends: Promise<PagesMoved>[] = [];
  #round = 0;
  /** What came on the control channel in this round. */
  #control = 0;
  readonly #moved: PagesMoved = { pages: 0, zeroPages: 0, bytes: 0 };

  /** `sources`: page connections; without one, pages come with `apply`. They are read from now on. */
  constructor(
    memory: GuestMemory,
    sources: readonly PageSource[] = [],
    { timeoutMs = 30_000 }: { timeoutMs?: number } = {},
  ) {
    this.#store = PageStore.of(memory);
    this.#sources = sources;
    this.#timeoutMs = timeoutMs;
    this.failure = new Promise<never>((_, reject) => {
      this.#fail = reject;
    });
    this.failure.catch(() => undefined);
    this.#begin();
  }

  /** Rounds that have come in whole. */
  get round(): number {
    return this.#round;
  }

  /** All that came: bytes of the page connections alone. */
  get moved(): Readonly<PagesMoved> {
    return this.#moved;
  }

  #begin(): void {
    this.#control = 0;
    this.#ends = this.#sources.map((source) => source.receiveRound(this.#store, this.#round));
    for (const end of this.#ends) end.catch(this.#fail);
  }

  /** A PAGES frame of the control channel. */
  async apply(frame: Frame): Promise<void> {
    if (this.#sources.length > 0) {
      const expected = `pages on the ${this.#sources.length} page connections`;
      throw new ProtocolError('PAGES on the control connection', frame.offset, expected);
    }
    const { pages, zeroPages } = await this.#store.unpack(frame.payload, this.#round, frame.offset + FRAME_HEADER_SIZE);
    this.#control += pages;
    this.#moved.pages += pages;
    this.#moved.zeroPages += zeroPages;
  }

  /**
   * ROUND_END came, with its payload at `offset`: resolves when the round has come in on every connection, with as many pages as it says,
   * and listens for the next one unless it is final.
   */
  async endRound(end: RoundEndMessage, offset: number): Promise<void> {
    const parts = await this.#within(Promise.all(this.#ends));
    let pages = this.#control;
    for (const part of parts) {
      pages += part.pages;
      this.#moved.pages += part.pages;
      this.#moved.zeroPages += part.zeroPages;
      this.#moved.bytes += part.bytes;
    }
    if (end.round !== this.#round || end.pages !== pages) {
      throw new ProtocolError(
        `ROUND_END of round ${end.round} with ${end.pages} pages`,
        offset,
        `round ${this.#round} with ${pages} pages`,
      );
    }
    this.#round++;
    this.#ends = [];
    if (!end.final) this.#begin();
  }

  async #within<T>(waiting: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const what = `round ${this.#round} has ended, but not on every page connection after ${this.#timeoutMs} ms`;
      timer = setTimeout(() => reject(new VhostError('VHOST_ERR_TIMEOUT', what)), this.#timeoutMs);
    });
    try {
      return await Promise.race([waiting, this.failure, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Between two rounds: memory has other regions now. */
  relayout(memory: GuestMemory): void {
    this.#store.relayout(memory);
  }

  /** Hashes of what has come, for the audit. */
  get received(): PageHashes {
    return this.#store;
  }

  /** Lets go of memory; the connections are their owner's. Idempotent. */
  close(): void {
    this.#store.close();
  }
}
