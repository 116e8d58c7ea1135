/**
 * The numbered frame that ledgers account for: Ethernet II with EtherType 0x88B5, then little-endian
 *
 *     offset  type  field
 *     14      u32   magic, 'VHNF'
 *     18      u16   flow
 *     20      u16   length of the whole frame
 *     22      u32   sequence, from 0
 *     26      f64   time sent, microseconds of CLOCK_MONOTONIC
 *     34      u32   CRC-32 of the whole frame with these four bytes left out
 *     38            filling
 */
import { ETH_P_802_EX1, ETH_ZLEN } from '../constants/if-ether';
import { invalidArgument } from '../errors';
import { crc32 } from './crc32';
import { etherType, writeEthernet } from './ethernet';

const MAGIC = 0x464e4856;
const AT_MAGIC = 14;
const AT_FLOW = 18;
const AT_LENGTH = 20;
const AT_SEQUENCE = 22;
const AT_TIME = 26;
const AT_CRC = 34;
const AT_FILLING = 38;

export const MIN_TEST_FRAME = ETH_ZLEN;
export const MAX_TEST_FRAME = 65535;

/** One stretch of memory, as bytes and as words of any alignment. */
export interface FrameArea {
  readonly u8: Uint8Array;
  readonly view: DataView;
}

export function frameArea(u8: Uint8Array): FrameArea {
  return { u8, view: new DataView(u8.buffer, u8.byteOffset, u8.byteLength) };
}

export const FRAME_OK = 0;
/** Not one of these frames at all. */
export const FRAME_FOREIGN = 1;
/** One of these, with a wrong length or checksum. */
export const FRAME_CORRUPTED = 2;
export type FrameVerdict = typeof FRAME_OK | typeof FRAME_FOREIGN | typeof FRAME_CORRUPTED;

export function requireFrameSize(length: number): void {
  if (!Number.isInteger(length) || length < MIN_TEST_FRAME || length > MAX_TEST_FRAME) {
    throw invalidArgument(`a frame of ${length} bytes`, `${MIN_TEST_FRAME} to ${MAX_TEST_FRAME}`);
  }
}

/** Writes what all frames of a flow share; `stampFrame` does the rest for each. `addresses` holds both MAC addresses. */
export function prepareFrame(
  area: FrameArea,
  offset: number,
  length: number,
  flow: number,
  addresses: Uint8Array,
  destinationAt: number,
  sourceAt: number,
): void {
  writeEthernet(area.u8, offset, addresses, destinationAt, sourceAt, ETH_P_802_EX1);
  area.view.setUint32(offset + AT_MAGIC, MAGIC, true);
  area.view.setUint16(offset + AT_FLOW, flow, true);
  area.view.setUint16(offset + AT_LENGTH, length, true);
  for (let at = AT_FILLING; at < length; at++) area.u8[offset + at] = at;
}

/** Numbers, times and seals a prepared frame. */
export function stampFrame(area: FrameArea, offset: number, sequence: number, micros: number): void {
  area.view.setUint32(offset + AT_SEQUENCE, sequence, true);
  area.view.setFloat64(offset + AT_TIME, micros, true);
  sealFrame(area, offset, frameLength(area, offset));
}

/** A whole frame at once. */
export function encodeFrame(
  area: FrameArea,
  offset: number,
  length: number,
  flow: number,
  sequence: number,
  micros: number,
  addresses: Uint8Array,
  destinationAt: number,
  sourceAt: number,
): void {
  prepareFrame(area, offset, length, flow, addresses, destinationAt, sourceAt);
  stampFrame(area, offset, sequence, micros);
}

/** Computes the checksum anew, after a change to a frame that was sound. */
export function sealFrame(area: FrameArea, offset: number, length: number): void {
  area.view.setUint32(offset + AT_CRC, checksum(area.u8, offset, length), true);
}

/** Whether they claim to be one of these frames; says nothing of their soundness. */
export function isTestFrame(area: FrameArea, offset: number, length: number): boolean {
  if (length < AT_FILLING || etherType(area.u8, offset) !== ETH_P_802_EX1) return false;
  return area.view.getUint32(offset + AT_MAGIC, true) === MAGIC;
}

/** What the `length` bytes at `offset` are. Nothing outside them is read. */
export function checkFrame(area: FrameArea, offset: number, length: number): FrameVerdict {
  if (!isTestFrame(area, offset, length)) return FRAME_FOREIGN;
  if (frameLength(area, offset) !== length) return FRAME_CORRUPTED;
  return area.view.getUint32(offset + AT_CRC, true) === checksum(area.u8, offset, length) ? FRAME_OK : FRAME_CORRUPTED;
}

export const frameFlow = (area: FrameArea, offset: number): number => area.view.getUint16(offset + AT_FLOW, true);
export const frameLength = (area: FrameArea, offset: number): number => area.view.getUint16(offset + AT_LENGTH, true);
export const frameSequence = (area: FrameArea, offset: number): number =>
  area.view.getUint32(offset + AT_SEQUENCE, true);
/** Microseconds. */
export const frameTime = (area: FrameArea, offset: number): number => area.view.getFloat64(offset + AT_TIME, true);

function checksum(u8: Uint8Array, offset: number, length: number): number {
  return crc32(u8, offset + AT_FILLING, length - AT_FILLING, crc32(u8, offset, AT_CRC));
}
