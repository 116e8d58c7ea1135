/**
 * Connecting and listening for a migration, over TCP and UNIX sockets, with or without TLS. Nothing blocks, everything has a bound in time
 * and can be cancelled, and what fails leaves no descriptor and no file behind.
 */
import { isIPv6 } from 'node:net';
import * as so from '../constants/socket';
import { invalidArgument, reasonOf, VhostError } from '../errors';
import { StreamSocket } from '../host/socket';
import { WaitLimits, type WaitOptions } from '../host/wait-limits';
import { type Address, formatAddress, parseAddress } from './address';
import { type Connection, SocketConnection } from './connection';
import { checkDeadPeerMs, dial, resolve, tuneTcp } from './transport-dial';
import { AcceptLoop, bindUnix } from './transport-listen';
import { checkTlsOptions, secureClient, secureServer, type TlsOptions } from './transport-tls';

export interface TransportOptions extends WaitOptions {
  /** Longest wait for the connection and its TLS handshake, of each side. Milliseconds, default 10,000. */
  timeoutMs?: number | undefined;
  /** TCP: a peer of which nothing was heard for so long is taken for dead. Milliseconds, at least 2,000, default 10,000. */
  deadPeerMs?: number | undefined;
  /** Path of the network namespace whose addresses are meant; that of this process without. Names are resolved in this process's own. */
  netns?: string | undefined;
  tls?: TlsOptions | undefined;
}

export interface ListenOptions extends TransportOptions {
  /** Connections that wait to be taken. Default 32. */
  backlog?: number | undefined;
  /** A connection that did not come about, such as one with a wrong certificate. The listener goes on. */
  onError?: ((error: VhostError) => void) | undefined;
}

export interface Listener {
  /** Where it listens really: with the port that the kernel chose. */
  readonly address: string;
  /** Takes no more connections; those it gave stay. Idempotent. */
  close(): Promise<void>;
}

const DEFAULT_TIMEOUT_MS = 10_000;
const DEFAULT_DEAD_PEER_MS = 10_000;
const DEFAULT_BACKLOG = 32;

type SocketAddress = Address & { kind: 'tcp' | 'unix' };

function socketAddress(text: string): SocketAddress {
  const address = parseAddress(text);
  if (address.kind === 'file') {
    throw invalidArgument(`"${text}" is no connection`, 'saveToFile and restoreFromFile take files');
  }
  return address;
}

function checked({ deadPeerMs = DEFAULT_DEAD_PEER_MS, netns, tls }: TransportOptions) {
  checkDeadPeerMs(deadPeerMs);
  if (tls !== undefined) checkTlsOptions(tls);
  return { deadPeerMs, netns: netns ?? null, tls };
}

/** A connection with who listens at `address`. */
export async function connect(address: string, options: TransportOptions = {}): Promise<Connection> {
  const to = socketAddress(address);
  const { tls, ...socketOptions } = checked(options);
  const limits = new WaitLimits(`connecting to ${address}`, options, DEFAULT_TIMEOUT_MS);
  limits.throwIfOver();
  const socket = await dial(to, socketOptions, limits);
  const connection = new SocketConnection(socket, formatAddress(to));
  return tls === undefined ? connection : secureClient(connection, tls, to.kind === 'tcp' ? to.host : null, limits);
}

/** Gives `onConnection` every connection that comes, after its TLS handshake, until closed or aborted. */
export async function listen(
  address: string,
  options: ListenOptions,
  onConnection: (connection: Connection) => void,
): Promise<Listener> {
  const at = socketAddress(address);
  const { tls, netns, deadPeerMs } = checked(options);
  const limits = new WaitLimits(`listening at ${address}`, options, DEFAULT_TIMEOUT_MS);
  limits.throwIfOver();
  const bound =
    at.kind === 'unix'
      ? await bindUnix(at.path, netns, options.backlog ?? DEFAULT_BACKLOG)
      : await bindTcp(at, netns, options.backlog ?? DEFAULT_BACKLOG, limits);
  try {
    limits.throwIfOver();
  } catch (error) {
    bound.remove();
    bound.socket.close();
    throw error;
  }
  return new SocketListener(at, bound, { ...options, deadPeerMs, tls }, onConnection);
}

interface Bound {
  socket: StreamSocket;
  remove(): void;
}

async function bindTcp(
  address: Address & { kind: 'tcp' },
  netns: string | null,
  backlog: number,
  limits: WaitLimits,
): Promise<Bound> {
  // A name is listened at by its first address: who wants all of the host's says [::] or 0.0.0.0.
  const [name] = await resolve(address.host, address.port, limits);
  const socket = await StreamSocket.create(isIPv6(name!.host) ? so.AF_INET6 : so.AF_INET, netns);
  try {
    socket.setOption(so.SOL_SOCKET, so.SO_REUSEADDR, 1);
    socket.bind(name!);
    socket.listen(backlog);
    return { socket, remove: () => undefined };
  } catch (error) {
    socket.close();
    throw error instanceof VhostError ? notBound(error, address) : error;
  }
}

function notBound({ code, errno, syscall }: VhostError, address: Address): VhostError {
  const hints: Readonly<Record<string, string>> = {
    EADDRINUSE: 'another process listens there: choose another port, or 0 for any',
    EADDRNOTAVAIL: 'the address is none of this host, or of the network namespace given',
    EACCES: 'ports below 1024 need CAP_NET_BIND_SERVICE',
  };
  const path = formatAddress(address);
  const hint = hints[code];
  return new VhostError(code, `${code}: ${syscall} '${path}'`, {
    ...(errno === undefined ? {} : { errno }),
    ...(syscall === undefined ? {} : { syscall }),
    path,
    ...(hint === undefined ? {} : { hint }),
  });
}

type CheckedListenOptions = ListenOptions & { deadPeerMs: number };

class SocketListener implements Listener {
  readonly address: string;
  readonly #bound: Bound;
  readonly #options: CheckedListenOptions;
  readonly #onConnection: (connection: Connection) => void;
  readonly #loop: AcceptLoop;
  /** Ends the handshakes that are under way at the close. */
  readonly #closing = new AbortController();
  readonly #onAbort = (): void => void this.close();
  #closed = false;

  constructor(
    at: SocketAddress,
    bound: Bound,
    options: CheckedListenOptions,
    onConnection: (connection: Connection) => void,
  ) {
    const { host, port } = bound.socket.localName;
    this.address = formatAddress(at.kind === 'unix' ? at : { kind: 'tcp', host, port });
    this.#bound = bound;
    this.#options = options;
    this.#onConnection = onConnection;
    this.#loop = new AcceptLoop(
      bound.socket,
      (socket) => void this.#take(socket),
      (error) => options.onError?.(error),
    );
    options.signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  async #take(socket: StreamSocket): Promise<void> {
    let connection: Connection | undefined;
    try {
      const plain = this.#accepted(socket);
      connection = plain;
      const { tls, timeoutMs } = this.#options;
      if (tls !== undefined) {
        const limits = new WaitLimits(
          `TLS handshake with ${plain.peer}`,
          { timeoutMs, signal: this.#closing.signal },
          DEFAULT_TIMEOUT_MS,
        );
        connection = await secureServer(plain, tls, limits);
      }
      if (this.#closed) throw new VhostError('VHOST_ERR_CLOSED', 'the listener was closed meanwhile');
      this.#onConnection(connection);
    } catch (error) {
      connection?.close();
      socket.close();
      if (!this.#closed) this.#options.onError?.(asVhostError(error));
    }
  }

  #accepted(socket: StreamSocket): SocketConnection {
    if (this.address.startsWith('unix:')) return new SocketConnection(socket, this.address);
    const { host, port } = socket.peerName;
    tuneTcp(socket, this.#options.deadPeerMs);
    return new SocketConnection(socket, formatAddress({ kind: 'tcp', host, port }));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#loop.stop();
    this.#closing.abort(new Error('the listener is closed'));
    // The file first: a name that is still there without a listener looks like one of a process that died.
    this.#bound.remove();
    this.#bound.socket.close();
  }
}

function asVhostError(error: unknown): VhostError {
  if (error instanceof VhostError) return error;
  const message = reasonOf(error);
  return new VhostError('VHOST_ERR_MIGRATION', `a connection was given up: ${message}`, { cause: error });
}
