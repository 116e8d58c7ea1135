/**
 * The numbered frame that ledgers account for: Ethernet II, an 802.1Q tag or none, and then one of two shapes. A raw frame has EtherType
 * 0x88B5 and the body behind it, at 14; a UDP frame has IPv4 and UDP headers first and its body at 42: whoever spreads flows over queues by
 * a hash can tell those apart, while all raw frames have one hash. A tag moves the rest by 4. The body, little-endian:
 *
 *     offset  type  field
 *     0       u32   magic, 'VHNF'
 *     4       u16   flow
 *     6       u16   length of the whole frame
 *     8       u32   sequence, from 0
 *     12      f64   time sent, microseconds of CLOCK_MONOTONIC
 *     20      u32   CRC-32 of the whole frame with these four bytes left out
 *     24            filling
 *
 * The UDP checksum is 0. With IPv4 identification 1 instead of 0 it is computed: then it covers the CRC, not the CRC it.
 */
import { ETH_HLEN, ETH_P_802_EX1, ETH_P_8021Q, ETH_P_IP, ETH_ZLEN, VLAN_HLEN } from '../constants/if-ether';
import { IPPROTO_UDP, IPV4_HLEN, IPV4_VERSION_IHL, UDP_HLEN } from '../constants/ip';
import { invalidArgument } from '../errors';
import { crc32 } from './crc32';
import { etherType, swapAddresses, writeEthernet } from './ethernet';
import { checkUdp, IPV4_IDENTIFICATION, IPV4_PROTOCOL, sealUdp, swapEnds, type UdpEnds, writeUdp } from './ipv4';

const MAGIC = 0x464e4856;
/** Offsets in the body. */
const AT_FLOW = 4;
const AT_LENGTH = 6;
const AT_SEQUENCE = 8;
const AT_TIME = 12;
const AT_CRC = 20;
const AT_FILLING = 24;
/** From the IPv4 header to the body. */
const UDP_HEADERS = IPV4_HLEN + UDP_HLEN;
/** They are the last before the body. */
const UDP_CHECKSUM_BYTES = 2;
/** IPv4 identification of a frame whose UDP checksum is computed. */
const CHECKSUMMED = 1;

export const MIN_TEST_FRAME = ETH_ZLEN;
export const MAX_TEST_FRAME = 65535;

/** What stands between the addresses and the body. */
export interface FrameShape {
  /** Tag control information of an 802.1Q tag: priority and VLAN identifier, 16 bits. Absent: no tag. */
  vlan?: number;
  /** Absent: a raw frame. */
  udp?: UdpEnds & { checksum?: boolean };
}

export const RAW: FrameShape = Object.freeze({});

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

/** Bytes of the shortest frame of a shape. */
export function leastFrameSize({ vlan, udp }: FrameShape): number {
  const headers = ETH_HLEN + (vlan === undefined ? 0 : VLAN_HLEN) + (udp === undefined ? 0 : UDP_HEADERS);
  return Math.max(MIN_TEST_FRAME, headers + AT_FILLING);
}

export function requireFrameSize(length: number, shape: FrameShape = RAW, most = MAX_TEST_FRAME): void {
  const least = leastFrameSize(shape);
  if (!Number.isInteger(length) || length < least || length > most) {
    throw invalidArgument(`a frame of ${length} bytes`, `${least} to ${most}`);
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
  shape: FrameShape = RAW,
): void {
  const { vlan, udp } = shape;
  const type = udp === undefined ? ETH_P_802_EX1 : ETH_P_IP;
  let at = offset + ETH_HLEN;
  writeEthernet(area.u8, offset, addresses, destinationAt, sourceAt, vlan === undefined ? type : ETH_P_8021Q);
  if (vlan !== undefined) {
    area.view.setUint16(at, vlan);
    area.view.setUint16(at + 2, type);
    at += VLAN_HLEN;
  }
  if (udp !== undefined) {
    writeUdp(area.u8, at, offset + length - at, udp, udp.checksum === true ? CHECKSUMMED : 0);
    at += UDP_HEADERS;
  }
  area.view.setUint32(at, MAGIC, true);
  area.view.setUint16(at + AT_FLOW, flow, true);
  area.view.setUint16(at + AT_LENGTH, length, true);
  for (let filling = at + AT_FILLING - offset; filling < length; filling++) area.u8[offset + filling] = filling;
}

/** Numbers, times and seals a prepared frame. */
export function stampFrame(area: FrameArea, offset: number, sequence: number, micros: number): void {
  const body = bodyAt(area.u8, offset);
  area.view.setUint32(body + AT_SEQUENCE, sequence, true);
  area.view.setFloat64(body + AT_TIME, micros, true);
  seal(area, offset, area.view.getUint16(body + AT_LENGTH, true), body);
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
  shape: FrameShape = RAW,
): void {
  prepareFrame(area, offset, length, flow, addresses, destinationAt, sourceAt, shape);
  stampFrame(area, offset, sequence, micros);
}

/** Computes the checksums anew, after a change to a frame that was sound. */
export function sealFrame(area: FrameArea, offset: number, length: number): void {
  seal(area, offset, length, bodyAt(area.u8, offset));
}

/** Sends a frame, of whatever kind, back where it came from: a test frame is turned and sealed whole, of others the addresses are swapped. */
export function returnFrame(area: FrameArea, offset: number, length: number): void {
  swapAddresses(area.u8, offset);
  const body = findBody(area, offset, length);
  if (body < 0) return;
  if (isUdp(offset, body)) swapEnds(area.u8, body - UDP_HEADERS);
  seal(area, offset, length, body);
}

/** Whether they claim to be one of these frames; says nothing of their soundness. */
export function isTestFrame(area: FrameArea, offset: number, length: number): boolean {
  return findBody(area, offset, length) >= 0;
}

/** What the `length` bytes at `offset` are. Nothing outside them is read. */
export function checkFrame(area: FrameArea, offset: number, length: number): FrameVerdict {
  const body = findBody(area, offset, length);
  if (body < 0) return FRAME_FOREIGN;
  const { u8, view } = area;
  if (view.getUint16(body + AT_LENGTH, true) !== length) return FRAME_CORRUPTED;
  if (view.getUint32(body + AT_CRC, true) !== checksum(u8, offset, length, body)) return FRAME_CORRUPTED;
  if (!isChecksummed(u8, offset, body)) return FRAME_OK;
  const ip = body - UDP_HEADERS;
  return checkUdp(u8, ip, offset + length - ip) ? FRAME_OK : FRAME_CORRUPTED;
}

/** Of frames that `isTestFrame` has passed, like those below. */
export const frameFlow = (area: FrameArea, offset: number): number =>
  area.view.getUint16(bodyAt(area.u8, offset) + AT_FLOW, true);
export const frameLength = (area: FrameArea, offset: number): number =>
  area.view.getUint16(bodyAt(area.u8, offset) + AT_LENGTH, true);
export const frameSequence = (area: FrameArea, offset: number): number =>
  area.view.getUint32(bodyAt(area.u8, offset) + AT_SEQUENCE, true);
/** Microseconds. */
export const frameTime = (area: FrameArea, offset: number): number =>
  area.view.getFloat64(bodyAt(area.u8, offset) + AT_TIME, true);

/** Where the body of what claims to be one of these frames begins, or -1. */
function findBody(area: FrameArea, offset: number, length: number): number {
  // As much as a raw frame without a tag has: whatever tells the shape lies within.
  if (length < ETH_HLEN + AT_FILLING) return -1;
  const body = bodyAt(area.u8, offset);
  if (body < 0 || body + AT_FILLING > offset + length) return -1;
  return area.view.getUint32(body, true) === MAGIC ? body : -1;
}

/** Where the body begins, or -1 when the EtherType is none of ours or what follows is not UDP. Reads 28 bytes at most. */
function bodyAt(u8: Uint8Array, offset: number): number {
  let at = offset + ETH_HLEN;
  let type = etherType(u8, offset);
  if (type === ETH_P_8021Q) {
    at += VLAN_HLEN;
    type = etherType(u8, offset + VLAN_HLEN);
  }
  if (type === ETH_P_802_EX1) return at;
  if (type !== ETH_P_IP || u8[at] !== IPV4_VERSION_IHL || u8[at + IPV4_PROTOCOL] !== IPPROTO_UDP) return -1;
  return at + UDP_HEADERS;
}

function isUdp(offset: number, body: number): boolean {
  return body - offset >= ETH_HLEN + UDP_HEADERS;
}

function isChecksummed(u8: Uint8Array, offset: number, body: number): boolean {
  if (!isUdp(offset, body)) return false;
  const at = body - UDP_HEADERS + IPV4_IDENTIFICATION;
  return u8[at] === 0 && u8[at + 1] === CHECKSUMMED;
}

function seal(area: FrameArea, offset: number, length: number, body: number): void {
  area.view.setUint32(body + AT_CRC, checksum(area.u8, offset, length, body), true);
  const ip = body - UDP_HEADERS;
  if (isChecksummed(area.u8, offset, body)) sealUdp(area.u8, ip, offset + length - ip);
}

function checksum(u8: Uint8Array, offset: number, length: number, body: number): number {
  if (isChecksummed(u8, offset, body)) return checksumWithoutUdp(u8, offset, length, body);
  const filling = body + AT_FILLING;
  return crc32(u8, filling, offset + length - filling, crc32(u8, offset, body + AT_CRC - offset));
}

function checksumWithoutUdp(u8: Uint8Array, offset: number, length: number, body: number): number {
  const filling = body + AT_FILLING;
  const before = crc32(u8, offset, body - UDP_CHECKSUM_BYTES - offset);
  return crc32(u8, filling, offset + length - filling, crc32(u8, body, AT_CRC, before));
}
