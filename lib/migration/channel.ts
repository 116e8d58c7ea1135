/**
 * One connection of a migration over any Duplex: writes numbered, checksummed frames with back-pressure, reads them as they come, and turns
 * every way a connection can end into an error that names what was expected.
 */
import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { ProtocolError, VhostError } from '../errors';
import {
  decodeFrameHeader,
  encodeFrameHeader,
  FRAME_HEADER_SIZE,
  type FrameHeader,
  FrameType,
  frameName,
  STREAM_MIN_VERSION,
  STREAM_VERSION,
  streamSeed,
  verifyFrame,
} from './frame';
import { isObject } from './json';

export interface Frame {
  readonly type: FrameType;
  readonly sequence: number;
  readonly payload: Buffer;
  /** Where its header began in the bytes received. */
  readonly offset: number;
}

export interface ChannelOptions {
  /** Longest wait for a single frame, and for the peer to take what was written. Milliseconds. */
  timeoutMs?: number;
  signal?: AbortSignal;
  /** HELLO was exchanged before: checksums begin with this, and frames are counted from 1. */
  seed?: number;
  /** Hears of all bytes that are sent, in their order. */
  onSent?: ((bytes: Uint8Array) => void) | undefined;
}

/** What a connection of a migration is for. */
export type ConnectionKind = 'control' | 'pages' | 'descriptors';

export interface HelloMessage {
  version: number;
  minVersion: number;
  product: string;
  /** 32 hexadecimal digits; empty in the destination's answer. */
  identity: string;
  channel: ConnectionKind;
  /** From 1 on for page connections, else 0. */
  index: number;
  /** How page data is stored on a page connection; none when it does not say. */
  compression?: string;
}

export const MOST_PAGE_CONNECTIONS = 16;

const PRODUCT = 'vhost-net';
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
  #keepAlive: NodeJS.Timeout | null = null;
  #sentAt = 0;
  #heardAt = 0;
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
    this.#signal?.addEventListener('abort', () => this.#wake(), { once: true });
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  /** The source's side of the greeting: names the stream, then both seed their checksums with that name. */
  async greet(
    identity: Uint8Array = randomBytes(16),
    channel: ConnectionKind = 'control',
    index = 0,
    compression = 'none',
  ): Promise<HelloMessage> {
    await this.#sendHello(Buffer.from(identity).toString('hex'), channel, index, compression);
    const hello = await this.#receiveHello();
    this.#seed = streamSeed(identity);
    return hello;
  }

  /** The destination's side of the greeting. */
  async answer(): Promise<HelloMessage> {
    const hello = await this.#receiveHello();
    if (typeof hello.identity !== 'string' || !/^[0-9a-f]{32}$/.test(hello.identity)) {
      throw new ProtocolError('HELLO has no stream identity', FRAME_HEADER_SIZE, '32 hexadecimal digits');
    }
    await this.#sendHello('', hello.channel, hello.index);
    this.#seed = streamSeed(Buffer.from(hello.identity, 'hex'));
    return hello;
  }

  async #sendHello(identity: string, channel: ConnectionKind, index: number, compression = 'none'): Promise<void> {
    const hello: HelloMessage = {
      version: STREAM_VERSION,
      minVersion: STREAM_MIN_VERSION,
      product: PRODUCT,
      identity,
      channel,
      index,
      ...(compression === 'none' ? {} : { compression }),
    };
    await this.sendJson(FrameType.HELLO, hello);
  }

  async #receiveHello(): Promise<HelloMessage> {
    const value = this.parseJson<unknown>(await this.#receiveFirst());
    if (!isObject(value)) throw new ProtocolError('HELLO', FRAME_HEADER_SIZE, 'a JSON object');
    const hello = value as unknown as HelloMessage;
    if (!(hello.version >= STREAM_MIN_VERSION && hello.minVersion <= STREAM_VERSION)) {
      throw new ProtocolError(
        `HELLO speaks versions ${hello.minVersion} to ${hello.version}`,
        FRAME_HEADER_SIZE,
        `one of ${STREAM_MIN_VERSION} to ${STREAM_VERSION}`,
      );
    }
    const { channel, index } = hello;
    const most = channel === 'pages' ? MOST_PAGE_CONNECTIONS : 0;
    const known = channel === 'control' || channel === 'pages' || channel === 'descriptors';
    if (!known || !Number.isInteger(index) || index > most || index < Math.min(most, 1)) {
      throw new ProtocolError(
        `HELLO is for channel ${channel} ${index}`,
        FRAME_HEADER_SIZE,
        `control 0, descriptors 0, or pages 1 to ${MOST_PAGE_CONNECTIONS}`,
      );
    }
    return hello;
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
    this.#signal = undefined;
  }

  /** Frames of this type go to `handler` as they arrive, whatever is being waited for, in their order among all that have handlers. */
  on(type: FrameType, handler: (frame: Frame) => void): void {
    this.#handlers.set(type, handler);
  }

  /** From now on: says something now and then, and ends the channel when nothing was heard of the peer for so long. Milliseconds. */
  keepAlive(deadAfterMs: number): void {
    const now = performance.now();
    this.#heardAt = now;
    this.#sentAt = now;
    this.#startPumping();
    const every = deadAfterMs / 5;
    this.#keepAlive = setInterval(() => this.#beat(every, deadAfterMs), every);
    this.#keepAlive.unref();
  }

  #beat(every: number, deadAfterMs: number): void {
    if (this.#failure !== undefined || this.#ended) {
      clearInterval(this.#keepAlive ?? undefined);
      return;
    }
    const now = performance.now();
    if (now - this.#sentAt >= every && !this.#stream.writableNeedDrain) this.#write(FrameType.KEEPALIVE, NOTHING);
    // What has come and is not read yet, for want of a reader or because this process stood still itself, was heard all the same.
    if (this.#stream.readableLength > 0) this.#heardAt = now;
    if (now - this.#heardAt <= deadAfterMs) return;
    setImmediate(() => {
      if (this.#stream.readableLength > 0 || this.#heardAt > now) return;
      this.#fail(
        new VhostError('VHOST_ERR_TIMEOUT', `nothing was heard of the peer for ${Math.round(now - this.#heardAt)} ms`, {
          hint: 'the peer, its host or the network is gone',
        }),
      );
    });
  }

  #fail(error: Error): void {
    this.#failure ??= error;
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
    this.#sentAt = performance.now();
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
      this.#heardAt = performance.now();
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

  /** Ends this side; what the peer still sends is thrown away, and a peer that does not end its side is not waited for. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#keepAlive !== null) clearInterval(this.#keepAlive);
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
    if (this.#keepAlive !== null) clearInterval(this.#keepAlive);
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

/** Ended by whoever waits for it. */
export function abortedError(doing: string, reason: unknown): VhostError {
  const why = reason instanceof Error ? reason.message : String(reason ?? 'aborted');
  return new VhostError('VHOST_ERR_ABORTED', `cancelled while ${doing}: ${why}`);
}

/** What a CANCEL or ERROR of the peer becomes. */
export function peerEnded(type: FrameType, payload: Buffer): VhostError {
  let reason = 'no reason given';
  try {
    reason = String((JSON.parse(payload.toString('utf8')) as { reason?: unknown }).reason ?? reason);
  } catch {
    // A peer that fails badly may not manage a reason; that it failed is what counts.
  }
  return type === FrameType.CANCEL
    ? new VhostError('VHOST_ERR_ABORTED', `the peer cancelled: ${reason}`)
    : new VhostError('VHOST_ERR_MIGRATION', `the peer failed: ${reason}`);
}
