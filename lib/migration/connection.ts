/**
 * One connection of a migration: a stream for JavaScript, and the same connection as a descriptor for native calls, in this order or that,
 * but never both at once.
 */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { closedError, VhostError } from '../errors';
import { StreamSocket } from '../host/socket';
import type { FdHandle } from '../native';

export interface Connection {
  /** For JavaScript. It is made, and begins to read ahead, when it is first asked for; its end closes the connection. */
  readonly stream: Duplex;
  /** The connection itself, non-blocking; null under TLS, and once it was taken or closed. */
  readonly fd: FdHandle | null;
  /** Address of the other side; that of a UNIX listener at both ends, since who connects has none. */
  readonly peer: string;
  /**
   * Ends the use from JavaScript without ending the connection, and gives the descriptor away: whoever takes it closes it. Throws
   * VHOST_ERR_STATE when the stream holds bytes that it read ahead or has not sent, and under TLS.
   */
  takeFd(): FdHandle;
  /** Ends the connection at once. Idempotent. */
  close(): void;
}

export class SocketConnection implements Connection {
  readonly peer: string;
  #socket: StreamSocket | null;
  #stream: Socket | null = null;
  readonly #closeWithStream = (): void => this.close();

  constructor(socket: StreamSocket, peer: string) {
    this.#socket = socket;
    this.peer = peer;
  }

  get fd(): FdHandle | null {
    return this.#socket?.handle ?? null;
  }

  /** Whether JavaScript reads from it. */
  get streaming(): boolean {
    return this.#stream !== null;
  }

  get stream(): Socket {
    if (this.#stream === null) {
      if (this.#socket === null) throw closedError(`the connection with ${this.peer}`);
      this.#stream = this.#socket.stream();
      // Closing the stream's own descriptor ends nothing while there is another one.
      this.#stream.once('close', this.#closeWithStream);
    }
    return this.#stream;
  }

  takeFd(): FdHandle {
    if (this.#socket === null) throw closedError(`the connection with ${this.peer}`);
    if (this.#stream !== null) {
      const { readableLength, writableLength } = this.#stream;
      if (readableLength > 0) throw notNow(`${readableLength} bytes were read ahead of its last reader`);
      if (writableLength > 0) throw notNow(`${writableLength} bytes are not sent yet`);
      if (this.#stream.destroyed || this.#stream.readableEnded || this.#stream.writableEnded)
        throw notNow('its stream has ended');
      this.#stream.off('close', this.#closeWithStream);
      // The file stays open by the other descriptor, so that nothing is sent to the peer; reading stops within this call.
      this.#stream.destroy();
    }
    const { handle } = this.#socket;
    this.#socket = null;
    return handle;
  }

  close(): void {
    this.#socket?.close();
    this.#socket = null;
    this.#stream?.destroy();
  }
}

function notNow(why: string): VhostError {
  return new VhostError('VHOST_ERR_STATE', `the descriptor of a connection cannot be taken: ${why}`, {
    hint: 'take it between two messages, when the peer waits for an answer',
  });
}

/** A connection over a descriptor that was taken from one, or came from elsewhere; owns it. */
export function connectionOver(fd: FdHandle, peer: string): Connection {
  return new SocketConnection(new StreamSocket(fd), peer);
}
