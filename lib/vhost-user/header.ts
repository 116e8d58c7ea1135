/** The header before every message (vhost-user specification, "Header"): fields in place, and the whole of it, validated. */
import {
  VHOST_USER_HDR_SIZE,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_REPLY_MASK,
  VHOST_USER_VERSION,
  VHOST_USER_VERSION_MASK,
} from '../constants/vhost-user';
import { ProtocolError } from '../errors';

/** Offsets of the fields, u32 each. */
const REQUEST_AT = 0;
const FLAGS_AT = 4;
const SIZE_AT = 8;

export interface Header {
  /** What the sender wants, or what is answered. */
  readonly request: number;
  /** An answer to that request. */
  readonly reply: boolean;
  /** The sender waits for an answer even where the request has none of its own; only with REPLY_ACK. */
  readonly needReply: boolean;
  /** Bytes of payload that follow. */
  readonly size: number;
}

/** Any 12 bytes have these fields; whether they mean something is for `parseHeader` to say. */
export const requestField = (bytes: DataView): number => bytes.getUint32(REQUEST_AT, true);
export const flagsField = (bytes: DataView): number => bytes.getUint32(FLAGS_AT, true);
export const sizeField = (bytes: DataView): number => bytes.getUint32(SIZE_AT, true);

const KNOWN_FLAGS = VHOST_USER_VERSION_MASK | VHOST_USER_REPLY_MASK | VHOST_USER_NEED_REPLY_MASK;

/** Throws VHOST_ERR_PROTOCOL for another version, for flags that nobody has defined, and for an answer that wants one. */
export function parseHeader(bytes: DataView): Header {
  if (bytes.byteLength !== VHOST_USER_HDR_SIZE) {
    throw new ProtocolError(`a header of ${bytes.byteLength} bytes`, 0, `${VHOST_USER_HDR_SIZE}`);
  }
  const flags = flagsField(bytes);
  const version = flags & VHOST_USER_VERSION_MASK;
  if (version !== VHOST_USER_VERSION) {
    throw new ProtocolError(`version ${version} in flags 0x${flags.toString(16)}`, FLAGS_AT, `${VHOST_USER_VERSION}`);
  }
  // Above the sign bit too: flags are compared unsigned.
  if ((flags & ~KNOWN_FLAGS) >>> 0 !== 0) {
    throw new ProtocolError(`flags 0x${flags.toString(16)}`, FLAGS_AT, `bits of 0x${KNOWN_FLAGS.toString(16)}`);
  }
  const reply = (flags & VHOST_USER_REPLY_MASK) !== 0;
  const needReply = (flags & VHOST_USER_NEED_REPLY_MASK) !== 0;
  if (reply && needReply) throw new ProtocolError('an answer that wants an answer', FLAGS_AT, 'one of both flags');
  return { request: requestField(bytes), reply, needReply, size: sizeField(bytes) };
}

/** @returns 12 bytes. */
export function emitHeader({ request, reply, needReply, size }: Header): Uint8Array {
  const bytes = new Uint8Array(VHOST_USER_HDR_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(REQUEST_AT, request, true);
  view.setUint32(
    FLAGS_AT,
    VHOST_USER_VERSION | (reply ? VHOST_USER_REPLY_MASK : 0) | (needReply ? VHOST_USER_NEED_REPLY_MASK : 0),
    true,
  );
  view.setUint32(SIZE_AT, size, true);
  return bytes;
}
