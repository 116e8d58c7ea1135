/** struct virtio_net_hdr (virtio 1.4 section 5.1.6) in place, little-endian; and how long it is for what was negotiated. */
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_MRG_RXBUF_SIZE,
  VIRTIO_NET_HDR_SIZE,
  VIRTIO_NET_HDR_V1_HASH_SIZE,
  VIRTIO_NET_HDR_V1_HASH_TUNNEL_SIZE,
} from '../constants/virtio-net';
import { hasBit } from './features';

/** Offsets of the fields. */
export const HDR_FLAGS = 0;
export const HDR_GSO_TYPE = 1;
export const HDR_HDR_LEN = 2;
export const HDR_GSO_SIZE = 4;
export const HDR_CSUM_START = 6;
export const HDR_CSUM_OFFSET = 8;
/** Valid only where the header has 12 bytes or more; in received frames only with MRG_RXBUF. */
export const HDR_NUM_BUFFERS = 10;

/** Bytes of header before every frame. */
export function headerLength(features: bigint): number {
  if (hasBit(features, VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO) || hasBit(features, VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO)) {
    return VIRTIO_NET_HDR_V1_HASH_TUNNEL_SIZE;
  }
  if (hasBit(features, VIRTIO_NET_F_HASH_REPORT)) return VIRTIO_NET_HDR_V1_HASH_SIZE;
  if (hasBit(features, VIRTIO_NET_F_MRG_RXBUF) || hasBit(features, VIRTIO_F_VERSION_1)) {
    return VIRTIO_NET_HDR_MRG_RXBUF_SIZE;
  }
  return VIRTIO_NET_HDR_SIZE;
}

/** The header as an object, for tools and tests; on the way of a packet the offsets above are read directly. */
export interface VirtioNetHeader {
  flags: number;
  gsoType: number;
  hdrLen: number;
  gsoSize: number;
  csumStart: number;
  csumOffset: number;
  /** Undefined in a header of 10 bytes. */
  numBuffers: number | undefined;
}

export function readHeader(view: DataView, offset: number, length: number): VirtioNetHeader {
  return {
    flags: view.getUint8(offset + HDR_FLAGS),
    gsoType: view.getUint8(offset + HDR_GSO_TYPE),
    hdrLen: view.getUint16(offset + HDR_HDR_LEN, true),
    gsoSize: view.getUint16(offset + HDR_GSO_SIZE, true),
    csumStart: view.getUint16(offset + HDR_CSUM_START, true),
    csumOffset: view.getUint16(offset + HDR_CSUM_OFFSET, true),
    numBuffers: length > VIRTIO_NET_HDR_SIZE ? view.getUint16(offset + HDR_NUM_BUFFERS, true) : undefined,
  };
}

export function writeHeader(view: DataView, offset: number, length: number, header: VirtioNetHeader): void {
  for (let at = 0; at < length; at++) view.setUint8(offset + at, 0);
  view.setUint8(offset + HDR_FLAGS, header.flags);
  view.setUint8(offset + HDR_GSO_TYPE, header.gsoType);
  view.setUint16(offset + HDR_HDR_LEN, header.hdrLen, true);
  view.setUint16(offset + HDR_GSO_SIZE, header.gsoSize, true);
  view.setUint16(offset + HDR_CSUM_START, header.csumStart, true);
  view.setUint16(offset + HDR_CSUM_OFFSET, header.csumOffset, true);
  if (length > VIRTIO_NET_HDR_SIZE) view.setUint16(offset + HDR_NUM_BUFFERS, header.numBuffers ?? 0, true);
}
