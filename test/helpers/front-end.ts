/** A vhost-user front end by hand: says anything, well-formed or not, and hears what is answered. */
import { readdirSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { AF_UNIX } from '../../lib/constants/socket';
import { VHOST_USER_HDR_SIZE } from '../../lib/constants/vhost-user';
import { check } from '../../lib/errors';
import { StreamSocket } from '../../lib/host/socket';
import { type FdHandle, native } from '../../lib/native';
import { MessageChannel } from '../../lib/vhost-user/channel';
import { type Header, parseHeader } from '../../lib/vhost-user/header';
import { emitRequest } from '../../lib/vhost-user/message';
import { type PayloadKind, type Payloads, parsePayload } from '../../lib/vhost-user/payload';
import type { PayloadOf, RequestName } from '../../lib/vhost-user/requests';

const PATIENCE_MS = 5000;

export interface Answer {
  header: Header;
  payload: Uint8Array;
}

export interface AskOptions {
  fds?: readonly FdHandle[];
  needReply?: boolean;
}

export class FrontEnd {
  readonly #socket: StreamSocket;
  readonly #channel: MessageChannel;

  private constructor(socket: StreamSocket) {
    this.#socket = socket;
    this.#channel = new MessageChannel(socket, { checkSize: () => undefined });
  }

  static async connect(path: string): Promise<FrontEnd> {
    const socket = await StreamSocket.create(AF_UNIX, null);
    if (socket.connect({ host: path, port: 0 }) !== 'connected') throw new Error('not connected at once');
    return new FrontEnd(socket);
  }

  /** Says it, and waits for nothing. */
  async tell<Name extends RequestName>(name: Name, payload: PayloadOf<Name>, options: AskOptions = {}): Promise<void> {
    const { fds = [], needReply = false } = options;
    await this.#channel.send(emitRequest(name, payload, { needReply }), fds);
  }

  /** Says it, and waits for an answer of that kind. */
  async ask<Name extends RequestName, Kind extends PayloadKind>(
    name: Name,
    payload: PayloadOf<Name>,
    kind: Kind,
    options: AskOptions = {},
  ): Promise<Payloads[Kind]> {
    await this.tell(name, payload, options);
    return parsePayload(kind, (await this.answer()).payload);
  }

  /** Says it with need_reply: whether it was done. */
  async done<Name extends RequestName>(
    name: Name,
    payload: PayloadOf<Name>,
    fds: readonly FdHandle[] = [],
  ): Promise<boolean> {
    return (await this.ask(name, payload, 'u64', { fds, needReply: true })) === 0n;
  }

  /** Any bytes. */
  async raw(bytes: Uint8Array, fds: readonly FdHandle[] = []): Promise<void> {
    await this.#channel.send(bytes, fds);
  }

  /** The next answer. Fails when the back end closes instead. */
  async answer(): Promise<Answer> {
    const message = await within(this.#channel.receive(), 'an answer');
    if (message === null) throw new Error('the back end has closed');
    return { header: message.header, payload: message.payload };
  }

  /** Whether the back end closes before it says anything. */
  async closed(): Promise<boolean> {
    return (await within(this.#channel.receive(), 'the end')) === null;
  }

  /** Bytes of an answer that waits to be read, none expected: what a test asserts to be 0. */
  unread(): number {
    const bytes = new Uint8Array(VHOST_USER_HDR_SIZE);
    const got = native().socketReceiveDescriptors(this.#socket.handle, bytes, 0);
    return typeof got === 'number' ? 0 : got.bytes;
  }

  close(): void {
    this.#channel.close();
  }
}

export function headerOf(bytes: Uint8Array): Header {
  return parseHeader(new DataView(bytes.buffer, bytes.byteOffset, VHOST_USER_HDR_SIZE));
}

async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A file of memory, as front ends pass them. */
export function memfd(bytes: number): FdHandle {
  return check<FdHandle>(native().memfdCreate('front-end', bytes, 0), 'memfd_create');
}

/** Descriptors of this process, once those are closed that are about to be. */
export async function openDescriptors(): Promise<number> {
  for (let turn = 0; turn < 3; turn++) await nextTurn();
  return readdirSync('/proc/self/fd').length;
}
