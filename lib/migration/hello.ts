/** HELLO, the first frame of every connection: what the connection is for, and which attempt it belongs to. */
import { ProtocolError } from '../errors';
import { FRAME_HEADER_SIZE, STREAM_MIN_VERSION, STREAM_VERSION } from './frame';
import { isObject } from './json';

/** What a connection of a migration is for. */
export type ConnectionKind = 'control' | 'pages' | 'descriptors';

export const MOST_PAGE_CONNECTIONS = 16;
const PRODUCT = 'vhost-net';

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

export function helloMessage(
  identity: string,
  channel: ConnectionKind,
  index: number,
  compression = 'none',
): HelloMessage {
  return {
    version: STREAM_VERSION,
    minVersion: STREAM_MIN_VERSION,
    product: PRODUCT,
    identity,
    channel,
    index,
    ...(compression === 'none' ? {} : { compression }),
  };
}

/** Checks what came as HELLO. Throws ProtocolError. */
export function readHello(value: unknown): HelloMessage {
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

/** Throws ProtocolError unless a source has named its attempt. */
export function requireIdentity({ identity }: HelloMessage): Buffer {
  if (typeof identity !== 'string' || !/^[0-9a-f]{32}$/.test(identity)) {
    throw new ProtocolError('HELLO has no stream identity', FRAME_HEADER_SIZE, '32 hexadecimal digits');
  }
  return Buffer.from(identity, 'hex');
}
