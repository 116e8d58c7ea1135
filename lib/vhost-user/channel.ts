/** Messages over one UNIX socket, one after the other, with the descriptors that come along: framing only, either direction. */
import { VHOST_MEMORY_BASELINE_NREGIONS, VHOST_USER_HDR_SIZE } from '../constants/vhost-user';
import { closeAll, EMFILE, noNumbers } from '../descriptors';
import { check, ProtocolError, VhostError } from '../errors';
import { READABLE, type StreamSocket, WRITABLE, whenReady } from '../host/socket';
import { WaitLimits } from '../host/wait-limits';
import { type FdHandle, native } from '../native';
import { type Header, parseHeader } from './header';

const EAGAIN = -11;
const ECONNRESET = -104;
const EMSGSIZE = -90;
/** How long the rest of a message that has begun may take, and an answer to leave. Milliseconds. */
const MESSAGE_MS = 10_000;
/** A peer may be silent for any time between messages; the wait is renewed so often. Milliseconds. */
const IDLE_MS = 3_600_000;

/** A message as it came. Whoever takes it closes the descriptors. */
export interface RawMessage {
  readonly header: Header;
  readonly payload: Uint8Array;
  readonly fds: FdHandle[];
}

export interface ChannelOptions {
  /** Throws for a header whose payload is not to be read: before there is room for it. */
  checkSize(header: Header): void;
  /** Ends every wait. */
  signal?: AbortSignal | undefined;
}

export class MessageChannel {
  readonly #socket: StreamSocket;
  readonly #options: ChannelOptions;

  /** The socket is the channel's from now on. */
  constructor(socket: StreamSocket, options: ChannelOptions) {
    this.#socket = socket;
    this.#options = options;
  }

  /**
   * The next message, however long it takes to come; null when the peer has closed between two messages. Throws VHOST_ERR_PROTOCOL for a
   * message that cannot be, that is cut off, or that brings more than 8 descriptors or some in its middle; VHOST_ERR_TIMEOUT for one that does
   * not go on. Of a message that is thrown for, no descriptor stays open.
   */
  async receive(): Promise<RawMessage | null> {
    const fds: FdHandle[] = [];
    try {
      const head = new Uint8Array(VHOST_USER_HDR_SIZE);
      if (!(await this.#read(head, fds, true))) return null;
      const header = parseHeader(new DataView(head.buffer));
      this.#options.checkSize(header);
      const payload = new Uint8Array(header.size);
      await this.#read(payload, fds, false);
      return { header, payload, fds };
    } catch (error) {
      closeAll(fds);
      throw error;
    }
  }

  /** Fills `target`. Descriptors come with the first byte of a message. Answers false at the end of the stream before that byte. */
  async #read(target: Uint8Array, fds: FdHandle[], begins: boolean): Promise<boolean> {
    let limits: WaitLimits | null = begins ? null : this.#limits();
    for (let at = 0; at < target.length; ) {
      const most = begins && at === 0 ? VHOST_MEMORY_BASELINE_NREGIONS : 0;
      const got = native().socketReceiveDescriptors(this.#socket.handle, target.subarray(at), most);
      if (got === EAGAIN) {
        if (limits === null) await this.#idle();
        else await whenReady(this.#socket.handle, READABLE, limits);
        continue;
      }
      if (got === EMSGSIZE) throw new ProtocolError('more descriptors than a message has', at, `at most ${most} here`);
      if (got === EMFILE) throw noNumbers();
      // A peer that dies with answers unread ends the stream like this.
      const ended = got === ECONNRESET;
      const { bytes, fds: more } = ended
        ? { bytes: 0, fds: [] }
        : check<{ bytes: number; fds: FdHandle[] }>(got, 'recvmsg');
      fds.push(...more);
      if (bytes === 0) {
        if (begins && at === 0) return false;
        throw new ProtocolError('the connection ends inside a message', at, `${target.length} bytes`);
      }
      at += bytes;
      limits ??= this.#limits();
    }
    return true;
  }

  #limits(): WaitLimits {
    return new WaitLimits('waiting for the rest of a message', { signal: this.#options.signal }, MESSAGE_MS);
  }

  async #idle(): Promise<void> {
    const limits = new WaitLimits('waiting for a message', { signal: this.#options.signal }, IDLE_MS);
    try {
      await whenReady(this.#socket.handle, READABLE, limits);
    } catch (error) {
      if (!(error instanceof VhostError && error.code === 'VHOST_ERR_TIMEOUT')) throw error;
    }
  }

  /** Sends a whole message; `fds` go with its first byte and stay the caller's. */
  async send(message: Uint8Array, fds: readonly FdHandle[] = []): Promise<void> {
    const limits = new WaitLimits('sending a message', { signal: this.#options.signal }, MESSAGE_MS);
    for (let at = 0; at < message.length; ) {
      const along = at === 0 ? [...fds] : [];
      const sent = native().socketSendDescriptors(this.#socket.handle, message.subarray(at), along);
      if (sent === EAGAIN) await whenReady(this.#socket.handle, WRITABLE, limits);
      else at += check<number>(sent, 'sendmsg');
    }
  }

  /** Idempotent. */
  close(): void {
    this.#socket.close();
  }
}
