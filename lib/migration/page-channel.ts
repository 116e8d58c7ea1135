/** Pages through a Channel: the control connection's, or that of a page connection whose bytes only JavaScript has (TLS, compression). */
import type { Channel } from './channel';
import { FRAME_HEADER_SIZE, FrameType } from './frame';
import {
  checkPagesEnd,
  type PageCarrier,
  type PageSource,
  type PagesEndMessage,
  type PagesMoved,
} from './page-carrier';
import { checkCompression, compressPayload, type PageCompression } from './page-compression';
import { PAGES_MAX_DATA } from './page-layout';
import type { PageStore } from './page-store';

/** Longest time that a timer can run. Milliseconds. */
const FOREVER_MS = 2 ** 31 - 1;

export class ControlPages implements PageCarrier {
  readonly chunk = PAGES_MAX_DATA;
  readonly #channel: Channel;
  readonly #compression: PageCompression;

  constructor(channel: Channel, compression: PageCompression = 'none') {
    checkCompression(compression);
    this.#channel = channel;
    this.#compression = compression;
  }

  async send(store: PageStore, runs: Uint32Array, round: number): Promise<PagesMoved> {
    const { payload, head, pages, zeroPages } = store.pack(runs, round);
    if (pages === 0) return { pages, zeroPages, bytes: 0 };
    const stored = await compressPayload(payload, head, this.#compression);
    await this.#channel.send(FrameType.PAGES, stored);
    return { pages, zeroPages, bytes: FRAME_HEADER_SIZE + stored.byteLength };
  }

  async end(): Promise<void> {}
}

export class ChannelPages extends ControlPages implements PageSource {
  readonly #channel: Channel;

  constructor(channel: Channel, compression: PageCompression = 'none') {
    super(channel, compression);
    this.#channel = channel;
  }

  override async end(_store?: PageStore, round = 0, pages = 0): Promise<void> {
    const message: PagesEndMessage = { round, pages };
    await this.#channel.sendJson(FrameType.PAGES_END, message);
  }

  async receiveRound(store: PageStore, round: number): Promise<PagesMoved> {
    const moved: PagesMoved = { pages: 0, zeroPages: 0, bytes: 0 };
    for (;;) {
      const types = [FrameType.PAGES, FrameType.PAGES_END];
      const frame = await this.#channel.receive(types, ...(moved.bytes === 0 ? [FOREVER_MS] : []));
      const at = frame.offset + FRAME_HEADER_SIZE;
      moved.bytes += FRAME_HEADER_SIZE + frame.payload.byteLength;
      if (frame.type === FrameType.PAGES_END) {
        checkPagesEnd(this.#channel.parseJson<PagesEndMessage>(frame), round, moved.pages, at);
        return moved;
      }
      const { pages, zeroPages } = await store.unpack(frame.payload, round, at);
      moved.pages += pages;
      moved.zeroPages += zeroPages;
    }
  }
}
