/** What carries pages: the control channel, a page connection through its stream, or one through its descriptor. */
import { ProtocolError } from '../errors';
import { isObject } from './json';
import type { PageCounts, PageStore } from './page-store';

/** What was moved, frames counted whole. */
export interface PagesMoved extends PageCounts {
  bytes: number;
}

/** The source's end. One call at a time. */
export interface PageCarrier {
  /** Pages it takes at once, without looking whether to go on. */
  readonly chunk: number;
  send(store: PageStore, runs: Uint32Array, round: number): Promise<PagesMoved>;
  /** Says that nothing more comes in the round. On the control channel ROUND_END says so. */
  end(store: PageStore, round: number, pages: number): Promise<void>;
}

/** The destination's end. */
export interface PageSource {
  /**
   * Takes PAGES of the round into the store until the peer says that it has ended here. Waits without a limit for the first of them, since
   * a source may have nothing to send; throws ProtocolError for anything else.
   */
  receiveRound(store: PageStore, round: number): Promise<PagesMoved>;
}

/** PAGES_END. */
export interface PagesEndMessage {
  round: number;
  /** That came on this connection. */
  pages: number;
}

/** Throws ProtocolError with `offset` unless it ends that round after so many pages. */
export function checkPagesEnd(value: unknown, round: number, pages: number, offset: number): void {
  const end: Partial<PagesEndMessage> = isObject(value) ? value : {};
  if (end.round === round && end.pages === pages) return;
  throw new ProtocolError(
    `PAGES_END of round ${end.round} with ${end.pages} pages`,
    offset,
    `round ${round} with ${pages} pages`,
  );
}
