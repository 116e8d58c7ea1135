/**
 * One connection of a migration over any Duplex: writes numbered, checksummed frames with back-pressure, reads them as they come, and turns
 * every way a connection can end into an error that names what was expected.
 */
import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { abortedError, ProtocolError, reasonOf, VhostError } from '../errors';
import { peerEnded, silentError } from './endings';
import {
  decodeFrameHeader,
  encodeFrameHeader,
  FRAME_HEADER_SIZE,
  type FrameHeader,
  FrameType,
  frameName,
  streamSeed,
  verifyFrame,
} from './frame';
import { type ConnectionKind, type HelloMessage, helloMessage, readHello, requireIdentity } from './hello';
import { SignsOfLife } from './signs-of-life';

export interface Frame {
  readonly type: FrameType;
  readonly sequence: number;
  readonly payload: Buffer;
  /** Where its header began in the bytes received. */
  readonly offset: number;
}

export interface ChannelOptions {
  /** Longest wait for a single frame, and for the peer to take what was written. Milliseconds. */
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
  /** HELLO was exchanged before: checksums begin with this, and frames are counted from 1. */
  seed?: number;
  /** Hears of all bytes that are sent, in their order. */
  onSent?: ((bytes: Uint8Array) => void) | undefined;
}

/** A peer of which so long nothing is heard is gone. Milliseconds. */
const DEAD_AFTER_MS = 10_000;
/** How long a closed channel waits for the peer to close. */
const LINGER_MS = 1000;
/** Frames are read ahead of whoever takes them, up to here. */
const MOST_QUEUED_BYTES = 4 * 1024 * 1024;
const NOTHING = Buffer.alloc(0);

export class Channel {
  readonly #stream: Duplex;
  readonly #timeoutMs: number;
  #signal: AbortSignal | undefined;
  readonly #onSent: ((bytes: Uint8Array) => void) | undefined;
  #sendSequence = 0;
  #receiveSequence = 0;
  #seed = 0;
  /** What ended the use of the connection: the peer, or something wrong with what came. */
  #failure: Error | undefined;
  #streamError: Error | undefined;
  #ended = false;
  #closed = false;
  readonly #waiters = new Set<() => void>();
  readonly #handlers = new Map<FrameType, (frame: Frame) => void>();
  /** Read and not yet asked for. */
  readonly #frames: Frame[] = [];
  #queuedBytes = 0;
  /** Frames are read as they come: from the first time that somebody wants one. */
  #pumping = false;
  /** Of the frame that is being read. */
  #rawHeader: Buffer | null = null;
  #header: FrameHeader | null = null;
  /** What the next frame should be, for what is said of a stream that ends. */
  #awaited = '';
  #peerEnded = false;
  #life: SignsOfLife | null = null;
  bytesSent = 0;
  bytesReceived = 0;

  constructor(stream: Duplex, options: ChannelOptions = {}) {
    this.#stream = stream;
    this.#timeoutMs = options.timeoutMs ?? 30_000;
    this.#signal = options.signal;
    this.#onSent = options.onSent;
    if (options.seed !== undefined) {
      this.#seed = options.seed;
      this.#sendSequence = 1;
      this.#receiveSequence = 1;
    }
    stream.on('error', (error) => {
      this.#streamError ??= error;
      this.#wake();
    });
    for (const event of ['end', 'close']) {
      stream.on(event, () => {
        this.#ended = true;
        this.#wake();
      });
    }
    stream.on('readable', () => {
      this.#pump();
      this.#wake();
    });
    stream.on('drain', () => this.#wake());
    this.#signal?.addEventListener('abort', this.#wake, { once: true });
  }

  readonly #wake = (): void => {
    for (const waiter of [...this.#waiters]) waiter();
  };

  /** The source's side of the greeting: names the stream, then both seed their checksums with that name. */
  async greet(
    identity: Uint8Array = randomBytes(16),
    channel: ConnectionKind = 'control',
    index = 0,
    compression = 'none',
  ): Promise<HelloMessage> {
    const name = Buffer.from(identity).toString('hex');
    await this.sendJson(FrameType.HELLO, helloMessage(name, channel, index, compression));
    const hello = await this.#receiveHello();
    this.#seed = streamSeed(identity);
    return hello;
  }

  /** The destination's side of the greeting. */
  async answer(): Promise<HelloMessage> {
    const hello = await this.#receiveHello();
    const identity = requireIdentity(hello);
    await this.sendJson(FrameType.HELLO, helloMessage('', hello.channel, hello.index));
    this.#seed = streamSeed(identity);
    return hello;
  }

  async #receiveHello(): Promise<HelloMessage> {
    return readHello(this.parseJson<unknown>(await this.#receiveFirst()));
  }

  /** Nothing behind HELLO is read before the seed of its checksum is known. */
  async #receiveFirst(): Promise<Frame> {
    const deadline = Date.now() + this.#timeoutMs;
    this.#awaited = 'HELLO';
    for (;;) {
      this.#readFrame();
      const frame = this.#frames.shift();
      if (frame !== undefined) return this.#expect(frame, [FrameType.HELLO]);
      this.#throwIfOver('HELLO');
      await this.#wait('waiting for HELLO', deadline);
    }
  }

  /** From here on an abort no longer ends anything: the decision was made and the peer may act on it. */
  commit(): void {
    this.#signal?.removeEventListener('abort', this.#wake);
    this.#signal = undefined;
  }

  /** Frames of this type go to `handler` as they arrive, whatever is being waited for, in their order among all that have handlers. */
  on(type: FrameType, handler: (frame: Frame) => void): void {
    this.#handlers.set(type, handler);
  }

  /** From now on: says something now and then, and ends the channel when nothing was heard of the peer for so long. Milliseconds. */
  keepAlive(deadAfterMs = DEAD_AFTER_MS): void {
    this.#startPumping();
    this.#life = new SignsOfLife(
      {
        unread: () => this.#stream.readableLength > 0,
        say: () => {
          if (!this.#stream.writableNeedDrain && !this.#ended) this.#write(FrameType.KEEPALIVE, NOTHING);
        },
        silent: (forMs) => this.#fail(silentError(forMs)),
      },
      deadAfterMs,
    );
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#life?.stop();
    this.#wake();
  }

  async sendJson(type: FrameType, message: unknown): Promise<void> {
    await this.send(type, Buffer.from(JSON.stringify(message)));
  }

  /**
   * Sends one frame; `payload` must not change until this resolves and the stream has taken it, so pages are given as copies. Frames go out
   * in the order of the calls.
   */
  async send(type: FrameType, payload: Uint8Array): Promise<void> {
    this.#throwIfUnusable(`sending ${frameName(type)}`);
    this.#write(type, payload);
    const doing = `sending ${frameName(type)}`;
    const deadline = Date.now() + this.#timeoutMs;
    while (this.#stream.writableNeedDrain) {
      // A peer that has given up says so, and takes nothing more.
      if (type !== FrameType.HELLO) this.#startPumping();
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended) throw this.#lost(doing);
      await this.#wait(doing, deadline);
    }
  }

  #write(type: FrameType, payload: Uint8Array): void {
    const header = encodeFrameHeader(type, this.#sendSequence++, payload, this.#seed);
    this.bytesSent += header.byteLength + payload.byteLength;
    this.#life?.said();
    this.#stream.cork();
    this.#stream.write(header);
    if (payload.byteLength > 0) this.#stream.write(payload);
    this.#stream.uncork();
    this.#onSent?.(header);
    this.#onSent?.(payload);
  }

  /** The next frame, which must be of one of `types`; CANCEL and ERROR of the peer become errors here, whatever was expected. */
  async receive(types: readonly FrameType[], timeoutMs = this.#timeoutMs): Promise<Frame> {
    const what = types.map(frameName).join(' or ');
    const deadline = Date.now() + timeoutMs;
    this.#awaited = what;
    this.#startPumping();
    for (;;) {
      const frame = this.#frames.shift();
      if (frame !== undefined) {
        this.#queuedBytes -= frame.payload.byteLength;
        this.#pump();
        return this.#expect(frame, types);
      }
      this.#throwIfOver(what);
      await this.#wait(`waiting for ${what}`, deadline);
    }
  }

  #expect(frame: Frame, types: readonly FrameType[]): Frame {
    if (types.includes(frame.type)) return frame;
    const error = new ProtocolError(
      `${frameName(frame.type)} (frame ${frame.sequence})`,
      frame.offset,
      types.map(frameName).join(' or '),
    );
    this.#fail(error);
    throw error;
  }

  #startPumping(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    this.#pump();
  }

  #pump(): void {
    if (!this.#pumping) return;
    while (this.#failure === undefined && this.#queuedBytes < MOST_QUEUED_BYTES && this.#readFrame()) {
      this.#life?.heard();
    }
  }

  /** Reads a frame if all of it is there. What is wrong with it is found now, and thrown to whoever uses the channel next. */
  #readFrame(): boolean {
    try {
      const offset = this.bytesReceived - (this.#header === null ? 0 : FRAME_HEADER_SIZE);
      if (this.#header === null) {
        const rawHeader = this.#take(FRAME_HEADER_SIZE);
        if (rawHeader === null) return false;
        this.#rawHeader = rawHeader;
        this.#header = decodeFrameHeader(rawHeader, offset, this.#receiveSequence);
      }
      const header = this.#header;
      const payload = header.length === 0 ? NOTHING : this.#take(header.length);
      if (payload === null) return false;
      verifyFrame(this.#rawHeader!, header, payload, this.#seed, offset);
      this.#header = null;
      this.#receiveSequence++;
      this.#dispatch({ type: header.type, sequence: header.sequence, payload, offset });
      return true;
    } catch (error) {
      this.#fail(error as Error);
      return false;
    }
  }

  #dispatch(frame: Frame): void {
    if (frame.type === FrameType.CANCEL || frame.type === FrameType.ERROR) {
      this.#peerEnded = true;
      throw peerEnded(frame.type, frame.payload);
    }
    if (frame.type === FrameType.KEEPALIVE) return;
    const handler = this.#handlers.get(frame.type);
    if (handler !== undefined) {
      handler(frame);
      return;
    }
    this.#frames.push(frame);
    this.#queuedBytes += frame.payload.byteLength;
  }

  /** Exactly `length` bytes; the stream buffers them and gives them in one piece. Null when they are not there yet. */
  #take(length: number): Buffer | null {
    if (this.#stream.destroyed) return null;
    const chunk = this.#stream.read(length) as Buffer | null;
    if (chunk === null) return null;
    if (chunk.byteLength < length) {
      // The end of the stream gives what there is.
      throw this.#truncated(this.#expectedNow(), length, chunk.byteLength);
    }
    this.bytesReceived += length;
    return chunk;
  }

  #expectedNow(): string {
    return this.#header === null ? this.#awaited : frameName(this.#header.type);
  }

  async receiveJson<T>(type: FrameType, timeoutMs = this.#timeoutMs): Promise<T> {
    return this.parseJson<T>(await this.receive([type], timeoutMs));
  }

  parseJson<T>(frame: Frame): T {
    try {
      return JSON.parse(frame.payload.toString('utf8')) as T;
    } catch (cause) {
      throw new ProtocolError(frameName(frame.type), frame.offset + FRAME_HEADER_SIZE, 'JSON text', { cause });
    }
  }

  /** Tells the peer why this side ends, if it still can; never throws. */
  async sendLast(type: typeof FrameType.CANCEL | typeof FrameType.ERROR, reason: string): Promise<void> {
    if (this.#peerEnded || this.#stream.destroyed || !this.#stream.writable) return;
    const payload = Buffer.from(JSON.stringify({ reason }));
    const header = encodeFrameHeader(type, this.#sendSequence++, payload, this.#seed);
    this.#onSent?.(header);
    this.#onSent?.(payload);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 1000);
      this.#stream.write(Buffer.concat([header, payload]), () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  /** The same, of an attempt that ended by `cause`: CANCEL where whoever waited for it ended it, ERROR otherwise. */
  async sendCause(cause: unknown): Promise<void> {
    const aborted = cause instanceof VhostError && cause.code === 'VHOST_ERR_ABORTED';
    await this.sendLast(aborted ? FrameType.CANCEL : FrameType.ERROR, reasonOf(cause));
  }

  /** Ends this side; what the peer still sends is thrown away, and a peer that does not end its side is not waited for. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#signal?.removeEventListener('abort', this.#wake);
    this.#life?.stop();
    this.#pumping = false;
    if (!this.#stream.writable) {
      this.#stream.destroy();
      return;
    }
    this.#stream.end();
    this.#stream.resume();
    setTimeout(() => this.#stream.destroy(), LINGER_MS).unref();
  }

  destroy(): void {
    this.#life?.stop();
    this.#stream.destroy();
  }

  /** The peer has said CANCEL or ERROR. */
  get peerHasEnded(): boolean {
    return this.#peerEnded;
  }

  /** For work that waits for nothing on the stream. */
  throwIfAborted(doing: string): void {
    if (this.#signal?.aborted === true) throw abortedError(doing, this.#signal.reason);
  }

  /** Throws what has ended the channel, if anything has. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #throwIfUnusable(doing: string): void {
    this.throwIfAborted(doing);
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#stream.destroyed || this.#streamError !== undefined) throw this.#lost(doing);
  }

  #lost(doing: string): VhostError {
    const cause = this.#streamError;
    const why = cause?.message ?? 'the connection is closed';
    return new VhostError('VHOST_ERR_MIGRATION', `connection lost while ${doing}: ${why}`, { cause });
  }

  /** Nothing more can come, or nobody wants it. */
  #throwIfOver(what: string): void {
    this.throwIfAborted(`waiting for ${what}`);
    if (this.#ended && this.#failure === undefined) {
      const expected = this.#header === null ? FRAME_HEADER_SIZE : this.#header.length;
      throw this.#truncated(this.#expectedNow(), expected, this.#stream.readableLength);
    }
    this.#throwIfUnusable(`waiting for ${what}`);
  }

  #truncated(what: string, expected: number, got: number): ProtocolError {
    return new ProtocolError(
      `the stream ends after ${got} of ${expected} bytes`,
      this.bytesReceived + got,
      what,
      this.#streamError === undefined ? {} : { cause: this.#streamError },
    );
  }

  /** Until something happened on the stream, or an error: aborted, failed, or nothing before the deadline. */
  async #wait(doing: string, deadline: number): Promise<void> {
    const timeoutMs = Math.max(0, deadline - Date.now());
    let timer: NodeJS.Timeout | undefined;
    const happened = await new Promise<boolean>((resolve) => {
      const waiter = (): void => {
        this.#waiters.delete(waiter);
        resolve(true);
      };
      this.#waiters.add(waiter);
      timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        resolve(false);
      }, timeoutMs);
    });
    clearTimeout(timer);
    if (this.#signal?.aborted === true) throw abortedError(doing, this.#signal.reason);
    if (!happened) {
      throw new VhostError('VHOST_ERR_TIMEOUT', `${doing}: not within ${this.#timeoutMs} ms`, {
        hint: 'the peer or the network stands still',
      });
    }
  }
}
