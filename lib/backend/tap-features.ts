/** What negotiated features mean for the tap underneath a data path, and which of them taps carry at all. */
import {
  IFF_VNET_HDR,
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_UDP_TUNNEL_GSO,
  TUN_F_UDP_TUNNEL_GSO_CSUM,
  TUN_F_UFO,
  TUN_F_USO4,
  TUN_F_USO6,
} from '../constants/if-tun';
import * as net from '../constants/virtio-net';
import { VhostError } from '../errors';
import type { Tap } from '../host/tap';
import { bits, hasBit } from '../net/features';
import { headerLength } from '../net/header';

/** Receive offload by feature bit: what the tap hands over whole. */
const OFFLOAD_OF: readonly (readonly [feature: number, offload: number])[] = [
  [net.VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM],
  [net.VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4],
  [net.VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6],
  [net.VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN],
  [net.VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO],
  [net.VIRTIO_NET_F_GUEST_USO4, TUN_F_USO4],
  [net.VIRTIO_NET_F_GUEST_USO6, TUN_F_USO6],
  [net.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO, TUN_F_UDP_TUNNEL_GSO],
  [net.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM, TUN_F_UDP_TUNNEL_GSO_CSUM],
];

/** Send offload by feature bit, and what a kernel must know of receiving to take such frames. */
const NEEDS_OFFLOAD: readonly (readonly [feature: number, offload: number])[] = [
  [net.VIRTIO_NET_F_CSUM, TUN_F_CSUM],
  [net.VIRTIO_NET_F_HOST_TSO4, TUN_F_TSO4],
  [net.VIRTIO_NET_F_HOST_TSO6, TUN_F_TSO6],
  [net.VIRTIO_NET_F_HOST_ECN, TUN_F_TSO_ECN],
  [net.VIRTIO_NET_F_HOST_UFO, TUN_F_UFO],
  [net.VIRTIO_NET_F_HOST_USO, TUN_F_USO4 | TUN_F_USO6],
  [net.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO, TUN_F_UDP_TUNNEL_GSO],
  [net.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO_CSUM, TUN_F_UDP_TUNNEL_GSO_CSUM],
];

/** Every TUN_F_ bit that stands for a feature. */
export const EVERY_OFFLOAD = OFFLOAD_OF.reduce((mask, [, offload]) => mask | offload, 0);

/**
 * Offloads that tap and frame carry without the data path's knowing, on any kernel that may turn out to have them. Not those of tunnelled
 * UDP: their longer header is one that vhost must know.
 */
export const BY_TAP = bits(...[...OFFLOAD_OF, ...NEEDS_OFFLOAD].map(([feature]) => feature).filter((n) => n < 64));

/** Feature bits that a tap carries whose kernel takes the TUN_F_ bits of `offload`. */
export function tapFeatures(offload: number): bigint {
  const carried = [...OFFLOAD_OF, ...NEEDS_OFFLOAD].filter(([, needed]) => (offload & needed) === needed);
  return bits(...carried.map(([feature]) => feature));
}

/** TUN_F_ bits for what the guest takes: the tap hands over whole what is in `features`, nothing else. */
export function tapOffload(features: bigint): number {
  return OFFLOAD_OF.reduce((mask, [feature, offload]) => mask | (hasBit(features, feature) ? offload : 0), 0);
}

/**
 * Sets header size and offloads of a tap for the features a driver acked; `offloads` are those of them that are on. These requests take a
 * lock that other tools can hold for long: call it before a switchover, not during one. Answers the TUN_F_ bits that the kernel took.
 */
export async function prepareTap(tap: Tap, features: bigint, offloads = features): Promise<number> {
  await tap.setVnetHdrSize(headerLength(features));
  return tap.setBestOffload(tapOffload(offloads));
}

/**
 * Refuses a tap whose header differs from the device's: frames to the guest would vanish without any error, while those from it still
 * arrive. Fails with VHOST_ERR_HEADER_SIZE.
 */
export function requireHeader(tap: Tap, features: bigint): void {
  const wanted = headerLength(features);
  const found = (tap.flags & IFF_VNET_HDR) === 0 ? 0 : tap.vnetHdrSize;
  if (found !== wanted) {
    throw new VhostError(
      'VHOST_ERR_HEADER_SIZE',
      `tap ${tap.name} has headers of ${found} bytes, the acked features need ${wanted}`,
      {
        hint:
          found === 0
            ? 'open the tap with IFF_VNET_HDR'
            : 'call prepareTap(tap, features), or start with prepareTaps: true',
      },
    );
  }
}
