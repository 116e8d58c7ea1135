/**
 * One direction-pair of a migration over any Duplex: writes numbered, checksummed frames with back-pressure, reads them back one at a
 * time, and turns every way a connection can end into an error that names what was expected.
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

export interface Frame {
  readonly type: FrameType;
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
}

export interface HelloMessage {
  version: number;
  minVersion: number;
  product: string;
  /** 32 hexadecimal digits; empty in the destination's answer. */
  identity: string;
}

const PRODUCT = 'vhost-net';
/** How long a closed channel waits for the peer to close. */
const LINGER_MS = 1000;

export class Channel {
  readonly #stream: Duplex;
  readonly #timeoutMs: number;
  #signal: AbortSignal | undefined;
  #sendSequence = 0;
  #receiveSequence = 0;
  #seed = 0;
  #failure: Error | undefined;
  #ended = false;
  readonly #waiters = new Set<() => void>();
  bytesSent = 0;
  bytesReceived = 0;

  constructor(stream: Duplex, options: ChannelOptions = {}) {
    this.#stream = stream;
    this.#timeoutMs = options.timeoutMs ?? 30_000;
    this.#signal = options.signal;
    if (options.seed !== undefined) {
      this.#seed = options.seed;
      this.#sendSequence = 1;
      this.#receiveSequence = 1;
    }
    const wake = (): void => {
      for (const waiter of [...this.#waiters]) waiter();
    };
    stream.on('error', (error) => {
      this.#failure ??= error;
      wake();
    });
    for (const event of ['end', 'close']) {
      stream.on(event, () => {
        this.#ended = true;
        wake();
      });
    }
    stream.on('readable', wake);
    stream.on('drain', wake);
    this.#signal?.addEventListener('abort', wake, { once: true });
  }

  /** The source's side of the greeting: names the stream, then both seed their checksums with that name. */
  async greet(): Promise<HelloMessage> {
    const identity = randomBytes(16);
    await this.#sendHello(identity.toString('hex'));
    const hello = await this.#receiveHello();
    this.#seed = streamSeed(identity);
    return hello;
  }

  /** The destination's side of the greeting. */
  async answer(): Promise<HelloMessage> {
    const hello = await this.#receiveHello();
    if (!/^[0-9a-f]{32}$/.test(hello.identity)) {
      throw new ProtocolError('HELLO has no stream identity', FRAME_HEADER_SIZE, '32 hexadecimal digits');
    }
    await this.#sendHello('');
    this.#seed = streamSeed(Buffer.from(hello.identity, 'hex'));
    return hello;
  }

  async #sendHello(identity: string): Promise<void> {
    const hello: HelloMessage = { version: STREAM_VERSION, minVersion: STREAM_MIN_VERSION, product: PRODUCT, identity };
    await this.sendJson(FrameType.HELLO, hello);
  }

  async #receiveHello(): Promise<HelloMessage> {
    const hello = await this.receiveJson<HelloMessage>(FrameType.HELLO);
    if (!(hello.version >= STREAM_MIN_VERSION && hello.minVersion <= STREAM_VERSION)) {
      throw new ProtocolError(
        `HELLO speaks versions ${hello.minVersion} to ${hello.version}`,
        FRAME_HEADER_SIZE,
        `one of ${STREAM_MIN_VERSION} to ${STREAM_VERSION}`,
      );
    }
    return hello;
  }

  /** From here on an abort no longer ends anything: the decision was made and the peer may act on it. */
  commit(): void {
    this.#signal = undefined;
  }

  async sendJson(type: FrameType, message: unknown): Promise<void> {
    await this.send(type, Buffer.from(JSON.stringify(message)));
  }

  /** Sends one frame; `payload` must not change until this resolves and the stream has taken it, so pages are given as copies. */
  async send(type: FrameType, payload: Uint8Array): Promise<void> {
    this.#throwIfUnusable(`sending ${frameName(type)}`);
    const header = encodeFrameHeader(type, this.#sendSequence++, payload, this.#seed);
    this.bytesSent += header.byteLength + payload.byteLength;
    this.#stream.cork();
    this.#stream.write(header);
    if (payload.byteLength > 0) this.#stream.write(payload);
    this.#stream.uncork();
    const doing = `sending ${frameName(type)}`;
    while (this.#stream.writableNeedDrain) {
      // A peer that says something now has given up, and takes nothing more: hear it out instead of waiting for room.
      if (this.#stream.readableLength >= FRAME_HEADER_SIZE) await this.receive([]);
      if (this.#ended) throw this.#lost(doing, this.#failure);
      await this.#wait(doing, this.#timeoutMs);
    }
  }

  /** The next frame, which must be of one of `types`; CANCEL and ERROR of the peer become errors here, whatever was expected. */
  async receive(types: readonly FrameType[], timeoutMs = this.#timeoutMs): Promise<Frame> {
    const what = types.map(frameName).join(' or ');
    const offset = this.bytesReceived;
    const rawHeader = await this.#read(FRAME_HEADER_SIZE, what, timeoutMs);
    const header: FrameHeader = decodeFrameHeader(rawHeader, offset, this.#receiveSequence);
    const payload =
      header.length === 0 ? Buffer.alloc(0) : await this.#read(header.length, frameName(header.type), timeoutMs);
    verifyFrame(rawHeader, header, payload, this.#seed, offset);
    this.#receiveSequence++;
    if (!types.includes(header.type)) {
      if (header.type === FrameType.CANCEL || header.type === FrameType.ERROR) throw peerEnded(header.type, payload);
      throw new ProtocolError(`${frameName(header.type)} (frame ${header.sequence})`, offset, what);
    }
    return { type: header.type, payload, offset };
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
    if (this.#failure !== undefined || this.#stream.destroyed || !this.#stream.writable) return;
    const payload = Buffer.from(JSON.stringify({ reason }));
    const header = encodeFrameHeader(type, this.#sendSequence++, payload, this.#seed);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 1000);
      this.#stream.write(Buffer.concat([header, payload]), () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  /** Ends this side; what the peer still sends is thrown away, and a peer that does not end its side is not waited for. */
  close(): void {
    if (!this.#stream.writable || this.#failure !== undefined) {
      this.#stream.destroy();
      return;
    }
    this.#stream.end();
    this.#stream.resume();
    setTimeout(() => this.#stream.destroy(), LINGER_MS).unref();
  }

  destroy(): void {
    this.#stream.destroy();
  }

  /** For work that waits for nothing on the stream. */
  throwIfAborted(doing: string): void {
    if (this.#signal?.aborted === true) throw abortedError(doing, this.#signal.reason);
  }

  #throwIfUnusable(doing: string): void {
    this.throwIfAborted(doing);
    if (this.#failure !== undefined) throw this.#lost(doing, this.#failure);
    if (this.#stream.destroyed) throw this.#lost(doing, undefined);
  }

  #lost(doing: string, cause: unknown): VhostError {
    const why = cause instanceof Error ? cause.message : 'the connection is closed';
    return new VhostError('VHOST_ERR_MIGRATION', `connection lost while ${doing}: ${why}`, { cause });
  }

  /** Exactly `length` bytes; the stream buffers them and gives them in one piece. */
  async #read(length: number, what: string, timeoutMs: number): Promise<Buffer> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const chunk = this.#stream.read(length) as Buffer | null;
      if (chunk !== null) {
        if (chunk.byteLength < length) throw this.#truncated(what, length, chunk.byteLength);
        this.bytesReceived += length;
        return chunk;
      }
      if (this.#ended) throw this.#truncated(what, length, this.#stream.readableLength);
      this.#throwIfUnusable(`waiting for ${what}`);
      await this.#wait(`waiting for ${what}`, Math.max(0, deadline - Date.now()));
    }
  }

  #truncated(what: string, expected: number, got: number): ProtocolError {
    return new ProtocolError(
      `the stream ends after ${got} of ${expected} bytes`,
      this.bytesReceived + got,
      what,
      this.#failure === undefined ? {} : { cause: this.#failure },
    );
  }

  /** Until something happened on the stream, or an error: aborted, failed, or nothing within the bound. */
  async #wait(doing: string, timeoutMs: number): Promise<void> {
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
      throw new VhostError('VHOST_ERR_TIMEOUT', `${doing}: nothing for ${timeoutMs} ms`, {
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
