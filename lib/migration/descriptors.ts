/**
 * Descriptors over a UNIX connection, with some bytes that say what they are. Little-endian:
 *
 *     u32 magic | u32 descriptors | u32 bytes | the bytes | one zero byte for each further message
 *
 * A message of the kernel carries up to 253 descriptors, which go with its first byte: the first message holds everything but the zero
 * bytes, each of which brings up to 250 more.
 */

import { closeAll, EMFILE, noNumbers } from '../descriptors';
import { check, invalidArgument, ProtocolError, VhostError } from '../errors';
import { READABLE, StreamSocket, WRITABLE, whenReady } from '../host/socket';
import { WaitLimits, type WaitOptions } from '../host/wait-limits';
import { type FdHandle, native } from '../native';
import { type Connection, SocketConnection } from './connection';

const MAGIC = 0x44_46_48_56; // "VHFD" in memory order
const HEADER = 12;
/** Below SCM_MAX_FD, as a round number. */
const PER_MESSAGE = 250;
/** Bytes beside the descriptors. */
const MOST_BYTES = 65_536;
/** More than any guest has regions, queues and devices. */
const MOST_DESCRIPTORS = 65_536;
const DEFAULT_TIMEOUT_MS = 10_000;
const [EAGAIN, EMSGSIZE] = [-11, -90];

export interface ReceivedDescriptors {
  bytes: Buffer;
  /** In the order in which they were given; the receiver closes them. */
  fds: FdHandle[];
}

/**
 * Sends bytes and descriptors, which stay the caller's. `over` is a connection whose stream has sent all it was given, or a descriptor
 * taken from one.
 */
export async function sendDescriptors(
  over: Connection | FdHandle,
  bytes: Uint8Array,
  fds: readonly FdHandle[],
  options: WaitOptions = {},
): Promise<void> {
  if (bytes.length > MOST_BYTES)
    throw invalidArgument(`${bytes.length} bytes beside descriptors, at most ${MOST_BYTES}`);
  if (fds.length > MOST_DESCRIPTORS) throw invalidArgument(`${fds.length} descriptors, at most ${MOST_DESCRIPTORS}`);
  const socket = descriptorOf(over, 'send');
  const limits = new WaitLimits('sending descriptors', options, DEFAULT_TIMEOUT_MS);
  const first = Buffer.alloc(HEADER + bytes.length);
  first.writeUInt32LE(MAGIC, 0);
  first.writeUInt32LE(fds.length, 4);
  first.writeUInt32LE(bytes.length, 8);
  first.set(bytes, HEADER);
  await sendMessage(socket, first, fds.slice(0, PER_MESSAGE), limits);
  for (let at = PER_MESSAGE; at < fds.length; at += PER_MESSAGE) {
    await sendMessage(socket, Buffer.alloc(1), fds.slice(at, at + PER_MESSAGE), limits);
  }
}

async function sendMessage(socket: FdHandle, bytes: Buffer, fds: FdHandle[], limits: WaitLimits): Promise<void> {
  let left = bytes;
  // They go along with the first byte that is taken, and must not go twice.
  let along = fds;
  while (left.length > 0) {
    limits.throwIfOver();
    const sent = native().socketSendDescriptors(socket, left, along);
    if (sent === EAGAIN) {
      await whenReady(socket, WRITABLE, limits);
      continue;
    }
    left = left.subarray(check(sent, 'sendmsg'));
    along = [];
  }
}

/**
 * Receives what one sendDescriptors sent, with at most `most` descriptors. Reads nothing of what follows. `over` is a connection whose
 * stream was not asked for yet, or a descriptor taken from one. A failure leaves every descriptor that came closed.
 */
export async function receiveDescriptors(
  over: Connection | FdHandle,
  most: number,
  options: WaitOptions = {},
): Promise<ReceivedDescriptors> {
  if (!(Number.isInteger(most) && most >= 0 && most <= MOST_DESCRIPTORS)) {
    throw invalidArgument(`most ${most}: 0 to ${MOST_DESCRIPTORS}`);
  }
  const socket = descriptorOf(over, 'receive');
  const limits = new WaitLimits('receiving descriptors', options, DEFAULT_TIMEOUT_MS);
  const reader = new Reader(socket, most, limits);
  try {
    const header = await reader.read(HEADER);
    const magic = header.readUInt32LE(0);
    const count = header.readUInt32LE(4);
    const length = header.readUInt32LE(8);
    if (magic !== MAGIC)
      throw new ProtocolError(`descriptors begin with 0x${magic.toString(16)}`, 0, `0x${MAGIC.toString(16)}`);
    if (count > most) throw new ProtocolError(`${count} descriptors are announced`, 4, `at most ${most}`);
    if (length > MOST_BYTES) throw new ProtocolError(`${length} bytes beside descriptors`, 8, `at most ${MOST_BYTES}`);
    const bytes = await reader.read(length);
    for (let at = PER_MESSAGE; at < count; at += PER_MESSAGE) await reader.read(1);
    if (reader.fds.length !== count) {
      throw new ProtocolError(`${reader.fds.length} descriptors came`, reader.offset, `${count}, as announced`);
    }
    return { bytes, fds: reader.fds };
  } catch (error) {
    closeAll(reader.fds);
    throw error;
  }
}

class Reader {
  readonly fds: FdHandle[] = [];
  offset = 0;

  constructor(
    readonly socket: FdHandle,
    readonly most: number,
    readonly limits: WaitLimits,
  ) {}

  /** Exactly so many bytes: no byte, and no descriptor, of anything that comes after. */
  async read(length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    let at = 0;
    while (at < length) {
      this.limits.throwIfOver();
      const room = Math.min(PER_MESSAGE, this.most - this.fds.length);
      const got = native().socketReceiveDescriptors(this.socket, bytes.subarray(at), room);
      if (got === EAGAIN) {
        await whenReady(this.socket, READABLE, this.limits);
        continue;
      }
      if (got === EMSGSIZE)
        throw new ProtocolError('more descriptors came than fit', this.offset, `at most ${room} here`);
      if (got === EMFILE) throw noNumbers();
      const { bytes: count, fds } = check<{ bytes: number; fds: FdHandle[] }>(got, 'recvmsg');
      this.fds.push(...fds);
      if (count === 0) {
        throw new ProtocolError(`the stream ends after ${at} of ${length} bytes`, this.offset, 'descriptors');
      }
      at += count;
      this.offset += count;
    }
    return bytes;
  }
}

function descriptorOf(over: Connection | FdHandle, doing: 'send' | 'receive'): FdHandle {
  const peer = isConnection(over) ? over.peer : 'that descriptor';
  const fd = isConnection(over) ? over.fd : over;
  if (fd === null) {
    throw new VhostError('VHOST_ERR_STATE', `the connection with ${peer} cannot carry descriptors`, {
      hint: 'it must be an open UNIX connection without TLS',
    });
  }
  if (!new StreamSocket(fd).isUnix)
    throw invalidArgument(`descriptors cannot be passed over ${peer}`, 'use a UNIX socket');
  // The stream would read the bytes, and the kernel throw away the descriptors that came with them.
  if (over instanceof SocketConnection && over.streaming && (doing === 'receive' || over.stream.writableLength > 0)) {
    throw new VhostError('VHOST_ERR_STATE', `cannot ${doing} descriptors while the stream of ${peer} is in use`, {
      hint: 'take the descriptor with takeFd() first; connectionOver() makes a connection of it again',
    });
  }
  return fd;
}

function isConnection(over: Connection | FdHandle): over is Connection {
  return typeof (over as Partial<Connection>).takeFd === 'function';
}
