/** IPv4 and UDP headers in place (RFC 791, RFC 768), big-endian, without options and without fragments. */
import { IPPROTO_UDP, IPV4_HLEN, IPV4_TTL, IPV4_VERSION_IHL } from '../constants/ip';
import { invalidArgument } from '../errors';

/** Offsets from the first byte of the IPv4 header. */
export const IPV4_IDENTIFICATION = 4;
export const IPV4_PROTOCOL = 9;
export const IPV4_SOURCE = 12;
export const IPV4_DESTINATION = 16;
const IPV4_TOTAL_LENGTH = 2;
const IPV4_TIME_TO_LIVE = 8;
const IPV4_CHECKSUM = 10;
export const UDP_SOURCE_PORT = IPV4_HLEN;
export const UDP_DESTINATION_PORT = IPV4_HLEN + 2;
const UDP_LENGTH = IPV4_HLEN + 4;
export const UDP_CHECKSUM = IPV4_HLEN + 6;

/** Between whom a datagram goes. */
export interface UdpEnds {
  /** Four bytes as an unsigned number, the first one highest. */
  source: number;
  destination: number;
  sourcePort: number;
  destinationPort: number;
}

const ADDRESS = /^\d{1,3}(\.\d{1,3}){3}$/;

/** "10.0.0.1" as an unsigned number. Throws VHOST_ERR_INVALID_ARGUMENT. */
export function parseIpv4(text: string): number {
  const bytes = ADDRESS.test(text) ? text.split('.').map(Number) : [256];
  if (bytes.some((byte) => byte > 255))
    throw invalidArgument(`IPv4 address ${JSON.stringify(text)}`, 'such as 10.0.0.1');
  return bytes.reduce((address, byte) => address * 256 + byte, 0);
}

function get16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 8) | bytes[offset + 1]!;
}

function put16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 8;
  bytes[offset + 1] = value;
}

function put32(bytes: Uint8Array, offset: number, value: number): void {
  put16(bytes, offset, value >>> 16);
  put16(bytes, offset + 2, value);
}

/**
 * The Internet checksum (RFC 1071) of bytes[offset, offset + length), an odd last byte filled up with a zero; 16 bits. Over a range that
 * holds its own right checksum it is 0. `sum` is added to it: a pseudo header.
 */
export function internetChecksum(bytes: Uint8Array, offset: number, length: number, sum = 0): number {
  const end = offset + length;
  let total = sum;
  let at = offset;
  for (; at + 2 <= end; at += 2) total += get16(bytes, at);
  if (at < end) total += bytes[at]! << 8;
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000);
  return ~total & 0xffff;
}

/** Writes a header at `offset` for a packet of `totalLength` bytes, header included; its checksum too. */
export function writeIpv4(
  bytes: Uint8Array,
  offset: number,
  totalLength: number,
  protocol: number,
  source: number,
  destination: number,
  identification = 0,
): void {
  bytes.fill(0, offset, offset + IPV4_HLEN);
  bytes[offset] = IPV4_VERSION_IHL;
  put16(bytes, offset + IPV4_TOTAL_LENGTH, totalLength);
  put16(bytes, offset + IPV4_IDENTIFICATION, identification);
  bytes[offset + IPV4_TIME_TO_LIVE] = IPV4_TTL;
  bytes[offset + IPV4_PROTOCOL] = protocol;
  put32(bytes, offset + IPV4_SOURCE, source);
  put32(bytes, offset + IPV4_DESTINATION, destination);
  put16(bytes, offset + IPV4_CHECKSUM, internetChecksum(bytes, offset, IPV4_HLEN));
}

/** Writes IPv4 and UDP header at `offset` for a datagram of `length` bytes with both; the UDP checksum is 0, that is none. */
export function writeUdp(bytes: Uint8Array, offset: number, length: number, ends: UdpEnds, identification = 0): void {
  writeIpv4(bytes, offset, length, IPPROTO_UDP, ends.source, ends.destination, identification);
  put16(bytes, offset + UDP_SOURCE_PORT, ends.sourcePort);
  put16(bytes, offset + UDP_DESTINATION_PORT, ends.destinationPort);
  put16(bytes, offset + UDP_LENGTH, length - IPV4_HLEN);
  put16(bytes, offset + UDP_CHECKSUM, 0);
}

/** Sum over addresses, protocol, length and the datagram of `length` bytes, IPv4 header included, at `offset`: 0 when its checksum is right. */
function udpSum(bytes: Uint8Array, offset: number, length: number): number {
  let pseudo = IPPROTO_UDP + length - IPV4_HLEN;
  for (let at = IPV4_SOURCE; at < IPV4_HLEN; at += 2) pseudo += get16(bytes, offset + at);
  return internetChecksum(bytes, offset + IPV4_HLEN, length - IPV4_HLEN, pseudo);
}

/** Computes the UDP checksum of the datagram of `length` bytes, IPv4 header included, whose IPv4 header is at `offset`. */
export function sealUdp(bytes: Uint8Array, offset: number, length: number): void {
  put16(bytes, offset + UDP_CHECKSUM, 0);
  // A sum of 0 is sent as its other form: 0 means that there is none.
  put16(bytes, offset + UDP_CHECKSUM, udpSum(bytes, offset, length) || 0xffff);
}

/** Whether there is a UDP checksum and it is right. */
export function checkUdp(bytes: Uint8Array, offset: number, length: number): boolean {
  return get16(bytes, offset + UDP_CHECKSUM) !== 0 && udpSum(bytes, offset, length) === 0;
}

/** Sends a datagram back where it came from. No checksum changes: sums do not know an order. */
export function swapEnds(bytes: Uint8Array, offset: number): void {
  swap(bytes, offset + IPV4_SOURCE, offset + IPV4_DESTINATION, 4);
  swap(bytes, offset + UDP_SOURCE_PORT, offset + UDP_DESTINATION_PORT, 2);
}

function swap(bytes: Uint8Array, a: number, b: number, length: number): void {
  for (let at = 0; at < length; at++) {
    const byte = bytes[a + at]!;
    bytes[a + at] = bytes[b + at]!;
    bytes[b + at] = byte;
  }
}
