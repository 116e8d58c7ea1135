/**
 * A page connection. Where its socket carries the bytes as they are, the addon moves pages between guest memory and the descriptor on the
 * thread pool; otherwise they go through the stream.
 */
import type { Duplex } from 'node:stream';
import { abortedError, check, ProtocolError, systemError, VhostError } from '../errors';
import { type FdHandle, native, type PageLinkHandle } from '../native';
import { Channel } from './channel';
import { peerEnded } from './endings';
import { decodeFrameHeader, FRAME_HEADER_SIZE, FrameType, frameName, verifyFrame } from './frame';
import {
  checkPagesEnd,
  type PageCarrier,
  type PageSource,
  type PagesEndMessage,
  type PagesMoved,
} from './page-carrier';
import { ChannelPages } from './page-channel';
import { checkCompression, type PageCompression } from './page-compression';
import { pagesViolation } from './page-frame';
import type { PageStore } from './page-store';
import { onPool } from './pool-share';
import { Readiness, untilReady } from './readiness';
import type { StreamRecording } from './record-stream';

/** A connection after both have said HELLO on it. */
export interface PageConnectionParts {
  stream: Duplex;
  /** The socket itself, when nobody reads or writes `stream` any more and its bytes are those of the socket; else null. Owned from here on. */
  fd: FdHandle | null;
  /** Of the stream's checksums: streamSeed of the identity. */
  seed: number;
  /** Gets what goes through the stream. */
  recording?: StreamRecording | null;
}

export interface PageConnectionOptions {
  /** Longest wait for the peer in the middle of a round. Milliseconds, default 30,000. */
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Default none; anything else goes through the stream. */
  compression?: PageCompression;
}

export interface PageConnection extends PageCarrier, PageSource {
  /** Ends what is under way with VHOST_ERR_ABORTED. Idempotent. */
  close(): void;
}

/** Either kind. Throws VHOST_ERR_UNSUPPORTED for a compression that this Node has not. */
export function pageConnection(parts: PageConnectionParts, options: PageConnectionOptions = {}): PageConnection {
  const { compression = 'none' } = options;
  checkCompression(compression);
  const plain = parts.fd !== null && compression === 'none';
  return plain ? new SocketPages(parts, options) : new StreamPages(parts, options);
}

class StreamPages extends ChannelPages implements PageConnection {
  readonly #parts: PageConnectionParts;

  constructor(parts: PageConnectionParts, { compression, ...options }: PageConnectionOptions) {
    super(new Channel(parts.stream, { ...options, seed: parts.seed, onSent: parts.recording?.write }), compression);
    this.#parts = parts;
  }

  close(): void {
    if (this.#parts.fd !== null) native().fdClose(this.#parts.fd);
    this.#parts.stream.destroy();
    void this.#parts.recording?.close();
  }
}

/** Pages of a chunk: 16 MiB, so that the way through JavaScript to the next one is small beside it. */
const CHUNK_PAGES = 4096;
/** Bytes a call moves before it comes back. */
const BUDGET = 32 * 1024 * 1024;
const NO_RUNS = new Uint32Array(0);

const LinkStatus = { DONE: 0, MORE: 1, BLOCKED: 2, OTHER: 3, END: 4, VIOLATION: 5 } as const;

class SocketPages implements PageConnection {
  readonly chunk = CHUNK_PAGES;
  readonly #parts: PageConnectionParts & { fd: FdHandle };
  readonly #link: PageLinkHandle;
  readonly #timeoutMs: number;
  readonly #closing = new AbortController();
  readonly #signal: AbortSignal;
  #received = 0;

  constructor(parts: PageConnectionParts, { timeoutMs = 30_000, signal }: PageConnectionOptions) {
    const { fd, seed } = parts as PageConnectionParts & { fd: FdHandle };
    this.#parts = { ...parts, fd };
    // HELLO was frame 0 each way.
    this.#link = check<PageLinkHandle>(native().pageLinkCreate(fd, seed, 1, 1), 'pageLinkCreate');
    this.#timeoutMs = timeoutMs;
    this.#signal = signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
  }

  async send(store: PageStore, runs: Uint32Array, round: number): Promise<PagesMoved> {
    const moved: PagesMoved = { pages: 0, zeroPages: 0, bytes: 0 };
    for (let queued = runs; ; queued = NO_RUNS) {
      const answer = await this.#call('sending pages', () =>
        native().pageLinkSend(this.#link, store.handle, queued, round, BUDGET),
      );
      count(moved, answer);
      if (answer[0] === LinkStatus.DONE) return moved;
      if (answer[0] === LinkStatus.BLOCKED) await this.#ready(Readiness.WRITABLE, 'sending pages', this.#timeoutMs);
    }
  }

  async end(store: PageStore, round: number, pages: number): Promise<void> {
    const message: PagesEndMessage = { round, pages };
    const payload = Buffer.from(JSON.stringify(message));
    check(native().pageLinkFrame(this.#link, FrameType.PAGES_END, payload), 'pageLinkFrame');
    await this.send(store, NO_RUNS, round);
  }

  async receiveRound(store: PageStore, round: number): Promise<PagesMoved> {
    const moved: PagesMoved = { pages: 0, zeroPages: 0, bytes: 0 };
    const doing = 'waiting for pages';
    for (;;) {
      const answer = await this.#call(doing, () => native().pageLinkReceive(this.#link, store.handle, round, BUDGET));
      count(moved, answer);
      this.#received += answer[3]!;
      const [status] = answer;
      if (status === LinkStatus.BLOCKED) {
        await this.#ready(Readiness.READABLE, doing, moved.bytes === 0 ? null : this.#timeoutMs);
      } else if (status !== LinkStatus.MORE) {
        this.#endRound(answer, round, moved.pages);
        return moved;
      }
    }
  }

  /** What came is no PAGES frame: returns for the end of the round, throws for all else. */
  #endRound(answer: readonly number[], round: number, pages: number): void {
    const frame = Buffer.from(check<Uint8Array>(native().pageLinkTake(this.#link), 'pageLinkTake'));
    const offset = this.#received - frame.byteLength;
    const expected = 'PAGES or PAGES_END';
    if (answer[0] === LinkStatus.END) {
      throw new ProtocolError(`the stream ends after ${frame.byteLength} bytes of a frame`, this.#received, expected);
    }
    const at = offset + FRAME_HEADER_SIZE;
    if (answer[0] === LinkStatus.VIOLATION) {
      const [code, where, found, wanted] = answer.slice(4) as [number, number, number, number];
      throw pagesViolation(code, where, found, wanted, at);
    }
    const rawHeader = frame.subarray(0, FRAME_HEADER_SIZE);
    const payload = frame.subarray(FRAME_HEADER_SIZE);
    const header = decodeFrameHeader(rawHeader, offset, answer[8]!);
    if (header.length !== payload.byteLength) {
      throw new ProtocolError(`${frameName(header.type)} of ${header.length} bytes`, offset + 12, 'less');
    }
    verifyFrame(rawHeader, header, payload, this.#parts.seed, offset);
    if (header.type === FrameType.CANCEL || header.type === FrameType.ERROR) throw peerEnded(header.type, payload);
    if (header.type !== FrameType.PAGES_END) throw new ProtocolError(frameName(header.type), offset, expected);
    checkPagesEnd(parseEnd(payload, at), round, pages, at);
  }

  async #call(doing: string, call: () => Promise<number[] | number>): Promise<number[]> {
    const answer = await onPool(async () => {
      if (this.#signal.aborted) throw abortedError(doing, this.#signal.reason);
      return await call();
    });
    if (typeof answer !== 'number') return answer;
    if (this.#signal.aborted) throw abortedError(doing, this.#signal.reason);
    const cause = systemError(answer, doing);
    throw new VhostError('VHOST_ERR_MIGRATION', `page connection lost while ${doing}: ${cause.code}`, { cause });
  }

  async #ready(events: Readiness, doing: string, timeoutMs: number | null): Promise<void> {
    await untilReady(this.#parts.fd, events, doing, timeoutMs, this.#signal);
  }

  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort('the page connection was closed');
    native().pageLinkClose(this.#link);
    native().fdClose(this.#parts.fd);
    this.#parts.stream.destroy();
  }
}

function count(moved: PagesMoved, answer: readonly number[]): void {
  moved.pages += answer[1]!;
  moved.zeroPages += answer[2]!;
  moved.bytes += answer[3]!;
}

function parseEnd(payload: Buffer, offset: number): PagesEndMessage {
  try {
    return JSON.parse(payload.toString('utf8')) as PagesEndMessage;
  } catch (cause) {
    throw new ProtocolError('PAGES_END', offset, 'JSON text', { cause });
  }
}
