/** TCP and UDP frames over IPv4 and IPv6 for tests of offloads: written with whole or with partial checksums, and read with a look at all of them. */
import { ETH_HLEN } from '../../lib/constants/if-ether';
import { IPPROTO_UDP, IPV4_HLEN, UDP_HLEN } from '../../lib/constants/ip';
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
} from '../../lib/constants/virtio-net';
import { parseMac } from '../../lib/net/ethernet';
import type { VirtioNetHeader } from '../../lib/net/header';
import { internetChecksum, parseIpv4, writeIpv4 } from '../../lib/net/ipv4';

export const IPPROTO_TCP = 6;
const ETH_P_IPV4 = 0x0800;
const ETH_P_IPV6 = 0x86dd;
const IPV6_HLEN = 40;
const TCP_HLEN = 20;
const TCP_ACK = 0x10;
const TCP_CHECKSUM = 16;
const UDP_CHECKSUM = 6;
const FIRST_SEQUENCE = 1_000_000;

export type Network = 'ipv4' | 'ipv6';
export type Transport = 'tcp' | 'udp';

/** Payload a segment. */
export const SEGMENT = 1400;

export interface Ends {
  from: string;
  to: string;
}

/** A frame for a driver or a tap with headers: its transport checksum covers the pseudo header only. */
export interface PartialFrame {
  bytes: Uint8Array;
  header: Partial<VirtioNetHeader>;
}

const networkLength = (network: Network): number => (network === 'ipv4' ? IPV4_HLEN : IPV6_HLEN);
const transportLength = (transport: Transport): number => (transport === 'tcp' ? TCP_HLEN : UDP_HLEN);
const protocolOf = (transport: Transport): number => (transport === 'tcp' ? IPPROTO_TCP : IPPROTO_UDP);

/** Bytes whose place in the stream can be told. */
export function payload(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index ^ (index >>> 8) ^ (index >>> 13)) & 0xff);
}

/** A frame of any length; longer than one segment it is one to be cut (GSO). */
export function partialFrame(
  network: Network,
  transport: Transport,
  data: Uint8Array,
  { from, to }: Ends,
): PartialFrame {
  const start = ETH_HLEN + networkLength(network);
  const headers = start + transportLength(transport);
  const bytes = new Uint8Array(headers + data.length);
  const view = new DataView(bytes.buffer);
  bytes.set(parseMac(to));
  bytes.set(parseMac(from), 6);
  view.setUint16(12, network === 'ipv4' ? ETH_P_IPV4 : ETH_P_IPV6);
  const length = bytes.length - start;
  if (network === 'ipv4') {
    const [source, destination] = [parseIpv4('10.0.0.2'), parseIpv4('10.0.0.1')];
    writeIpv4(bytes, ETH_HLEN, IPV4_HLEN + length, protocolOf(transport), source, destination, 1);
  } else {
    writeIpv6(view, length, protocolOf(transport));
  }
  view.setUint16(start, 40_000);
  view.setUint16(start + 2, 50_000);
  if (transport === 'tcp') {
    view.setUint32(start + 4, FIRST_SEQUENCE);
    bytes[start + 12] = (TCP_HLEN / 4) << 4;
    bytes[start + 13] = TCP_ACK;
    view.setUint16(start + 14, 0xffff);
  } else {
    view.setUint16(start + 4, length);
  }
  bytes.set(data, headers);
  const csumOffset = transport === 'tcp' ? TCP_CHECKSUM : UDP_CHECKSUM;
  // Not complemented: whoever completes it adds the rest to it.
  view.setUint16(
    start + csumOffset,
    ~internetChecksum(bytes, 0, 0, pseudoSum(view, network, transport, length)) & 0xffff,
  );
  const cut = transport === 'tcp' && data.length > SEGMENT;
  return {
    bytes,
    header: {
      flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
      gsoType: !cut
        ? VIRTIO_NET_HDR_GSO_NONE
        : network === 'ipv4'
          ? VIRTIO_NET_HDR_GSO_TCPV4
          : VIRTIO_NET_HDR_GSO_TCPV6,
      gsoSize: cut ? SEGMENT : 0,
      hdrLen: cut ? headers : 0,
      csumStart: start,
      csumOffset,
    },
  };
}

function writeIpv6(view: DataView, length: number, protocol: number): void {
  view.setUint32(ETH_HLEN, 0x6000_0000);
  view.setUint16(ETH_HLEN + 4, length);
  view.setUint8(ETH_HLEN + 6, protocol);
  view.setUint8(ETH_HLEN + 7, 64);
  for (const [index, last] of [2, 1].entries()) {
    view.setUint16(ETH_HLEN + 8 + 16 * index, 0xfd00);
    view.setUint8(ETH_HLEN + 23 + 16 * index, last);
  }
}

/** Sum over addresses, protocol and length. */
function pseudoSum(view: DataView, network: Network, transport: Transport, length: number): number {
  const [first, end] = network === 'ipv4' ? [ETH_HLEN + 12, ETH_HLEN + 20] : [ETH_HLEN + 8, ETH_HLEN + 40];
  let sum = protocolOf(transport) + length;
  for (let at = first; at < end; at += 2) sum += view.getUint16(at);
  return sum;
}

/** What a frame holds, and which of its checksums are right. */
export interface ReadFrame {
  network: Network;
  transport: Transport;
  /** Of the first byte of data in the stream; 0 for UDP. */
  sequence: number;
  data: Uint8Array;
  /** Always true of IPv6, which has none. */
  networkChecksum: boolean;
  transportChecksum: boolean;
}

/** Null for a frame that is neither TCP nor UDP between these ends. */
export function readFrame(bytes: Uint8Array): ReadFrame | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < ETH_HLEN + IPV4_HLEN + UDP_HLEN) return null;
  const type = view.getUint16(12);
  if (type !== ETH_P_IPV4 && type !== ETH_P_IPV6) return null;
  const network = type === ETH_P_IPV4 ? 'ipv4' : 'ipv6';
  const start = ETH_HLEN + networkLength(network);
  const protocol = bytes[network === 'ipv4' ? ETH_HLEN + 9 : ETH_HLEN + 6];
  if (protocol !== IPPROTO_TCP && protocol !== IPPROTO_UDP) return null;
  const transport = protocol === IPPROTO_TCP ? 'tcp' : 'udp';
  // The network's own length: a short frame is padded behind it.
  const told = network === 'ipv4' ? view.getUint16(ETH_HLEN + 2) - IPV4_HLEN : view.getUint16(ETH_HLEN + 4);
  const data = start + (transport === 'tcp' ? 4 * (bytes[start + 12]! >>> 4) : UDP_HLEN);
  return {
    network,
    transport,
    sequence: transport === 'tcp' ? view.getUint32(start + 4) - FIRST_SEQUENCE : 0,
    data: bytes.slice(data, start + told),
    networkChecksum: network === 'ipv6' || internetChecksum(bytes, ETH_HLEN, IPV4_HLEN) === 0,
    transportChecksum: internetChecksum(bytes, start, told, pseudoSum(view, network, transport, told)) === 0,
  };
}

/** The stream that segments in any order make up; throws when they overlap or leave a hole. */
export function reassemble(frames: readonly ReadFrame[]): Uint8Array {
  const ordered = [...frames].sort((a, b) => a.sequence - b.sequence);
  let next = 0;
  for (const { sequence, data } of ordered) {
    if (sequence !== next) throw new Error(`a segment at ${sequence}, ${next} is next`);
    next += data.length;
  }
  return new Uint8Array(Buffer.concat(ordered.map(({ data }) => data)));
}
