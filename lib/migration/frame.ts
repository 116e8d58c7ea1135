/**
 * Frames of the migration stream: a 20-byte little-endian header, then the payload. docs/migration-stream.md has every byte.
 *
 * The checksum covers header and payload (of PAGES all but the data, which has hashes of its own) and is seeded with the stream's identity, so that a frame of another run does not pass;
 * the sequence number shows frames that were dropped, doubled or swapped.
 */
import { crc32 } from 'node:zlib';
import { ProtocolError } from '../errors';
import { pagesHeadLength } from './page-layout';

export const STREAM_MAGIC = 0x4d_4e_48_56; // "VHNM" in memory order
export const STREAM_VERSION = 2;
export const STREAM_MIN_VERSION = 2;

export const FRAME_HEADER_SIZE = 20;
/** No frame is larger; a length above it is a broken or foreign stream, refused before anything is allocated. */
export const FRAME_MAX_PAYLOAD = 16 * 1024 * 1024;

export const FrameType = {
  HELLO: 1,
  SETUP: 2,
  SETUP_ACK: 3,
  PAGES: 4,
  ROUND_END: 5,
  ROUND_ACK: 6,
  STATE: 7,
  READY: 8,
  GO: 9,
  RUNNING: 10,
  AUDIT: 11,
  END: 12,
  CANCEL: 13,
  ERROR: 14,
  LAYOUT: 15,
  OPEN: 16,
  OPENED: 17,
  FRAMES: 18,
  GROUP: 19,
  LAYOUT_ACK: 20,
  DRAINED: 21,
  KEEPALIVE: 22,
  PAGES_END: 23,
  SETTLED: 24,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

const NAMES = new Map<number, string>(Object.entries(FrameType).map(([name, type]) => [type, name]));

export function frameName(type: number): string {
  return NAMES.get(type) ?? `type ${type}`;
}

export interface FrameHeader {
  type: FrameType;
  sequence: number;
  length: number;
  checksum: number;
}

/** Seed of every checksum after HELLO: the CRC-32 of the stream's 16-byte identity. */
export function streamSeed(identity: Uint8Array): number {
  return crc32(identity);
}

/** Over header bytes 0 to 15 and what it covers of the payload. */
export function checksumOf(type: number, header: Uint8Array, payload: Uint8Array, seed: number): number {
  const covered = type === FrameType.PAGES ? payload.subarray(0, pagesHeadLength(payload)) : payload;
  const begun = crc32(header.subarray(0, FRAME_HEADER_SIZE - 4), seed);
  // zlib takes bytes without an address for the wish to begin anew, and answers 0; an empty array has one or not.
  return covered.byteLength === 0 ? begun : crc32(covered, begun);
}

/** The header of a frame; its checksum is computed over what is given here, so the payload must not change afterwards. */
export function encodeFrameHeader(type: FrameType, sequence: number, payload: Uint8Array, seed: number): Buffer {
  const header = Buffer.alloc(FRAME_HEADER_SIZE);
  header.writeUInt32LE(STREAM_MAGIC, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(0, 6);
  header.writeUInt32LE(sequence, 8);
  header.writeUInt32LE(payload.byteLength, 12);
  header.writeUInt32LE(checksumOf(type, header, payload, seed), 16);
  return header;
}

/** Everything of the header that can be checked before its payload is there. */
export function decodeFrameHeader(header: Uint8Array, offset: number, expectedSequence: number): FrameHeader {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const magic = view.getUint32(0, true);
  if (magic !== STREAM_MAGIC) {
    throw new ProtocolError(
      `frame ${expectedSequence} begins with 0x${magic.toString(16).padStart(8, '0')}`,
      offset,
      `a vhost-net migration stream (0x${STREAM_MAGIC.toString(16)})`,
    );
  }
  const type = view.getUint16(4, true);
  if (!NAMES.has(type)) {
    throw new ProtocolError(`frame ${expectedSequence} has ${frameName(type)}`, offset + 4, 'a known frame type');
  }
  const flags = view.getUint16(6, true);
  if (flags !== 0) throw new ProtocolError(`${frameName(type)} has flags 0x${flags.toString(16)}`, offset + 6, '0');
  const sequence = view.getUint32(8, true);
  if (sequence !== expectedSequence) {
    throw new ProtocolError(`${frameName(type)} has number ${sequence}`, offset + 8, `number ${expectedSequence}`);
  }
  const length = view.getUint32(12, true);
  if (length > FRAME_MAX_PAYLOAD) {
    throw new ProtocolError(`${frameName(type)} has ${length} bytes`, offset + 12, `at most ${FRAME_MAX_PAYLOAD}`);
  }
  return { type: type as FrameType, sequence, length, checksum: view.getUint32(16, true) };
}

/** Checks payload and header against the checksum that came with them. */
export function verifyFrame(
  rawHeader: Uint8Array,
  header: FrameHeader,
  payload: Uint8Array,
  seed: number,
  offset: number,
): void {
  const actual = checksumOf(header.type, rawHeader, payload, seed);
  if (actual !== header.checksum) {
    throw new ProtocolError(
      `${frameName(header.type)} (frame ${header.sequence}, ${header.length} bytes) has checksum 0x${header.checksum.toString(16)}`,
      offset,
      `0x${actual.toString(16)}: damaged, or a frame of another stream`,
    );
  }
}
