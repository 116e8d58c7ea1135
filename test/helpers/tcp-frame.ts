/** TCP segments larger than the network, as a host with segmentation offload sends them, and what becomes of them. */
import { VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4 } from '../../lib/constants/virtio-net';
import { parseMac } from '../../lib/net/ethernet';
import { writeHeader } from '../../lib/net/header';
import { internetChecksum, writeIpv4 } from '../../lib/net/ipv4';

const ETHERNET = 14;
const IPV4 = 20;
const TCP = 20;
const PROTOCOL = 6;
const CHECKSUM = 16;
/** Bytes in front of the data. */
export const TCP_HEADERS = ETHERNET + IPV4 + TCP;
/** Of the virtio-net header in front of the frame. */
export const TSO_HEADER = 12;

/** Sum of addresses, protocol and length, which the sender leaves in the checksum field. */
function pseudoHeader(frame: Uint8Array, bytes: number): number {
  let sum = PROTOCOL + bytes;
  for (let at = ETHERNET + 12; at < ETHERNET + IPV4; at += 2) sum += (frame[at]! << 8) | frame[at + 1]!;
  return (sum & 0xffff) + (sum >>> 16);
}

/** A virtio-net header and one frame of `data` bytes of TCP to be cut into segments of `segment` bytes; its checksum is not there yet. */
export function tsoFrame(destination: string, data: number, segment: number): Uint8Array {
  const packet = new Uint8Array(TSO_HEADER + TCP_HEADERS + data);
  const frame = packet.subarray(TSO_HEADER);
  const view = new DataView(packet.buffer, TSO_HEADER);
  frame.set(parseMac(destination));
  frame.set(parseMac('06:00:00:00:00:77'), 6);
  view.setUint16(12, 0x0800);
  writeIpv4(frame, ETHERNET, IPV4 + TCP + data, PROTOCOL, 0x0a000001, 0x0a000002);
  const tcp = ETHERNET + IPV4;
  view.setUint16(tcp, 4000);
  view.setUint16(tcp + 2, 5000);
  view.setUint32(tcp + 4, 1);
  view.setUint8(tcp + 12, (TCP / 4) << 4);
  view.setUint8(tcp + 13, 0x10);
  view.setUint16(tcp + 14, 0xffff);
  for (let at = 0; at < data; at++) frame[TCP_HEADERS + at] = at % 251;
  const sum = pseudoHeader(frame, TCP + data);
  view.setUint16(tcp + CHECKSUM, (sum & 0xffff) + (sum >>> 16));
  writeHeader(new DataView(packet.buffer), 0, TSO_HEADER, {
    flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
    gsoType: VIRTIO_NET_HDR_GSO_TCPV4,
    hdrLen: TCP_HEADERS,
    gsoSize: segment,
    csumStart: tcp,
    csumOffset: CHECKSUM,
    numBuffers: 0,
  });
  return packet;
}

/** Whether the TCP checksum is there and right. */
export function tcpChecksumRight(frame: Uint8Array): boolean {
  const bytes = frame.length - ETHERNET - IPV4;
  return internetChecksum(frame, ETHERNET + IPV4, bytes, pseudoHeader(frame, bytes)) === 0;
}

/** Data of segments, put together again in their order. */
export const dataOf = (frames: readonly Uint8Array[]): Uint8Array =>
  Buffer.concat(frames.map((frame) => frame.subarray(TCP_HEADERS)));
