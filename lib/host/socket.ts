/**
 * A stream socket of our own making. Node's net.Socket does not tell its descriptor, and some of a migration's connections are read and
 * written natively, or carry descriptors: so sockets are made here, and wrapped for JavaScript where they are used there.
 */
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { AF_UNIX, SO_DOMAIN, SO_ERROR, SOCK_STREAM, SOL_SOCKET } from '../constants/socket';
import { check, closedError, systemError } from '../errors';
import { type FdHandle, native, type PollHandle } from '../native';
import type { WaitLimits } from './wait-limits';

export const READABLE = 1;
export const WRITABLE = 2;
const EAGAIN = -11;
const EINPROGRESS = -115;

/** A literal address and a port, or a path or `@name` and port 0. */
export interface SocketName {
  host: string;
  port: number;
}

/** Resolves when the descriptor is ready for one of `events` (READABLE, WRITABLE), or has failed, which the next call on it tells. */
export async function whenReady(fd: FdHandle, events: number, limits: WaitLimits, atMostMs?: number): Promise<void> {
  let poll: PollHandle | undefined;
  const ready = new Promise<void>((resolve) => {
    poll = check<PollHandle>(
      native().pollStart(fd, events, () => resolve()),
      'epoll_ctl',
    );
  });
  try {
    await limits.within(ready, atMostMs);
  } finally {
    if (poll !== undefined) native().pollStop(poll);
  }
}

export class StreamSocket {
  /** For calls into the addon; non-blocking. */
  readonly handle: FdHandle;
  readonly #native = native();

  constructor(handle: FdHandle) {
    this.handle = handle;
  }

  /** @param family AF_UNIX, AF_INET or AF_INET6. @param netns path of the network namespace that it belongs to; null for this process's. */
  static async create(family: number, netns: string | null, type = SOCK_STREAM): Promise<StreamSocket> {
    return new StreamSocket(
      check<FdHandle>(await native().socketCreate(netns, family, type), 'socket', netns ?? undefined),
    );
  }

  /** Two that are connected with each other. */
  static pair(): [StreamSocket, StreamSocket] {
    const [one, other] = check<[FdHandle, FdHandle]>(native().socketPair(), 'socketpair');
    return [new StreamSocket(one), new StreamSocket(other)];
  }

  bind({ host, port }: SocketName): void {
    check(this.#native.socketBind(this.handle, host, port), 'bind', host);
  }

  listen(backlog: number): void {
    check(this.#native.socketListen(this.handle, backlog), 'listen');
  }

  /** Null when none waits. */
  accept(): StreamSocket | null {
    const accepted = this.#native.socketAccept(this.handle);
    return accepted === EAGAIN ? null : new StreamSocket(check<FdHandle>(accepted, 'accept'));
  }

  /** `pending`: writable once it is connected or has failed. `full`: the listener of a UNIX socket takes no more just now. */
  connect({ host, port }: SocketName): 'connected' | 'pending' | 'full' {
    const result = this.#native.socketConnect(this.handle, host, port);
    if (result === EINPROGRESS) return 'pending';
    if (result === EAGAIN) return 'full';
    check(result, 'connect', host);
    return 'connected';
  }

  /** What a pending connect has come to. */
  throwIfFailed(path: string): void {
    const errno = this.option(SOL_SOCKET, SO_ERROR);
    if (errno !== 0) throw systemError(-errno, 'connect', path);
  }

  get localName(): SocketName {
    return check<SocketName>(this.#native.socketLocalName(this.handle), 'getsockname');
  }

  get peerName(): SocketName {
    return check<SocketName>(this.#native.socketPeerName(this.handle), 'getpeername');
  }

  get isUnix(): boolean {
    return this.option(SOL_SOCKET, SO_DOMAIN) === AF_UNIX;
  }

  option(level: number, name: number): number {
    return check(this.#native.socketGetOption(this.handle, level, name), 'getsockopt');
  }

  setOption(level: number, name: number, value: number): void {
    check(this.#native.socketSetOption(this.handle, level, name, value), 'setsockopt');
  }

  /** The same connection for JavaScript, by a descriptor of its own. It begins to read at once. */
  stream(): Socket {
    const duplicate = this.#native.fdDup(this.handle);
    if (typeof duplicate === 'number' && this.#native.fdNumber(this.handle) < 0) throw closedError('the socket');
    const fd = check(this.#native.fdRelease(check<FdHandle>(duplicate, 'fcntl')), 'fcntl');
    try {
      return new Socket({ fd, readable: true, writable: true });
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Idempotent. */
  close(): void {
    this.#native.fdClose(this.handle);
  }
}
