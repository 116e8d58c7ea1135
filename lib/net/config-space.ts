/** struct virtio_net_config (virtio 1.4 section 5.1.4) as the driver reads it: little-endian, the same layout whatever was negotiated. */
import { VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP } from '../constants/virtio-net';
import { parseMac } from './ethernet';

/** Offsets of the fields. */
export const CONFIG_MAC = 0;
export const CONFIG_STATUS = 6;
export const CONFIG_MAX_VIRTQUEUE_PAIRS = 8;
export const CONFIG_MTU = 10;
export const CONFIG_SPEED = 12;
export const CONFIG_DUPLEX = 16;
/** Bytes up to and including `duplex`: what follows belongs to features that are not offered. */
export const CONFIG_BYTES = 17;

/** Values of `speed` and `duplex` for what is not known. */
export const SPEED_UNKNOWN = 0xffffffff;
export const DUPLEX_HALF = 0;
export const DUPLEX_FULL = 1;
export const DUPLEX_UNKNOWN = 0xff;

export interface NetConfig {
  mac: string;
  linkUp: boolean;
  announce: boolean;
  maxPairs: number;
  mtu: number;
  /** Mbit/s, 0 to 0x7fffffff, or SPEED_UNKNOWN. */
  speed: number;
  duplex: number;
}

export function encodeNetConfig(config: NetConfig): Uint8Array {
  const bytes = new Uint8Array(CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(parseMac(config.mac), CONFIG_MAC);
  const status = (config.linkUp ? VIRTIO_NET_S_LINK_UP : 0) | (config.announce ? VIRTIO_NET_S_ANNOUNCE : 0);
  view.setUint16(CONFIG_STATUS, status, true);
  view.setUint16(CONFIG_MAX_VIRTQUEUE_PAIRS, config.maxPairs, true);
  view.setUint16(CONFIG_MTU, config.mtu, true);
  view.setUint32(CONFIG_SPEED, config.speed, true);
  view.setUint8(CONFIG_DUPLEX, config.duplex);
  return bytes;
}
